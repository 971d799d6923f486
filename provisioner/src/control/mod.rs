//! The orchestrating service, from the agent's side: it is enrolled with, its ticket checked, its lease kept, and it is told what happens.
//!
//! [`Session::begin`] enrols and believes nothing before the ticket has said so ([`ticket`]). [`Session::start`] then renews the lease
//! ([`lease`], `renew.rs`) and reports events (`outbox.rs` keeps them, `sender.rs` sends them) beside the run, which
//! asks for its key (`key.rs`) where the service has that, until
//! [`Underway::finish`] has seen the last event accepted. Nothing is ever waited for without an end.

mod address;
mod client;
mod client_key;
mod connection;
mod enrol;
mod key;
pub mod lease;
mod named;
mod orders;
mod outbox;
mod pause;
mod random;
mod renew;
mod sender;
mod session;
#[cfg(test)]
mod testing;
pub mod ticket;
mod trouble;

pub(crate) use address::Address;
pub(crate) use client::Client;
pub use key::KeyDesk;
pub use lease::Lease;
pub use named::Named;
pub use outbox::Outbox;
pub(crate) use session::read_token;
pub use session::{Ended, Mandate, Options, Session, Underway};
