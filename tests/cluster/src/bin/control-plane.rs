//! A control plane without nodes, until SIGTERM: `control-plane --kubeconfig FILE`. `CLUSTER_ROOT` is where its programs are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::ExitCode;

use cluster::Cluster;
use e2e::Lab;
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: control-plane --kubeconfig FILE\nThe file is made: an administrator's kubeconfig, in JSON.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [option, file] = &words[..] else { return usage() };
    if option != "--kubeconfig" {
        return usage();
    }
    let file = PathBuf::from(file);
    // Before any thread is started, so that all of them leave these signals to this one.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().expect("blocking signals");
    // What is first is dropped last: the folder of the files that the parts still write to.
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    std::fs::copy(cluster.kubeconfig(), &file).unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
    eprintln!("control plane listening on {}", cluster.url());
    signals.wait().expect("waiting for a signal");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
