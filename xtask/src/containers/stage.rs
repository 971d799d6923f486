//! An image's files, put together in a folder. Modes are set here and are two: what is started, and what is read.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use initramfs::closure;

use crate::containers::contents::{AUTHORITIES, Image, LINKS, NSSWITCH};
use crate::fail::{Fail, Outcome, Tried};
use crate::shell::{capture, tool, workspace};

/// A folder being filled.
pub struct Stage {
    packages: PathBuf,
    to: PathBuf,
    taken: BTreeSet<PathBuf>,
}

impl Stage {
    /// A new one, from the root of unpacked packages.
    pub fn new(packages: &Path, to: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(to).tried(format_args!("create {}", to.display()))?;
        let stage = Self { packages: packages.to_owned(), to: to.to_owned(), taken: BTreeSet::new() };
        stage.mode(to, 0o755)?;
        Ok(stage)
    }

    /// Puts an image's files in, around its program.
    pub fn fill(&mut self, image: &Image, program: &Path, strip: bool) -> Outcome<()> {
        for folder in image.folders {
            self.folder(folder)?;
        }
        self.folder("tmp")?;
        self.mode(&self.to.join("tmp"), 0o1777)?;
        self.text(NSSWITCH.0, NSSWITCH.1)?;
        if image.multipath {
            let conf = workspace().join("provisioner/multipath.conf");
            self.file("etc/multipath.conf", &conf, 0o644)?;
        }
        self.authorities()?;
        self.file(image.name, program, 0o755)?;
        if strip {
            // Most of a program that tests use is for debuggers.
            capture(tool("strip").arg(self.to.join(image.name)))?;
        }
        let mut wanted: Vec<String> = image.tools.iter().map(|path| (*path).to_owned()).collect();
        for folder in image.folders_taken {
            wanted.extend(closure::in_folder(&self.packages, folder).tried(format_args!("read {folder}"))?);
        }
        wanted.extend(closure::needed(&self.packages, program).tried("find the program's libraries")?);
        for (path, source) in closure::of(&self.packages, wanted).tried("find the libraries of the tools")? {
            let executable =
                image.tools.contains(&path.as_str()) || path.contains("/ld-linux") || path.contains("/ld64");
            self.file(&path, &source, if executable { 0o755 } else { 0o644 })?;
            self.taken.insert(source);
        }
        for (link, target) in LINKS {
            if self.to.join(target).is_dir() {
                symlink(target, self.to.join(link)).tried(format_args!("link {link}"))?;
            }
        }
        Ok(())
    }

    /// The files of packages that were taken, as paths below the packages' root.
    pub fn taken(&self) -> Outcome<Vec<String>> {
        let below = |path: &PathBuf| {
            let outside = || Fail::new(format!("{} is not below {}", path.display(), self.packages.display()));
            closure::below(&self.packages, path).ok_or_else(outside)
        };
        self.taken.iter().map(below).collect()
    }

    /// Puts a text in.
    pub fn text(&self, path: &str, text: &str) -> Outcome<()> {
        let to = self.place(path)?;
        std::fs::write(&to, text).tried(format_args!("write {}", to.display()))?;
        self.mode(&to, 0o644)
    }

    /// All authorities in one file, as Debian's own installation makes it: in the order of their names.
    fn authorities(&mut self) -> Outcome<()> {
        let (folder, file) = AUTHORITIES;
        let mut paths = closure::in_folder(&self.packages, folder).tried(format_args!("read {folder}"))?;
        paths.sort();
        let mut all = String::new();
        for path in paths {
            let source = self.packages.join(&path);
            let one = std::fs::read_to_string(&source).tried(format_args!("read {}", source.display()))?;
            all.push_str(one.trim_end());
            all.push('\n');
            self.taken.insert(source);
        }
        self.text(file, &all)
    }

    fn file(&self, path: &str, source: &Path, mode: u32) -> Outcome<()> {
        let to = self.place(path)?;
        std::fs::copy(source, &to).tried(format_args!("copy {} to {}", source.display(), to.display()))?;
        self.mode(&to, mode)
    }

    fn place(&self, path: &str) -> Outcome<PathBuf> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(self.to.join(path))
    }

    fn folder(&self, path: &str) -> Outcome<()> {
        let mut folder = self.to.clone();
        for step in path.split('/') {
            folder.push(step);
            if !folder.is_dir() {
                std::fs::create_dir(&folder).tried(format_args!("create {}", folder.display()))?;
                self.mode(&folder, 0o755)?;
            }
        }
        Ok(())
    }

    fn mode(&self, path: &Path, mode: u32) -> Outcome<()> {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).tried(format_args!("set the mode of {}", path.display()))
    }
}

/// Bytes of all files in a folder.
pub fn size(folder: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).tried(format_args!("read {}", folder.display()))? {
        let entry = entry.tried(format_args!("read {}", folder.display()))?;
        let facts = entry.metadata().tried(format_args!("look at {}", entry.path().display()))?;
        bytes += if facts.is_dir() { size(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}
