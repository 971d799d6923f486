//! What is on the medium, for who must know: packages with their versions and licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use iso::Made;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::{self, MEDIUM};

/// One line for each package of which something is on the medium.
pub fn of(root: &Path, made: &Made) -> Outcome<String> {
    let mut text = format!(
        "# What is on this boot medium besides z-provisioner {} (Apache-2.0): Debian packages, of which only some files are taken.\n\
         # NAME VERSION ARCHITECTURE FILES LICENCES. The licences' texts: https://sources.debian.org/src/NAME/VERSION/debian/copyright\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut left: BTreeSet<&str> = made.taken.iter().map(String::as_str).collect();
    for package in packages::recorded(&MEDIUM)? {
        let list = packages::lists(root).join(&package.name);
        let brought = std::fs::read_to_string(&list).tried(format_args!("read {}", list.display()))?;
        let paths: BTreeSet<String> = brought.lines().map(merged).collect();
        let taken: Vec<&str> = left.iter().copied().filter(|path| paths.contains(*path)).collect();
        for path in &taken {
            left.remove(path);
        }
        if !taken.is_empty() {
            let licences = licences(root, &package.name)?;
            let (name, version, architecture, files) =
                (&package.name, &package.version, &package.architecture, taken.len());
            text += &format!("{name} {version} {architecture} {files} {licences}\n");
        }
    }
    if left.is_empty() {
        return Ok(text);
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
