//! Which packages have brought the files that are taken out of a root, and under which licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::{Package, Root, lists, unpacked};

/// A package of which something is taken.
pub struct Owner {
    /// Which one.
    pub package: Package,
    /// How many of its files.
    pub files: usize,
    /// The licences its `copyright` names.
    pub licences: String,
}

/// The packages that have brought these files, in the order of their names. `folder` is the root's in the cache, and the paths are
/// below its `root`; one that no package has brought is an error.
pub fn of(root: &Root, folder: &Path, taken: &[String]) -> Outcome<Vec<Owner>> {
    let files = folder.join("root");
    let mut left: BTreeSet<&str> = taken.iter().map(String::as_str).collect();
    let mut owners = Vec::new();
    for package in unpacked(root, folder)? {
        let list = lists(&files).join(&package.name);
        let brought = std::fs::read_to_string(&list).tried(format_args!("read {}", list.display()))?;
        let paths: BTreeSet<String> = brought.lines().map(merged).collect();
        let before = left.len();
        left.retain(|path| !paths.contains(*path));
        if left.len() < before {
            let licences = licences(&files, &package.name)?;
            owners.push(Owner { package, files: before - left.len(), licences });
        }
    }
    if left.is_empty() {
        return Ok(owners);
    }
    let left: Vec<&str> = left.into_iter().collect();
    Err(Fail::new(format!("no package is known to have brought {}", left.join(", "))))
}

/// A path as it lies in the root: packages may still use the names from before /bin, /sbin and /lib were links.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    let old = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|folder| path.starts_with(folder));
    if old { format!("usr/{path}") } else { path.to_owned() }
}

/// The licences a package's `copyright` names, where it is written for machines; the file in words otherwise.
fn licences(root: &Path, package: &str) -> Outcome<String> {
    let folder = root.join("usr/share/doc").join(package);
    let text = std::fs::read(folder.join("copyright"));
    let text = text.tried(format_args!("read the copyright file of {package}"))?;
    Ok(named(&String::from_utf8_lossy(&text)))
}

fn named(text: &str) -> String {
    if !text.starts_with("Format:") {
        return "see its copyright file".into();
    }
    let names =
        text.lines().filter_map(|line| line.strip_prefix("License:")).map(str::trim).filter(|name| !name.is_empty());
    let counted = names.fold(BTreeMap::<&str, usize>::new(), |mut counted, name| {
        *counted.entry(name).or_default() += 1;
        counted
    });
    counted.into_keys().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_named_once() {
        let text = "Format: https://www.debian.org/doc/\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: x\nLicense: MIT\n\nLicense: GPL-2+\n";
        assert_eq!(named(text), "GPL-2+, MIT");
        assert_eq!(named("This package was debianized by hand.\n"), "see its copyright file");
        assert_eq!(merged("./lib/x"), "usr/lib/x");
        assert_eq!(merged("./usr/lib/x/"), "usr/lib/x");
    }
}
