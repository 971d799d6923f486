//! The agent: puts one signed image onto one target, proves it, and is gone.
//!
//! [`run`] is the page that tells the story; [`phase`] holds its chapters, each with an input, an output and errors of its
//! own; [`target`] is where the image goes, [`luks`] how it is encrypted, [`block`], [`dm`] and [`tool`] what both stand on;
//! [`erase`] makes a returned disk forget; [`report`] turns what happens into events, and events into what people and machines
//! read.
//!
//! Errors are [`imgstream::error::Error`]s throughout: eight kinds that are also the exit codes.

pub mod block;
pub mod dm;
pub mod erase;
pub mod ipsec;
pub mod logging;
pub mod luks;
pub mod medium;
pub mod phase;
pub mod report;
pub mod run;
pub mod signals;
pub mod sysfs;
pub mod target;
mod thread;
pub mod tool;
