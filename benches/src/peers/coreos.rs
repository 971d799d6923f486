//! `coreos-installer install` of a zstd file over HTTP. It writes to block devices only, hence the loop device.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Onto, Place, Verifies, Way};

/// `coreos-installer`.
pub struct CoreosInstaller;

impl Way for CoreosInstaller {
    fn name(&self) -> &'static str {
        "coreos-installer install"
    }

    fn verifies(&self) -> Verifies {
        Verifies::Checksum
    }

    fn needs(&self) -> &'static [Need] {
        &[
            Need { program: "coreos-installer", from: "cargo install coreos-installer" },
            Need { program: "losetup", from: "apt-get install mount" },
        ]
    }

    fn note(&self) -> &'static str {
        "--insecure, since only its makers can sign for it: GnuPG's work on every byte is not in the figure; onto a \
         loop device with direct I/O, whose kernel threads' CPU is not counted"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        Ok(vec![place.lab.zst_of(place.subject)?])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let install = ["coreos-installer", "install", "--insecure", "--image-url", &place.url("raw.zst"), target];
        Ok(Job::one(command(&install)).then(command(&["sync", target])))
    }

    fn onto(&self) -> Onto {
        Onto::LoopDevice
    }
}
