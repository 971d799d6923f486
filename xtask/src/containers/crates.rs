//! The Rust crates that a program is made of: what cargo says of its normal dependencies, with the digests of `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};

use crate::containers::Arch;
use crate::fail::{Fail, Outcome, Tried};
use crate::shell::{capture, cargo, workspace};

/// One of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression, if it says one.
    pub licence: Option<String>,
    /// SHA-256 of its file, in hexadecimal digits; none for those of the workspace.
    pub sha256: Option<String>,
}

/// All crates whose code is in the program of a package, its own and the workspace's included. Macros and build scripts are not: they
/// have run elsewhere.
pub fn of(package: &str, arch: Arch) -> Outcome<Vec<Crate>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", package, "--target", arch.target(), "--edges", "normal,no-proc-macro"]);
    tree.args(["--prefix", "none", "--format", "{p}\t{l}"]);
    let said = capture(&mut tree)?;
    let lock = workspace().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).tried(format_args!("read {}", lock.display()))?;
    let sums = checksums(&lock);
    let crates: Option<BTreeSet<Crate>> = said.lines().map(|line| parse(line, &sums)).collect();
    let crates = crates.ok_or_else(|| Fail::new(format!("`cargo tree` of {package} says what is not understood")))?;
    Ok(crates.into_iter().collect())
}

/// `NAME vVERSION (WHERE)<tab>LICENCE`; `(*)` at the end of one that was named before.
fn parse(line: &str, sums: &BTreeMap<(String, String), String>) -> Option<Crate> {
    let (package, licence) = line.split_once('\t')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
    let licence = licence.trim_end_matches("(*)").trim().replace('/', " OR ");
    let sha256 = sums.get(&(name.clone(), version.clone())).cloned();
    Some(Crate { name, version, licence: Some(licence).filter(|text| !text.is_empty()), sha256 })
}

/// The digests in `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |entry: &str, key: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let entry = |entry: &str| Some(((value(entry, "name")?, value(entry, "version")?), value(entry, "checksum")?));
    lock.split("[[package]]").filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_words_are_understood() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"0a\"\n\n[[package]]\nname = \"w\"\nversion = \"0.1.0\"\n";
        let sums = checksums(lock);
        let a = parse("a v1.0.0\tMIT/Apache-2.0 (*)", &sums).unwrap();
        assert_eq!((a.name.as_str(), a.version.as_str(), a.sha256.as_deref()), ("a", "1.0.0", Some("0a")));
        assert_eq!(a.licence.as_deref(), Some("MIT OR Apache-2.0"));
        let w = parse("w v0.1.0 (/src/w)\t", &sums).unwrap();
        assert_eq!((w.licence, w.sha256), (None, None));
        assert!(parse("what", &sums).is_none());
    }
}
