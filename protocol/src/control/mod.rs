//! What is said to the orchestrating service and what it answers: by people and platforms ([`run`]), by agents ([`agent`]), of keys
//! ([`key`]), and what it says when it refuses ([`problem`]). JSON over HTTP; which paths there are stands in the service's OpenAPI document.

pub mod agent;
pub mod key;
pub mod problem;
pub mod run;

pub use agent::{Enrol, Enrolled, Lease, Orders, Report};
pub use problem::{Code, Problem};
pub use run::{NewRun, Run};
