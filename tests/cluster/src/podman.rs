//! podman, with a storage of its own, so that nothing of this machine's is touched and everything is gone afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A storage of images and containers.
#[derive(Debug, Clone)]
pub struct Podman {
    folder: PathBuf,
}

impl Podman {
    /// In a folder.
    pub fn new(folder: &Path) -> Self {
        Podman { folder: folder.to_owned() }
    }

    /// `podman`, with what this machine needs said.
    pub fn command(&self) -> Command {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(self.folder.join("storage")).arg("--runroot").arg(self.folder.join("run"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"]);
        // crun refuses hybrid cgroups.
        podman.args(["--runtime", "runc"]);
        podman
    }
}
