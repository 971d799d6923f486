//! The images: what they are, and that what is in them works where containers are started with little. `CLUSTER_IMAGES` names the
//! folder that `cargo xtask containers --arch amd64` has filled.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod contents;
mod layout;
mod provisions;
mod service;
mod twice;

use cluster::lane::image;
