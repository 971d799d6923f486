//! The agent: puts one signed image onto one target, proves it, and is gone.
//!
//! [`run`] is the page that tells the story; [`phase`] holds its chapters, each with an input, an output and errors of its
//! own; [`target`] is where the image goes, [`luks`] how it is encrypted, [`block`], [`dm`] and [`tool`] what both stand on;
//! [`ipl`] is how the written disk is started; [`erase`] makes a returned disk forget; [`report`] turns what happens into
//! events, and events into what people and machines read. [`supervisor`] is the first process of a machine that booted the medium,
//! [`machine`] what the agent does with one, [`medium`] what it is configured to do. [`control`] is how an orchestrating service starts
//! runs, keeps their leases and hears of them.
//!
//! Errors are [`imgstream::error::Error`]s throughout: eight kinds that are also the exit codes.

pub mod block;
mod cio;
pub mod control;
pub mod dm;
pub mod erase;
mod file;
pub mod ipl;
pub mod ipsec;
pub mod logging;
pub mod luks;
pub mod machine;
pub mod medium;
pub mod network;
pub mod phase;
pub mod report;
pub mod run;
pub mod signals;
pub mod supervisor;
pub mod sysfs;
pub mod target;
mod thread;
pub mod tool;
