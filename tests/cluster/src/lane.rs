//! What `cargo xtask test --kubernetes` provides, and names in the environment.

use std::path::PathBuf;

/// A program of the control plane.
///
/// # Panics
/// When there is none.
pub fn program(name: &str) -> PathBuf {
    let path = named("CLUSTER_ROOT").join("bin").join(name);
    assert!(path.is_file(), "{} is not there: `cargo xtask cluster` makes it", path.display());
    path
}

/// The layout of an image, by the name of its program.
///
/// # Panics
/// When there is none.
pub fn image(name: &str) -> PathBuf {
    let layout = named("CLUSTER_IMAGES").join(name);
    assert!(
        layout.join("oci-layout").is_file(),
        "there is no image in {}: `cargo xtask containers --arch amd64 --programs dev` makes it",
        layout.display()
    );
    layout
}

fn named(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| {
        panic!(
            "{variable} is not set: `cargo xtask test --kubernetes` does that. By hand: CLUSTER_ROOT is what `cargo xtask cluster` \
             prints, CLUSTER_IMAGES what `cargo xtask containers --arch amd64 --programs dev` fills"
        )
    })
}
