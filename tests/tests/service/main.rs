//! The orchestrating service as it is shipped, with real agents on real devices, and with crowds of agents that play their part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod agents;
mod keys;
mod kills;
mod leaks;
mod metrics;
mod store;
mod strangers;
mod tickets;
mod time;
