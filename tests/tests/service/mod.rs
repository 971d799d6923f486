//! The orchestrating service as it is shipped, with real agents on real devices, and with crowds of agents that play their part.

mod agents;
mod keys;
mod kills;
mod leaks;
mod metrics;
mod retention;
mod store;
mod strangers;
mod tickets;
mod time;
mod vault;
