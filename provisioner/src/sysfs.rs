//! sysfs and procfs, below roots that tests can move: read an attribute, list names, write an attribute.
//!
//! Reading is lenient: anything may go away while it is looked at, so what cannot be read is not there. Writing is not:
//! it is one write(2) to a file that exists, as the kernel wants it, and says how the kernel answered.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

/// What a write to an attribute does. The machine's is [`write()`]; a test's also plays the kernel that answers.
pub type Store = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;

/// Where a machine tells about itself, and takes orders.
#[derive(Clone)]
pub struct Roots {
    sys: PathBuf,
    proc: PathBuf,
    store: Arc<Store>,
}

impl Default for Roots {
    fn default() -> Self {
        Roots::at("/sys", "/proc")
    }
}

impl Roots {
    /// Other places than `/sys` and `/proc`.
    pub fn at(sys: impl Into<PathBuf>, proc: impl Into<PathBuf>) -> Self {
        Roots { sys: sys.into(), proc: proc.into(), store: Arc::new(write) }
    }

    /// The same places, where `store` does what there is to do at a write.
    #[must_use]
    pub fn with_store(self, store: Arc<Store>) -> Self {
        Roots { store, ..self }
    }

    /// A path in sysfs.
    pub fn sys(&self, below: &str) -> PathBuf {
        self.sys.join(below)
    }

    /// A path in procfs.
    pub fn proc(&self, below: &str) -> PathBuf {
        self.proc.join(below)
    }

    /// Writes an attribute that the kernel answers at once.
    ///
    /// # Errors
    /// What the kernel answered; `NotFound` where there is no such attribute.
    pub fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        (self.store)(path, value)
    }

    /// Starts a write on a thread of its own, since the kernel answers some only when all is done, and cannot be
    /// interrupted meanwhile. Must be called inside the runtime.
    pub fn write_aside(&self, path: &Path, value: &str) -> JoinHandle<io::Result<()>> {
        let (store, path, value) = (Arc::clone(&self.store), path.to_owned(), value.to_owned());
        tokio::task::spawn_blocking(move || store(&path, &value))
    }
}

/// The text of an attribute, without white space around it.
pub fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether an attribute is there and says 1.
pub fn is_set(path: &Path) -> bool {
    read(path).is_some_and(|text| text == "1")
}

/// The names in a directory, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The last part of where a link leads.
pub fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    target.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Writes an attribute.
///
/// # Errors
/// What the kernel answered; `NotFound` where there is no such attribute: none is made.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    loop {
        // Not `write_all`: each write(2) is an order of its own.
        match file.write(value.as_bytes()) {
            Ok(len) if len == value.len() => return Ok(()),
            Ok(len) => return Err(io::Error::new(ErrorKind::WriteZero, format!("the kernel took {len} bytes of it"))),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_reads_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((read(&dir.path().join("online")), is_set(&dir.path().join("online"))), (None, false));
        assert!(names(&dir.path().join("none")).is_empty() && link_name(dir.path()).is_none());
        fs::write(dir.path().join("online"), "1\n").unwrap();
        fs::write(dir.path().join("a"), "good \n").unwrap();
        assert_eq!(read(&dir.path().join("a")).as_deref(), Some("good"));
        assert!(is_set(&dir.path().join("online")) && !is_set(&dir.path().join("a")));
        assert_eq!(names(dir.path()), ["a", "online"]);
    }

    #[test]
    fn a_write_makes_no_file_and_cuts_none_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("online");
        assert_eq!(write(&path, "1").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!path.exists());
        fs::write(&path, "0\n").unwrap();
        write(&path, "1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn what_the_kernel_answers_is_told() {
        let full = write(Path::new("/dev/full"), "1").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}
