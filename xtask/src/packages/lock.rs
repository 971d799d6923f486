//! The lock file: per root its suite, what is wanted, and every package of the closure. Plain lines, so that a change is read
//! as a change of versions.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::Root;

const HEADING: &str = "# Debian packages, as unpacked into the cache. Written by `cargo xtask lock`.\n\
    # NAME VERSION ARCHITECTURE SHA-256 PATH, the path below whatever mirror a machine uses.\n";

/// All of it.
#[derive(Default)]
pub struct Lock {
    /// One per root.
    pub sections: Vec<Section>,
}

/// What one root is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The root's name.
    pub name: String,
    /// Its suite, its architectures, what it wants: one line each, as in the file.
    pub wishes: [String; 3],
    /// The wanted packages and all they depend on, sorted.
    pub packages: Vec<Package>,
}

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Where the file is, below the archive's root.
    pub path: String,
}

impl Lock {
    /// Reads the file.
    pub fn read(file: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(file).tried(format_args!("read {}", file.display()))?;
        Self::parse(&text).map_err(|line| {
            Fail::usage(format!("{} has a line that makes no sense: {line:?}; take it from git again", file.display()))
        })
    }

    /// Writes the file.
    pub fn write(&self, file: &Path) -> Outcome<()> {
        let sections: Vec<String> = self.sections.iter().map(Section::to_string).collect();
        std::fs::write(file, format!("{HEADING}\n{}", sections.join("\n")))
            .tried(format_args!("write {}", file.display()))
    }

    /// What a root is made of.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The error is the line that is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.push(Section { name: name.into(), wishes: <[String; 3]>::default(), packages: Vec::new() });
                continue;
            }
            let section = sections.last_mut().ok_or(line)?;
            match section.wishes.iter_mut().find(|wish| wish.is_empty()) {
                Some(wish) => *wish = line.into(),
                None => section.packages.push(Package::parse(line).ok_or(line)?),
            }
        }
        Ok(Self { sections })
    }
}

impl Section {
    /// Nothing but the wishes of a root.
    pub fn of(root: &Root, mut packages: Vec<Package>) -> Self {
        packages.sort();
        let wishes = [("suite", root.suite), ("architectures", root.architectures), ("wanted", root.wanted)];
        Self { name: root.name.into(), wishes: wishes.map(|(what, value)| format!("{what} {value}")), packages }
    }

    /// Whether this is what the root asks for.
    pub fn is_for(&self, root: &Root) -> bool {
        self.wishes == Self::of(root, Vec::new()).wishes
    }

    /// How this differs from what was before, one package a line.
    pub fn differences(&self, before: Option<&Self>) -> String {
        let versions = |section: &Self| -> BTreeMap<String, String> {
            let named = |p: &Package| (format!("{}:{}", p.name, p.architecture), p.version.clone());
            section.packages.iter().map(named).collect()
        };
        let old = before.map(versions).unwrap_or_default();
        let new = versions(self);
        let mut lines = Vec::new();
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) if old == new => {}
                (Some(old), Some(new)) => lines.push(format!("  {name} {new} instead of {old}")),
                (Some(old), None) => lines.push(format!("  {name} {old} no longer")),
                (None, new) => lines.push(format!("  {name} {} is new", new.map_or("", String::as_str))),
            }
        }
        let all = self.packages.len();
        match lines.len() {
            0 => format!("{}: all {all} packages as recorded", self.name),
            some => format!("{}: {some} of {all} packages differ from those recorded\n{}", self.name, lines.join("\n")),
        }
    }
}

impl Display for Section {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f, "[{}]\n{}", self.name, self.wishes.join("\n"))?;
        self.packages.iter().try_for_each(|package| writeln!(f, "{package}"))
    }
}

impl Package {
    /// Reads a line of the file.
    pub fn parse(line: &str) -> Option<Self> {
        let [name, version, architecture, sha256, path] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let relative = path.starts_with("pool/") && path.ends_with(".deb") && !path.contains("..");
        (digest && relative).then(|| Self {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
            sha256: sha256.into(),
            path: path.into(),
        })
    }

    /// The name its file is given here.
    pub fn file(&self) -> String {
        let ending = if self.architecture == "source" { "tar" } else { "deb" };
        format!("{}_{}.{ending}", self.name, self.architecture)
    }
}

impl Display for Package {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self { name, architecture, version, sha256, path } = self;
        write!(f, "{name} {version} {architecture} {sha256} {path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::{GUEST, QEMU};

    fn package(name: &str, version: &str) -> Package {
        let path = format!("pool/main/{name}.deb");
        Package {
            name: name.into(),
            version: version.into(),
            architecture: "all".into(),
            sha256: "0a".repeat(32),
            path,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let guest = Section::of(&GUEST, vec![package("b", "2:1.0+x~1"), package("a", "1")]);
        let qemu = Section::of(&QEMU, Vec::new());
        let text = format!("{HEADING}\n{guest}\n{qemu}");
        let lock = Lock::parse(&text).unwrap();
        assert_eq!(lock.sections, [guest, qemu]);
        assert_eq!(lock.section("guest").unwrap().packages[0].name, "a", "sorted");
        assert!(lock.section("guest").unwrap().is_for(&GUEST));
        assert!(!lock.section("guest").unwrap().is_for(&QEMU));
    }

    #[test]
    fn a_digest_that_is_none_or_a_path_that_leaves_the_pool_is_refused() {
        let digest = "0a".repeat(32);
        assert!(Package::parse(&format!("a 1 all {digest} pool/a.deb")).is_some());
        for line in [
            format!("a 1 all {digest} pool/../a.deb"),
            format!("a 1 all {digest} /pool/a.deb"),
            format!("a 1 all {} pool/a.deb", &digest[1..]),
            format!("a 1 all {}x pool/a.deb", &digest[1..]),
            "a 1 all".into(),
        ] {
            assert!(Package::parse(&line).is_none(), "{line}");
        }
    }

    #[test]
    fn differences_name_what_changed() {
        let old = Section::of(&QEMU, vec![package("a", "1"), package("b", "1"), package("c", "1")]);
        let new = Section::of(&QEMU, vec![package("a", "1"), package("b", "2"), package("d", "1")]);
        let said = "qemu: 3 of 3 packages differ from those recorded\n  \
            b:all 2 instead of 1\n  c:all 1 no longer\n  d:all 1 is new";
        assert_eq!(new.differences(Some(&old)), said);
        assert_eq!(old.differences(Some(&old)), "qemu: all 3 packages as recorded");
    }
}
