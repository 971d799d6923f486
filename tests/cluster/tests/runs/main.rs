//! Runs as Jobs of a real cluster: what can go wrong in one, each made to happen.
//!
//! The service runs beside the cluster, with the rights that the manifests give it and no others. Where a container matters pods are
//! containers of the agent's image; elsewhere its program, started by the node in the container's place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // tests

mod ended;
mod fencing;
mod many;
mod outages;
mod stage;
mod waits;
