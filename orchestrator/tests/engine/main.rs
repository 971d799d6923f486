//! The engine in a world of its own: a store in memory that outlives it and fails, a launcher whose processes can be killed, time that
//! passes only where a test waits.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod keys;
mod lies;
mod memory;
mod outages;
mod paths;
mod property;
mod revoked;
mod scenes;
mod silence;
mod upkeep;
mod world;
