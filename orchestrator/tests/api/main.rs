//! The API on real sockets, with an engine that follows a script: who is let in, what is refused and how, what one caller may cost, and what
//! watchers are told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bodies;
mod callers;
mod document;
mod fake;
mod floods;
mod house;
mod instances;
mod limits;
mod sessions;
mod statuses;
mod untaken;
mod watching;
mod wires;
