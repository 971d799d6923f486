//! A node for a cluster, until SIGTERM: `node --kubeconfig FILE --name NAME --storage FOLDER [--label NAME=VALUE] [--device RESOURCE=PATH]`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster::{Machine, Podman};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: node --kubeconfig FILE --name NAME --storage FOLDER [--label NAME=VALUE]... [--device RESOURCE=PATH]... \
    [--seccomp FOLDER]\nThe kubeconfig is an administrator's, in JSON; images are looked for in the storage alone.";

fn main() -> ExitCode {
    let Some((kubeconfig, machine)) = machine(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Before any thread is started, so that all of them leave these signals to this one.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().expect("blocking signals");
    let node = machine.start(&kubeconfig);
    eprintln!("node {} is there", node.name());
    signals.wait().expect("waiting for a signal");
    ExitCode::SUCCESS
}

fn machine(mut words: impl Iterator<Item = String>) -> Option<(PathBuf, Machine)> {
    let (mut kubeconfig, mut name, mut storage, mut profiles) = (None, None, None, None);
    let (mut labels, mut devices) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        let value = words.next()?;
        let pair = || value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        match word.as_str() {
            "--kubeconfig" => kubeconfig = Some(PathBuf::from(value)),
            "--name" => name = Some(value),
            "--storage" => storage = Some(PathBuf::from(value)),
            "--seccomp" => profiles = Some(PathBuf::from(value)),
            "--label" => labels.push(pair()?),
            "--device" => devices.push(pair()?),
            _ => return None,
        }
    }
    let storage = storage?;
    let mut machine = Machine::new(&name?, &storage.join("node"), Podman::new(&storage));
    for (name, value) in labels {
        machine = machine.label(&name, &value);
    }
    for (resource, path) in devices {
        machine = machine.device(&resource, Path::new(&path));
    }
    if let Some(folder) = profiles {
        machine = machine.profiles(&folder);
    }
    Some((kubeconfig?, machine))
}
