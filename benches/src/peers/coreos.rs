//! `coreos-installer install` of a zstd file over HTTP. It writes to block devices only, hence the loop device.

use std::path::{Path, PathBuf};

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Onto, Place, Verifies, Way};

/// Here udevd listens, and coreos-installer looks for it.
const UDEV: &str = "/run/udev/control";

/// udevd, where Debian has it; in a mount namespace of its own it leaves no trace in this machine's /run.
const UDEVD: &str = "/lib/systemd/systemd-udevd";

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
            Need { program: "udevadm", from: "apt-get install udev" },
        ]
    }

    fn note(&self) -> &'static str {
        "--insecure, since only its makers can sign for it: GnuPG's work on every byte is not in the figure; onto a \
         loop device with direct I/O, whose kernel threads' CPU is not counted; it insists on udevd, so where none runs, \
         one does for it and in its time; flushes, and `sync` makes sure"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        Ok(vec![place.lab.zst_of(place.subject)?])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let (url, sync) = (place.url("raw.zst"), command(&["sync", target]));
        let install = command(&["coreos-installer", "install", "--insecure", "--image-url", &url, target]);
        if Path::new(UDEV).exists() {
            return Ok(Job::one(install).then(sync));
        }
        let script = format!(
            "mount -t tmpfs none /run; mkdir /run/udev; {UDEVD} --daemon; trap 'udevadm control --exit' EXIT; {}",
            install.join(" ")
        );
        Ok(Job::one(command(&["unshare", "--mount", "sh", "-e", "-c", &script])).then(sync))
    }

    fn onto(&self) -> Onto {
        Onto::LoopDevice
    }
}
