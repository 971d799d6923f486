//! A real Kubernetes control plane with a node of its own, for tests of runs as Jobs and of the images they are started from.
// A harness reports its own trouble by panicking: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod credentials;
pub mod image;
pub mod lane;
pub mod node;
pub mod plane;
pub mod podman;
pub mod process;

pub use node::{Machine, Node};
pub use plane::{Cluster, Pace};
pub use podman::Podman;

/// A client of the cluster that a kubeconfig names.
///
/// # Errors
/// When the file makes no sense.
pub async fn client(kubeconfig: &std::path::Path) -> Result<kube::Client, Box<dyn std::error::Error + Send + Sync>> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
