//! podman, with a storage of its own, so that nothing of this machine's is touched and everything is gone afterwards.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Run;

/// What containers may open and start: podman asks for more than this machine may allow.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"];

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
        podman.args(self.options()).arg("--tmpdir").arg(self.folder.join("tmp"));
        podman.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]);
        // crun refuses hybrid cgroups.
        podman.args(["--runtime", "runc"]);
        podman
    }

    /// Where it is, as every program that uses such a storage is told.
    pub fn options(&self) -> [OsString; 6] {
        let below = |name: &str| self.folder.join(name).into_os_string();
        let (storage, run) = (below("storage"), below("run"));
        ["--root".into(), storage, "--runroot".into(), run, "--storage-driver".into(), "vfs".into()]
    }

    /// [`Self::command`] with arguments, bounded in time, its output kept.
    pub fn bounded(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let command = self.command();
        Run::program(Path::new(command.get_program())).args(command.get_args()).args(arguments)
    }

    /// Takes in the image for this machine out of an OCI layout. Returns its id.
    ///
    /// # Panics
    /// When podman does not take it.
    #[track_caller]
    pub fn load(&self, layout: &Path) -> String {
        self.bounded(["pull", "--quiet"]).arg(format!("oci:{}", layout.display())).text().trim().to_owned()
    }

    /// The same, and gives it a name.
    ///
    /// # Panics
    /// When podman does not take it.
    #[track_caller]
    pub fn load_as(&self, layout: &Path, name: &str) {
        let id = self.load(layout);
        self.bounded(["tag", &id, name]).done().ok();
    }

    /// A container that goes when it has ended: options of `podman run` first; arguments of the image's program may follow.
    pub fn run(&self, image: &str, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.bounded(["run", "--rm"]).args(LIMITS).args(options).arg(image)
    }
}
