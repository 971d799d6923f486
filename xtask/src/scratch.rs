//! A folder for one run's files, gone afterwards unless it is to be kept.

use std::path::PathBuf;

use crate::fail::{Outcome, Tried};

/// A temporary folder.
pub struct Scratch {
    folder: PathBuf,
    keep: bool,
}

impl Scratch {
    /// A new one, under `$TMPDIR` or else /var/tmp: /tmp is often memory, and disk images are large.
    pub fn new(name: &str, keep: bool) -> Outcome<Self> {
        let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let folder = base.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).tried(format_args!("create the work folder {}", folder.display()))?;
        Ok(Self { folder, keep })
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.folder.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: cleaning up: could not remove {}: {error}", self.folder.display());
        }
    }
}
