//! Guests: real s390x kernels, booted in QEMU, for tests of what this machine's own kernel cannot do (device mapper, SCSI, IPsec).
//!
//! A [`Guest`] is booted by its [`Builder`], runs commands, takes and gives files, loses paths and power, and is gone when it is
//! dropped, or when the test process is. Every wait has a limit and says what it waited for. A kernel that panics fails the test
//! with the console's lines. How to write a test is told in this crate's README.
//!
//! Everything guests are made of is named in environment variables; `cargo xtask test --vm` provides it and sets them.
// A harness reports its own trouble by panicking: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod base;
mod board;
mod builder;
mod channel;
mod console;
mod disk;
pub mod dm;
mod guest;
mod iscsi;
pub mod lane;
mod link;
pub mod lio;
mod lpar;
pub mod multipath;
mod process;
mod qemu;
mod qmp;
mod running;
pub mod scsi;

pub use builder::Builder;
pub use disk::Disk;
pub use guest::Guest;
pub use guest_init::frames::End;
pub use link::Link;
pub use lpar::{Boot, Frame, Lpar, LparBuilder};
pub use nix::sys::signal::Signal;
pub use process::{Done, Process, Run};

/// 1 MiB.
pub const MIB: u64 = 1 << 20;
