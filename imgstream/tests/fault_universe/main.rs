//! Sources that fail in every way we know, alone and together: what arrives is the image, or an error in bounded time.
//!
//! `targeted` has a test per promise, in virtual time. `universe` makes up sources and faults, and compares what the data
//! path does of them with a simple model of what it must do.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod image;
mod lanes;
mod logs;
mod metadata;
mod mock;
mod targeted;
mod universe;
