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

fn named(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| {
        panic!("{variable} is not set: `cargo xtask test --kubernetes` does that, and `cargo xtask cluster` prints its value")
    })
}
