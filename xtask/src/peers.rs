//! The programs that ours is compared with: installed where possible, and where not, the reason is handed on, so that the
//! report names each one that is missing.
//!
//! What Debian has comes from Debian. The others are built once, in the versions pinned here, and kept in the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::cache;
use crate::fail::{Outcome, Tried};
use crate::interrupt::interrupted;
use crate::prerequisites::{Package, attempt};
use crate::shell::{cargo, find, line, run, search_path, status, tool};

/// A peer from crates.io.
struct Crate {
    name: &'static str,
    version: &'static str,
    /// bita: its TLS is left out, for the comparison runs over HTTP and TLS would need OpenSSL's headers.
    options: &'static [&'static str],
}

const CRATES: [Crate; 2] = [
    Crate { name: "bita", version: "0.15.0", options: &["--no-default-features", "--features", "zstd-compression"] },
    Crate { name: "coreos-installer", version: "0.27.0", options: &[] },
];

const PACKAGES: [Package; 7] = [
    ("qemu-utils", &["qemu-img"]),
    ("nbdkit", &["nbdkit"]),
    ("libnbd-bin", &["nbdcopy"]),
    ("bmap-tools", &["bmaptool"]),
    ("casync", &["casync"]),
    // coreos-installer waits for udev, and refuses to work where there is none.
    ("udev", &["udevadm"]),
    ("pkg-config", &["pkg-config"]),
];

/// What coreos-installer is built with: packages, and the names by which pkg-config knows them.
const LIBRARIES: [Package; 2] = [("libzstd-dev", &["libzstd"]), ("libssl-dev", &["openssl"])];

/// What is there, and what is not.
pub struct Peers {
    /// `PATH` with the peers' folders.
    pub path: OsString,
    /// A line for each program that could not be installed: its name, a tab, the reason.
    pub missing: String,
}

/// Installs what is missing, as far as that works.
pub fn install() -> Outcome<Peers> {
    let mut missing = attempt(&PACKAGES, |command| find(command).is_some())?;
    let libraries = attempt(&LIBRARIES, known_to_pkg_config)?;
    let mut folders = Vec::new();
    for peer in &CRATES {
        match build(peer) {
            Ok(folder) => folders.push(folder.join("bin")),
            Err(fail) if interrupted() => return Err(fail),
            Err(fail) => {
                eprintln!("xtask: {} could not be installed: {}", peer.name, fail.message);
                let lacking = libraries.iter().map(|(_, reason)| format!("; {reason}")).collect::<String>();
                missing.push((peer.name, format!("{}{lacking}", fail.message)));
            }
        }
    }
    let mut path = join(&folders);
    path.push(search_path());
    Ok(Peers { path, missing: told(&missing) })
}

fn known_to_pkg_config(module: &str) -> bool {
    let mut ask = tool("pkg-config");
    ask.args(["--exists", module]).stdin(Stdio::null()).stderr(Stdio::null());
    status(&mut ask).is_ok_and(|status| status.success())
}

/// The folder with the peer's program, in `bin`.
fn build(peer: &Crate) -> Outcome<PathBuf> {
    let recipe = format!("{} {} {}\n", peer.name, peer.version, peer.options.join(" "));
    cache::entry(&format!("peer-{}", peer.name), recipe.trim_start(), false, |folder| {
        eprintln!("building {} {} (once; cached; takes minutes)", peer.name, peer.version);
        let objects = folder.join("objects");
        let mut install = cargo();
        install.args(["install", "--locked", "--quiet", peer.name, "--version", peer.version]).args(peer.options);
        install.arg("--root").arg(folder).arg("--target-dir").arg(&objects);
        eprintln!("$ {}", line(&install));
        run(&mut install)?;
        remove(&objects)
    })
}

fn remove(objects: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(objects).tried(format_args!("remove {}", objects.display()))
}

fn join(folders: &[PathBuf]) -> OsString {
    let mut path = OsString::new();
    for folder in folders {
        path.push(folder);
        path.push(":");
    }
    path
}

fn told(missing: &[(&str, String)]) -> String {
    missing.iter().map(|(program, reason)| format!("{program}\t{}\n", reason.replace(['\n', '\t'], " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stay_on_their_lines() {
        let missing = [("a", "no\nnetwork".to_string()), ("b", "x".into())];
        assert_eq!(told(&missing), "a\tno network\nb\tx\n");
    }

    #[test]
    fn the_peers_come_before_what_else_is_in_the_path() {
        assert_eq!(join(&["/x/bin".into(), "/y/bin".into()]), "/x/bin:/y/bin:");
    }
}
