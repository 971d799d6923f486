//! What a guest's kernel says on its console, and which of it means that nothing good can follow.

use std::path::{Path, PathBuf};

/// Any of these means that the kernel has failed. QEMU's exit code says nothing of it.
const FAILED: &[&str] = &[
    "Kernel panic",
    "Oops:",
    "kernel BUG at",
    " BUG: ",
    "Unable to handle kernel",
    "illegal operation:",
    "Kernel stack overflow",
    "Out of memory: Killed process",
];

/// How much of the console a failed test shows.
const SHOWN: usize = 60;

/// A console's log.
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// The log that QEMU writes.
    pub fn of(path: PathBuf) -> Self {
        Self { path }
    }

    /// All of it. What a guest writes may be anything.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).replace('\r', "")
    }

    /// The line that says the kernel has failed, if there is one.
    pub fn failure(&self) -> Option<String> {
        failure(&self.text()).map(str::to_owned)
    }

    /// Its last lines.
    pub fn last_lines(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// Keeps a copy.
    pub fn keep(&self, as_path: &Path) {
        if let Err(error) = std::fs::copy(&self.path, as_path) {
            eprintln!("keeping {}: {error}", as_path.display());
        }
    }
}

fn failure(text: &str) -> Option<&str> {
    text.lines().find(|line| FAILED.iter().any(|failed| line.contains(failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_from_a_warning() {
        let text = "[    1.0] MODE SENSE: unimplemented page\n[    2.0] Kernel panic - not syncing: x\n[    3.0] y\n";
        assert_eq!(failure(text), Some("[    2.0] Kernel panic - not syncing: x"));
        assert_eq!(failure("[    1.0] I/O error, dev sda, sector 0\n[    1.0] DEBUG: x\n"), None);
        assert_eq!(failure("[    1.0] BUG: soft lockup\n"), Some("[    1.0] BUG: soft lockup"));
    }
}
