//! What the agent leaves for the first process: how the run ended, and what becomes of the machine.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where it lies.
const FILE: &str = "/run/z-provisioner/ended.json";

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Everything is done, and the firmware knows what to start.
    ReIpl {
        /// What it will start, in words.
        from: String,
    },
    /// Everything is done; the machine is to halt.
    Halt,
    /// Everything is done; nothing is to become of the machine.
    Stay,
    /// Everything is done, but nobody has been told.
    NotStarted {
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// It is not done.
    Failed {
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

impl Ended {
    /// Leaves it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn leave(&self) -> io::Result<()> {
        let path = Path::new(FILE);
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(self)?)?;
        fs::rename(part, path)
    }
}

/// What was left, if anything was.
pub fn read() -> Option<Ended> {
    serde_json::from_slice(&fs::read(FILE).ok()?).ok()
}
