//! Runs whose pods are containers of the agent's image, and the install: the service as a pod of its own image, as `kubectl apply -k`
//! makes it. `CLUSTER_IMAGES` names the folder with the images.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // tests

mod containers;
mod install;
// What other test programs have as well, and use more of.
#[allow(dead_code)]
#[path = "../manifests/site.rs"]
mod site;
#[allow(dead_code)]
#[path = "../runs/stage.rs"]
mod stage;

use cluster::Podman;
use cluster::lane;
use e2e::Lab;

/// A storage of a node's with images of these programs, tagged `localhost/NAME:test`.
fn storage(lab: &Lab, names: &[&str]) -> Podman {
    let podman = Podman::new(&lab.fresh_dir("podman"));
    for name in names {
        podman.load_as(&lane::image(name), &format!("localhost/{name}:test"));
    }
    podman
}

/// Gives an image one more name.
#[track_caller]
fn tag(podman: &Podman, image: &str, name: &str) {
    podman.bounded(["tag", image, name]).done().ok();
}
