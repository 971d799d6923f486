//! A node for a cluster, until SIGTERM: `node --kubeconfig FILE --name NAME --storage FOLDER [--image NAME=LAYOUT]
//! [--label NAME=VALUE] [--device RESOURCE=PATH]`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster::{Machine, Podman};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: node --kubeconfig FILE --name NAME --storage FOLDER [--image NAME=LAYOUT]... [--label NAME=VALUE]... \
    [--device RESOURCE=PATH]... [--seccomp FOLDER]\nThe kubeconfig is an administrator's, in JSON; images are looked for in the storage \
    alone, into which those named are taken from OCI layouts.";

/// What the command line asks for.
#[derive(Default)]
struct Wanted {
    kubeconfig: PathBuf,
    name: String,
    storage: PathBuf,
    profiles: Option<PathBuf>,
    images: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    devices: Vec<(String, String)>,
}

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Before any thread is started, so that all of them leave these signals to this one.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().expect("blocking signals");
    let storage = Podman::new(&wanted.storage);
    for (name, layout) in &wanted.images {
        storage.load_as(Path::new(layout), name);
    }
    let node = machine(&wanted, storage.clone()).start(&wanted.kubeconfig);
    eprintln!("node {} is there", node.name());
    signals.wait().expect("waiting for a signal");
    drop(node);
    // The containers have ended, and go when this process does. Whoever waits for that may remove the storage next.
    storage.bounded(["rm", "--all", "--force", "--time", "0"]).done().ok();
    ExitCode::SUCCESS
}

fn wanted(mut words: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    while let Some(word) = words.next() {
        let value = words.next()?;
        let pair = || value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        match word.as_str() {
            "--image" => wanted.images.push(pair()?),
            "--label" => wanted.labels.push(pair()?),
            "--device" => wanted.devices.push(pair()?),
            "--kubeconfig" => wanted.kubeconfig = value.into(),
            "--name" => wanted.name = value,
            "--storage" => wanted.storage = value.into(),
            "--seccomp" => wanted.profiles = Some(value.into()),
            _ => return None,
        }
    }
    let said = [wanted.kubeconfig.as_os_str(), wanted.name.as_ref(), wanted.storage.as_os_str()];
    said.iter().all(|value| !value.is_empty()).then_some(wanted)
}

fn machine(wanted: &Wanted, storage: Podman) -> Machine {
    let mut machine = Machine::new(&wanted.name, &wanted.storage.join("node"), storage);
    for (name, value) in &wanted.labels {
        machine = machine.label(name, value);
    }
    for (resource, path) in &wanted.devices {
        machine = machine.device(resource, Path::new(path));
    }
    match &wanted.profiles {
        Some(folder) => machine.profiles(folder),
        None => machine,
    }
}
