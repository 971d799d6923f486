//! Recorded files of the archive, fetched by apt's own means and unpacked.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::lock::Package;
use crate::packages::mirror;
use crate::shell::{output, pipe, said, tool};

/// apt's downloader: the transports and proxies of this machine's apt, digests checked, many files in one call.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// What nothing here ever reads. Of the documentation that is all but `copyright`.
const UNREAD: [&str; 7] = ["doc/*/[!c]*", "doc/*/c[!o]*", "doc/*/co[!p]*", "info/*", "lintian/*", "locale/*", "man/*"];

/// What came of fetching.
pub enum Fetched {
    /// Every file is there and is the recorded one.
    All,
    /// The mirror no longer has these packages.
    Gone(Vec<String>),
}

/// Fetches the packages' files into a folder. A file that is not the recorded one is an error, whoever is to blame for it.
pub fn fetch(packages: &[Package], into: &Path) -> Outcome<Fetched> {
    let archive = mirror::main_archive()?;
    std::fs::create_dir_all(into).tried(format_args!("create {}", into.display()))?;
    if !Path::new(HELPER).exists() {
        return Err(Fail::usage(format!("packages are fetched by {HELPER} (package apt), which is not there")));
    }
    let mut helper = tool(HELPER);
    helper.args(["-o", "APT::Sandbox::User=root", "download-file"]);
    for package in packages {
        helper.arg(format!("{}/{}", archive.trim_end_matches('/'), package.path));
        helper.arg(into.join(package.file())).arg(format!("SHA256:{}", package.sha256));
    }
    let outcome = output(&mut helper)?;
    let there = |package: &&Package| into.join(package.file()).exists();
    let missing: Vec<&Package> = packages.iter().filter(|package| !there(package)).collect();
    if outcome.status.success() && missing.is_empty() {
        return Ok(Fetched::All);
    }
    let text = said(&outcome);
    let failures = failures(&text);
    match failures.iter().find(|failure| !is_gone(failure)) {
        Some(failure) => Err(Fail::new(format!("could not fetch what xtask/debian.lock records: {failure}"))),
        None if failures.is_empty() => {
            Err(Fail::new(format!("{HELPER} failed ({}) and did not say why: {}", outcome.status, text.trim())))
        }
        None => {
            Ok(Fetched::Gone(missing.iter().map(|package| format!("{} {}", package.name, package.version)).collect()))
        }
    }
}

/// The lines in which apt says what it could not fetch, and why.
fn failures(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_once("Failed to fetch ").map(|(_, failure)| failure)).collect()
}

/// Not there, and not there for good: anything else (a digest, a connection) is no reason to take other packages.
fn is_gone(failure: &str) -> bool {
    ["  404  ", "  410  "].iter().any(|code| failure.contains(code))
}

/// Unpacks the fetched files into a new root and removes them. Which package has brought which files is noted in a folder beside it.
pub fn unpack(packages: &[Package], from: &Path, root: &Path) -> Outcome<()> {
    let lists = lists(root);
    std::fs::create_dir_all(&lists).tried(format_args!("create {}", lists.display()))?;
    // Since Debian 12 these are links everywhere; packages that still use the old names must not make folders of them.
    for link in ["bin", "lib", "lib64", "sbin"] {
        let target = format!("usr/{link}");
        std::fs::create_dir_all(root.join(&target)).tried(format_args!("create {target} in {}", root.display()))?;
        std::os::unix::fs::symlink(&target, root.join(link))
            .tried(format_args!("link {link} in {}", root.display()))?;
    }
    for package in packages {
        let mut deb = tool("dpkg-deb");
        deb.arg("--fsys-tarfile").arg(from.join(package.file()));
        let mut tar = tool("tar");
        tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner"]).stdout(Stdio::null());
        tar.args(UNREAD.map(|pattern| format!("--exclude=./usr/share/{pattern}")));
        tar.arg("--verbose").arg(format!("--index-file={}", lists.join(&package.name).display()));
        pipe(&mut deb, tar.arg("--directory").arg(root))?;
    }
    std::fs::remove_dir_all(from).tried(format_args!("remove {}", from.display()))
}

/// The folder with a file for each package: the paths it has brought.
pub fn lists(root: &Path) -> PathBuf {
    root.with_file_name("lists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_gone() {
        let said = "Err:2 http://a.example/debian/pool/b.deb\n  404  Not Found [IP: 203.0.113.80 80]\n\
            E: Failed to fetch http://a.example/debian/pool/b.deb  404  Not Found [IP: 203.0.113.80 80]\n\
            E: Failed to fetch http://a.example/debian/pool/c.deb  Hash Sum mismatch\n   Hashes of expected file:\n\
            E: Failed to fetch http://a.example/debian/pool/d.deb  Could not connect to 127.0.0.1:9\n\
            E: Download Failed\n";
        let gone: Vec<bool> = failures(said).into_iter().map(is_gone).collect();
        assert_eq!(gone, [true, false, false]);
    }
}
