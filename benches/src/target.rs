//! The file that is written to: fresh for every run, and made the same way for everybody; and the loop device over it
//! for those who write to nothing but block devices.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::failure::{Context, Failure, Result};

/// How [`Target::preallocated`] makes a target, for the report.
pub const HOW: &str =
    "each run writes to a new file whose blocks were allocated with fallocate(2) and synced, never written";

/// A target file, removed when dropped.
pub struct Target {
    path: PathBuf,
}

impl Target {
    /// A fresh file of `size` bytes whose blocks are allocated but unwritten.
    pub fn preallocated(folder: &Path, size: u64) -> Result<Self> {
        let (target, file) = Self::create(folder)?;
        let length = i64::try_from(size).context("the size is too large")?;
        fallocate(&file, FallocateFlags::empty(), 0, length)
            .context(format!("could not allocate {size} bytes in {}", folder.display()))?;
        settle(&file)?;
        Ok(target)
    }

    /// A fresh sparse file of `size` bytes without any block.
    pub fn sparse(folder: &Path, size: u64) -> Result<Self> {
        let (target, file) = Self::create(folder)?;
        file.set_len(size).context(format!("could not make a sparse file of {size} bytes in {}", folder.display()))?;
        settle(&file)?;
        Ok(target)
    }

    fn create(folder: &Path) -> Result<(Self, File)> {
        let path = folder.join("target");
        let _ = fs::remove_file(&path);
        let file = File::create_new(&path).context(format!("could not create {}", path.display()))?;
        Ok((Self { path }, file))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A loop device over a target, detached when dropped.
pub struct LoopDevice {
    path: String,
}

impl LoopDevice {
    /// Attaches `target`, past the page cache of the file below, and looking for partitions as a disk would.
    pub fn attach(target: &Target) -> Result<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--partscan", "--direct-io=on"]).arg(target.path());
        let output = losetup.output().context("could not run losetup")?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        if !output.status.success() {
            return Err(Failure::new(format!("losetup failed: {said} (only root may attach loop devices)")));
        }
        Ok(Self { path: String::from_utf8_lossy(&output.stdout).trim().to_string() })
    }

    /// `/dev/loopN`
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("benches: could not detach {0}; run: losetup --detach {0}", self.path);
        }
    }
}

/// Nothing of what went before may still be on its way to the device when the clock starts.
fn settle(file: &File) -> Result<()> {
    file.sync_all().context("could not sync the target")?;
    Command::new("sync").status().context("could not run sync")?;
    Ok(())
}
