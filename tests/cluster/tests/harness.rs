//! The harness itself: a cluster that starts, is told what to do, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use cluster::Cluster;
use e2e::lab::Lab;

#[test]
fn starts() {
    let began = std::time::Instant::now();
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    eprintln!("started in {:?}", began.elapsed());
    let version = cluster.kubectl("version");
    assert!(version.contains("v1.20.2"), "{version}");
    cluster.kubectl("create serviceaccount somebody");
    let config = cluster.kubeconfig_of("somebody", "default");
    cluster::plane::forbidden(cluster.kubectl_run("get nodes --kubeconfig").arg(config).done());
    cluster.compact();
    let pids = cluster.pids();
    assert_eq!(pids.len(), 3);
    drop(cluster);
    assert!(pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
}
