//! The harness of the end-to-end tests: real binaries, real block devices, real servers.
//!
//! A test that lacks a tool, root or a loop device fails and says what to install or do; none is ever skipped. Every
//! command has a time limit. Servers, mounts, loop devices and files go away with the value that stands for them.
// A harness reports its own trouble by panicking: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cgroup;
pub mod command;
pub mod counterfeit;
pub mod document;
pub mod encrypted;
pub mod forge;
pub mod hostile;
pub mod impostor;
pub mod lab;
pub mod layout;
pub mod loopdev;
pub mod narrow;
pub mod offers;
pub mod postgres;
pub mod sample;
pub mod second_reader;
pub mod server;
pub mod service;
pub mod target;
pub mod tls;
pub mod token;
pub mod witness;

pub use cgroup::Cgroup;
pub use command::{Done, Run, Running};
pub use impostor::Impostor;
pub use lab::{Image, Key, Lab};
pub use layout::Layout;
pub use loopdev::{Loop, Mount};
pub use narrow::Narrow;
pub use offers::Offers;
pub use postgres::Postgres;
pub use service::Service;
pub use target::Target;
pub use witness::Witness;

/// 1 KiB.
pub const KIB: u64 = 1 << 10;
/// 1 MiB.
pub const MIB: u64 = 1 << 20;
/// 1 GiB.
pub const GIB: u64 = 1 << 30;
/// 1 TiB.
pub const TIB: u64 = 1 << 40;

/// Exit codes that scripts rely on.
pub mod exit {
    /// The command line makes no sense.
    pub const USAGE: i32 = 2;
    /// The image is refused.
    pub const IMAGE: i32 = 3;
    /// The target is refused.
    pub const TARGET: i32 = 4;
    /// A source or the network failed, corrupt chunks included.
    pub const SOURCE: i32 = 5;
    /// A device answered with an error.
    pub const DEVICE: i32 = 6;
    /// The media do not hold what was written.
    pub const PROOF: i32 = 7;
    /// Stopped by a signal.
    pub const CANCELLED: i32 = 8;
}
