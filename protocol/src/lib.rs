//! What the agent and whoever runs it say to each other: the run spec that goes in, the events that come out, and between agent,
//! orchestrating service and people the requests and answers around them.
//!
//! Types only. Nothing here opens a file, knows an image format or talks to a network, so that both ends, old and new, can
//! share it. The rule for change: what goes *in* is strict (an unknown key is an error, because a wish that is silently
//! ignored is worse than a refusal); what comes *out* is lenient (an unknown kind of event is kept as it came, because a
//! reader that stops at the first new word sees nothing of the run).

#![forbid(unsafe_code)]

pub mod control;
pub mod event;
#[cfg(feature = "schema")]
mod schema;
pub mod spec;
mod text;
pub mod ticket;
mod words;

pub use event::{Body, Event, Priority};
pub use spec::RunSpec;
pub use text::{BadText, BusId, ClientKey, Digest, Label, Lun, RunId, ServerName, Token, UnlockKey, Wwid, Wwpn};
pub use ticket::Ticket;
