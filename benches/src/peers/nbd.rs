//! `nbdcopy` from `qemu-nbd`, which serves the zstd qcow2: nbdkit has no filter for zstd.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::peers::qemu;
use crate::way::{Need, Place, Verifies, Way};

/// `nbdcopy`.
pub struct Nbdcopy;

impl Way for Nbdcopy {
    fn name(&self) -> &'static str {
        "nbdcopy from qemu-nbd, local file"
    }

    fn verifies(&self) -> Verifies {
        Verifies::Nothing
    }

    fn needs(&self) -> &'static [Need] {
        &[
            Need { program: "nbdcopy", from: "apt-get install libnbd-bin" },
            Need { program: "qemu-nbd", from: "apt-get install qemu-utils" },
        ]
    }

    fn note(&self) -> &'static str {
        "no network but a socket, which carries raw data; requests of one cluster, since smaller ones decode each \
         cluster several times; --flush; truncates its target, so zeros cost it nothing"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        qemu::prepare(place)
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let mut argv = command(&["nbdcopy", "--flush", "--request-size=2097152", "--requests=8", "--connections=2"]);
        argv.extend(command(&[
            "--",
            "[",
            "qemu-nbd",
            "-r",
            "-t",
            "-e",
            "8",
            "-f",
            "qcow2",
            &place.path(qemu::FORM),
            "]",
        ]));
        argv.push(target.into());
        Ok(Job::one(argv))
    }
}
