//! The client and its commands against a service that is scripted: what is lost, late, cut, too large or not meant for it.

#![allow(clippy::unwrap_used, missing_docs)]

mod commands;
mod exchanges;
mod server;
mod streams;
mod watching;
