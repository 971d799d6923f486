//! An archive the kernel unpacks into its first file system: cpio's "newc" format. Several of them may follow each other in a file,
//! and a later one adds to the earlier ones.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive being written. Everything in it belongs to root and has no time.
pub struct Archive<W: Write> {
    to: W,
    length: u64,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive<BufWriter<File>> {
    /// A new one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::to(BufWriter::new(File::create(path)?)))
    }

    /// One that follows what is in the file already.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append(path: &Path) -> io::Result<Self> {
        Ok(Self::to(BufWriter::new(File::options().append(true).open(path)?)))
    }
}

impl<W: Write> Archive<W> {
    /// One that is written to something else.
    pub fn to(to: W) -> Self {
        Self { to, length: 0, entries: 0, folders: BTreeSet::new() }
    }

    /// Adds a folder, and those it lies in.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder(parent(path))?;
        self.entry(path, FOLDER | 0o755, &[])
    }

    /// Adds a file. Paths have no slash in front.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.folder(parent(path))?;
        self.entry(path, FILE | mode, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folder(parent(path))?;
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Adds a copy of a file of this machine, or of a symbolic link.
    ///
    /// # Errors
    /// When it cannot be read, or the archive not be written.
    pub fn copy(&mut self, path: &str, source: &Path) -> io::Result<()> {
        let facts = fs::symlink_metadata(source)?;
        if facts.is_symlink() {
            return self.link(path, &fs::read_link(source)?.to_string_lossy());
        }
        // Not as it is here: that depends on who made the copy.
        let mode = if facts.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        self.file(path, mode, &fs::read(source)?)
    }

    /// Adds what lies in a folder of this machine.
    ///
    /// # Errors
    /// When it cannot be read, or the archive not be written.
    pub fn tree(&mut self, folder: &Path, at: &str) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{at}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.tree(&entry.path(), &path)?;
            } else {
                self.copy(&path, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.pad(512)?;
        self.to.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{path} is too large")))?;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, user, group, links, time, size, device, device of a device file, length of the name, checksum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.put(format!("070701{fields}{path}\0").as_bytes())?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let lacking = self.length.next_multiple_of(to) - self.length;
        self.put(&vec![0; usize::try_from(lacking).unwrap_or(0)])
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// By another reader: what cpio unpacks is what was put in.
    #[test]
    fn cpio_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("a.cpio"), folder.path().join("out"));
        let mut first = Archive::create(&path).unwrap();
        first.file("usr/bin/odd", 0o755, b"12345").unwrap();
        first.link("bin", "usr/bin").unwrap();
        first.finish().unwrap();
        let length = fs::metadata(&path).unwrap().len();
        assert_eq!(length % 512, 0, "so that another one may follow");
        fs::create_dir(&out).unwrap();
        let mut cpio = Command::new("cpio");
        cpio.args(["--extract", "--quiet", "--directory"]).arg(&out).stdin(Stdio::from(File::open(&path).unwrap()));
        assert!(cpio.status().expect("cpio (package cpio)").success());
        assert_eq!(fs::read(out.join("bin/odd")).unwrap(), b"12345");
        let mode = fs::metadata(out.join("usr/bin/odd")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);

        let mut second = Archive::append(&path).unwrap();
        second.file("init", 0o700, b"x").unwrap();
        second.finish().unwrap();
        assert_eq!(&fs::read(&path).unwrap()[usize::try_from(length).unwrap()..][..6], b"070701");
    }
}
