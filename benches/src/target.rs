//! The file that is written to: fresh for every run, and made the same way for everybody.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::failure::{Context, Result};

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

/// Nothing of what went before may still be on its way to the device when the clock starts.
fn settle(file: &File) -> Result<()> {
    file.sync_all().context("could not sync the target")?;
    Command::new("sync").status().context("could not run sync")?;
    Ok(())
}
