//! What a kernel unpacks into its first file system: archives, and what belongs into them. Programs of Debian's packages with the
//! libraries they need ([`closure`]), and kernel modules with those they depend on ([`modules`]).
//!
//! Which programs and modules those are is said elsewhere: by the boot medium, and by the guests that tests run in.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod archive;
pub mod closure;
pub mod modules;

pub use archive::Archive;
