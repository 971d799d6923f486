//! Loop devices and mounts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Run;

/// An attached loop device. It exists as long as this value, even when the test is killed: it is detached while
/// open, which the kernel puts off until the last one closes it.
pub struct Loop {
    path: PathBuf,
    _open: File,
}

impl Loop {
    /// Attaches a file.
    ///
    /// # Panics
    /// When this is not root, or there are no loop devices.
    pub fn attach(file: &Path) -> Self {
        Self::attach_with(file, "")
    }

    /// Attaches a file with options of losetup.
    ///
    /// # Panics
    /// When this is not root, or there are no loop devices.
    pub fn attach_with(file: &Path, options: &str) -> Self {
        demand_root();
        assert!(
            Path::new("/dev/loop-control").exists(),
            "no /dev/loop-control: these tests need loop devices (modprobe loop; in a container: --privileged)"
        );
        // Somebody else may take the device between losetup's end and our open.
        for _ in 0..20 {
            let path =
                PathBuf::from(Run::tool("losetup").words("--find --show").words(options).arg(file).text().trim());
            let open = File::open(&path);
            let detached = Run::tool("losetup").arg("--detach").arg(&path).done();
            if let (Ok(open), 0, true) =
                (open, detached.status.code().unwrap_or(1), backing(&path).is_some_and(|backing| backing == file))
            {
                return Loop { path, _open: open };
            }
        }
        panic!("no loop device for {}", file.display());
    }

    /// Closes it and waits until the kernel has let go of the file, so that what holds the file can be unmounted.
    ///
    /// # Panics
    /// When it does not within some seconds.
    pub fn detached(self) {
        let file = backing(&self.path);
        let path = self.path.clone();
        drop(self);
        for _ in 0..500 {
            if backing(&path) != file {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} is not let go", path.display());
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A partition's device; needs `--partscan`. A kernel that cannot read a GPT is told where the partition lies.
    ///
    /// # Panics
    /// When it does not appear.
    pub fn partition(&self, number: u32, start: u64, len: u64) -> PathBuf {
        let path = PathBuf::from(format!("{}p{number}", self.path.display()));
        if !path.exists() {
            let place = [u64::from(number), start / 512, len / 512].map(|number| number.to_string());
            Run::tool("addpart").arg(&self.path).args(place).done().ok();
        }
        assert!(path.exists(), "{} did not appear", path.display());
        path
    }

    /// How many sectors of 512 bytes have been written to it since it exists (`/sys/block/…/stat`, seventh number).
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn sectors_written(&self) -> u64 {
        let name = self.path.file_name().and_then(|name| name.to_str()).expect("a device's name");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("the device's counters");
        stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse().ok()).expect("a counter of writes")
    }

    /// Opens it as a file system or mapping would: nobody else may.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn claim(&self) -> std::io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.path)
    }
}

fn backing(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?.to_str()?;
    let text = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(text.trim().into())
}

/// Fails the test unless it runs as root.
///
/// # Panics
/// When it does not.
pub fn demand_root() {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root,
        "these tests attach loop devices and mount: run them as root (sudo env \"PATH=$PATH\" cargo xtask test)"
    );
}

/// A mount. Unmounted when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A file system of memory, with these options.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        Self::new(&format!("-t tmpfs -o {options}"), Path::new("none"), at)
    }

    /// `mount OPTIONS WHAT WHERE`; makes the directory.
    ///
    /// # Panics
    /// When it fails.
    pub fn new(options: &str, what: &Path, at: &Path) -> Self {
        demand_root();
        std::fs::create_dir_all(at).expect("making a mount point");
        Run::tool("mount").words(options).arg(what).arg(at).done().ok();
        Mount(at.to_owned())
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    /// The kernel closes an io_uring's files some time after its process is gone; until then the file system is busy.
    fn drop(&mut self) {
        for _ in 0..500 {
            if Run::tool("umount").arg(&self.0).done().status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} stays mounted", self.0.display());
    }
}
