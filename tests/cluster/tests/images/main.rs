//! The images: what they are, and that what is in them works where containers are started with little. `CLUSTER_IMAGES` names the
//! folder that `cargo xtask containers --arch amd64` has filled.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod contents;
mod layout;
mod provisions;
mod service;
mod twice;

use std::path::PathBuf;

/// The layout of an image.
#[track_caller]
fn image(name: &str) -> PathBuf {
    let folder = std::env::var_os("CLUSTER_IMAGES").map(PathBuf::from);
    let folder = folder
        .expect("CLUSTER_IMAGES: the folder that `cargo xtask containers --arch amd64 --programs dev` has filled");
    let layout = folder.join(name);
    assert!(layout.join("oci-layout").is_file(), "no image in {}: run `cargo xtask containers`", layout.display());
    layout
}
