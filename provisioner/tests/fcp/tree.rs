//! A sysfs and a procfs in a temporary directory: files, directories and links as the kernel lays them out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Dir,
    Link(PathBuf),
    File(Vec<u8>),
}

/// Everything below a directory.
pub type Snapshot = BTreeMap<PathBuf, Entry>;

#[derive(Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    pub fn new(root: &Path) -> Self {
        Tree { root: root.to_owned() }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub fn exists(&self, below: &str) -> bool {
        fs::symlink_metadata(self.path(below)).is_ok()
    }

    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_default().trim().to_owned()
    }

    pub fn dir(&self, below: &str) {
        fs::create_dir_all(self.path(below)).unwrap();
    }

    /// An attribute; a line where it can be read, nothing where it can only be written.
    pub fn set(&self, below: &str, value: &str) {
        let text = if value.is_empty() { String::new() } else { format!("{value}\n") };
        fs::write(self.path(below), text).unwrap();
    }

    /// Attributes of one directory, which is made.
    pub fn attributes(&self, dir: &str, attributes: &[(&str, &str)]) {
        self.dir(dir);
        attributes.iter().for_each(|(name, value)| self.set(&format!("{dir}/{name}"), value));
    }

    /// A relative link from `from` to `to`, both below the root.
    pub fn link(&self, from: &str, to: &str) {
        let (from_parts, to_parts): (Vec<_>, Vec<_>) = (from.split('/').collect(), to.split('/').collect());
        // sysfs names the target itself also where the link lies below it.
        let same = from_parts.iter().zip(&to_parts[..to_parts.len() - 1]).take_while(|(a, b)| a == b).count();
        let up = "../".repeat(from_parts.len() - same - 1);
        self.dir(&from_parts[..from_parts.len() - 1].join("/"));
        symlink(format!("{up}{}", to_parts[same..].join("/")), self.path(from)).unwrap();
    }

    /// Removes what is there, a directory with all it has.
    pub fn remove(&self, below: &str) {
        let path = self.path(below);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
    }

    /// The names in a directory that start with `start`.
    pub fn names(&self, dir: &str, start: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
        names.sort();
        names
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        self.walk(&self.root, &mut snapshot);
        snapshot
    }

    fn walk(&self, dir: &Path, snapshot: &mut Snapshot) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let entry = if kind.is_symlink() {
                Entry::Link(fs::read_link(&path).unwrap())
            } else if kind.is_dir() {
                self.walk(&path, snapshot);
                Entry::Dir
            } else {
                Entry::File(fs::read(&path).unwrap())
            };
            snapshot.insert(path.strip_prefix(&self.root).unwrap().to_owned(), entry);
        }
    }
}
