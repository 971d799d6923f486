//! A real Kubernetes control plane with a node of its own, for tests of runs as Jobs and of the images they are started from.

pub mod podman;
