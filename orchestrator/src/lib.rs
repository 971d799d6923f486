//! The orchestrating service: schedules runs, leases and fences them, launches their agents, and never loses one.
//!
//! A request goes this way: [`api`] (what strangers may say) → [`engine`] (one at a time, in batches) → [`model`] (what it does to a
//! run, as a pure function) → [`store`] (one transaction per batch, each change with its event) → back, and only then to [`launch`] and
//! to whoever waits for the answer. So what was answered is on disk, and what is on disk is enough to go on from.

#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod command;
pub mod config;
mod dial;
pub mod engine;
pub mod error;
pub mod identity;
pub mod keys;
pub mod launch;
pub mod metrics;
pub mod model;
mod page;
pub mod policy;
pub mod service;
pub mod store;
pub mod text;
