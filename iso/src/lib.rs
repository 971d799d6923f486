//! The boot medium: what a machine boots that is to be provisioned. A kernel, a file system in memory with the agent as its first
//! process and the tools that it drives, and an empty place for what one server is configured to do.
//!
//! [`contents`] says what is on it, [`Filesystem`] makes the archive the kernel unpacks, [`image`] puts kernel and archive into one
//! memory image as firmware loads it, [`slot`] finds the place for a configuration in a medium and fills it. Unpacking packages and
//! calling xorriso is `cargo xtask iso`; what runs on the medium is the agent.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod contents;
mod filesystem;
pub mod image;
pub mod slot;

pub use filesystem::{Filesystem, Made};

/// The CD, among the forms that a medium is made in.
pub const ISO: &str = "z-provisioner.iso";

/// The memory image, which an `.ins` file names.
pub const IMAGE: &str = "z-provisioner.img";

/// The file that is unpacked last of what every medium has. Without it, the kernel has not unpacked all of it.
pub const SEAL: &str = "etc/z-provisioner/seal";
