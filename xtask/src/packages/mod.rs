//! Debian packages that are unpacked into the cache and never installed: the s390x compiler, QEMU, what a guest is made of,
//! a Kubernetes control plane.
//!
//! Which ones is recorded in `xtask/debian.lock`, with versions and digests, so that every machine has the same and a mirror
//! cannot slip in others. Their files are fetched by their recorded names, without any index of the archive, from the
//! mirror this machine's apt already uses. Nothing here needs root.

mod fetch;
mod lock;
pub mod mirror;
pub mod owner;
mod resolve;

use std::path::{Path, PathBuf};

use crate::cache;
use crate::fail::{Fail, Outcome, Tried};
use crate::scratch::Scratch;
use crate::shell::workspace;
use fetch::Fetched;
use fetch::lists;
pub use lock::Package;
use lock::{Lock, Section};

/// A root folder to be filled with packages.
pub struct Root {
    /// Its name in the lock file and in the cache.
    pub name: &'static str,
    /// The suite it is resolved from.
    pub suite: &'static str,
    /// Its architectures, the native one first.
    architectures: &'static str,
    /// The packages that are wanted; what they depend on follows from that.
    wanted: &'static str,
}

/// A compiler for s390x with the libraries of both architectures, and an emulator of one process. The compiler of Debian 13 is
/// older than the workspace's minimum; Debian 12's qemu-user tells programs that no file takes O_DIRECT.
pub const TOOLCHAIN: Root = Root {
    name: "toolchain",
    suite: "sid",
    architectures: "amd64 s390x",
    wanted: "rustc libstd-rust-dev libstd-rust-dev:s390x qemu-user",
};

/// The emulator of a whole machine. Debian 12's computes IP checksums wrong with newer kernels.
pub const QEMU: Root =
    Root { name: "qemu", suite: "trixie", architectures: "amd64", wanted: "qemu-system-s390x qemu-system-data" };

/// The kernel a guest boots, and the programs it is given.
pub const GUEST: Root = Root {
    name: "guest",
    suite: "trixie",
    architectures: "s390x",
    wanted: "linux-image-s390x dash busybox-static kmod udev multipath-tools kpartx dmsetup cryptsetup-bin open-iscsi sg3-utils \
        s390-tools util-linux fdisk mount e2fsprogs xfsprogs iproute2 openssl charon-systemd strongswan-swanctl \
        libstrongswan-standard-plugins libstrongswan-extra-plugins libcharon-extra-plugins nginx",
};

/// What the boot medium is made of.
pub const MEDIUM: Root = Root {
    name: "medium",
    suite: "trixie",
    architectures: "s390x",
    wanted: "linux-image-s390x busybox-static kmod udev multipath-tools dmsetup cryptsetup-bin util-linux iproute2 \
        charon-systemd libstrongswan-standard-plugins libstrongswan-extra-plugins libcharon-extra-plugins",
};

/// What of a Kubernetes control plane there is in binary.
pub const CLUSTER: Root =
    Root { name: "cluster-tools", suite: "trixie", architectures: "amd64", wanted: "etcd-server kubectl" };

/// What the rest of it is built with: the newest compiler that Debian's Kubernetes, which is older, can be built with, and the package
/// that it lacks for that.
pub const GO: Root = Root {
    name: "go",
    suite: "bookworm",
    architectures: "amd64",
    wanted: "golang-1.19-go golang-github-modern-go-reflect2-dev",
};

/// What the images of containers are made of, for amd64.
pub const CONTAINER_AMD64: Root =
    Root { name: "container-amd64", suite: "trixie", architectures: "amd64", wanted: CONTAINER };

/// The same for s390x.
pub const CONTAINER_S390X: Root =
    Root { name: "container-s390x", suite: "trixie", architectures: "s390x", wanted: CONTAINER };

/// The tools that the agent drives without a machine of its own, and whom to trust in TLS.
const CONTAINER: &str = "multipath-tools dmsetup cryptsetup-bin util-linux ca-certificates";

const ROOTS: [&Root; 8] = [&TOOLCHAIN, &QEMU, &GUEST, &MEDIUM, &CLUSTER, &GO, &CONTAINER_AMD64, &CONTAINER_S390X];

/// Change this whenever the steps below change what a root holds.
const STEPS: u32 = 1;

/// The list of what was unpacked, beside a root whose recorded packages could not be had.
const DIFFERS: &str = "unlike-the-lock";

/// Beside such a root: the packages that were unpacked instead, as lines of the lock.
const INSTEAD: &str = "packages";

/// The command line of `cargo xtask lock`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these: toolchain, qemu, guest, medium, cluster-tools, go, container-amd64, container-s390x
    #[arg(value_name = "ROOT")]
    roots: Vec<String>,
}

/// Records what the suites have today.
pub fn record(options: &Options) -> Outcome<()> {
    if let Some(unknown) = options.roots.iter().find(|name| ROOTS.iter().all(|root| root.name != **name)) {
        let names = ROOTS.map(|root| root.name).join(", ");
        return Err(Fail::usage(format!("there is no root {unknown:?}: choose from {names}")));
    }
    let file = lock_file();
    let old = if file.exists() { Lock::read(&file)? } else { Lock::default() };
    let mut new = Lock::default();
    for root in ROOTS {
        let before = old.section(root.name);
        let asked = options.roots.is_empty() || options.roots.iter().any(|name| name == root.name);
        let section = match before {
            Some(before) if !asked => before.clone(),
            _ => resolve::newest(root, &Scratch::new("z-provisioner-debs", false)?.path("debs"))?,
        };
        println!("{}", section.differences(before));
        new.sections.push(section);
    }
    new.write(&file)
}

/// The folder in whose `root` the recorded packages lie: from the cache, or fetched now. `finish` adds what belongs beside them.
pub fn ensure(root: &Root, finish: impl FnOnce(&Path) -> Outcome<()>) -> Outcome<PathBuf> {
    let section = section(root)?;
    let recipe = format!("{section}steps {STEPS}\n");
    let folder = cache::entry(root.name, &recipe, false, |half| {
        eprintln!("fetching and unpacking {} packages for the {} (once)", section.packages.len(), root.name);
        fill(half, root, &section)?;
        finish(half)
    })?;
    let list = folder.join(DIFFERS);
    if let Some(summary) = std::fs::read_to_string(&list).unwrap_or_default().lines().next() {
        eprintln!("xtask: {summary} ({}); `cargo xtask lock {}` records today's", list.display(), root.name);
    }
    Ok(folder)
}

/// Fetches the recorded packages into a folder that is not kept; what comes back is the root that they make.
pub fn unpack(root: &Root, folder: &Path) -> Outcome<PathBuf> {
    fill(folder, root, &section(root)?)?;
    Ok(folder.join("root"))
}

/// What a root is made of, as it is recorded.
pub fn section(root: &Root) -> Outcome<Section> {
    let lock = Lock::read(&lock_file())?;
    let section = lock.section(root.name).filter(|section| section.is_for(root)).cloned();
    section.ok_or_else(|| {
        let name = root.name;
        Fail::usage(format!(
            "xtask/debian.lock records no packages for what {name} wants: run `cargo xtask lock {name}`"
        ))
    })
}

fn fill(half: &Path, root: &Root, section: &Section) -> Outcome<()> {
    let debs = half.join("debs");
    let target = half.join("root");
    if let Fetched::Gone(names) = fetch::fetch(&section.packages, &debs)? {
        eprintln!("xtask: the mirror no longer has {}; taking the newest of {}", names.join(", "), root.suite);
        let newest = resolve::newest(root, &debs)?;
        let differences = newest.differences(Some(section));
        eprintln!("xtask: {differences}");
        std::fs::write(half.join(DIFFERS), &differences).tried("note what differs from the lock")?;
        let lines: String = newest.packages.iter().map(|package| format!("{package}\n")).collect();
        std::fs::write(half.join(INSTEAD), lines).tried("note what was unpacked instead")?;
        return fetch::unpack(&newest.packages, &debs, &target);
    }
    fetch::unpack(&section.packages, &debs, &target)
}

/// Fetches one file of the archive, such as a package's source, into a folder: the path below the archive's root, and the digest it must have.
pub fn source(name: &str, path: &str, sha256: &str, into: &Path) -> Outcome<PathBuf> {
    let [name, architecture, version] = [name, "source", ""].map(String::from);
    let package = Package { name, architecture, version, sha256: sha256.into(), path: path.into() };
    match fetch::fetch(std::slice::from_ref(&package), into)? {
        Fetched::All => Ok(into.join(package.file())),
        Fetched::Gone(_) => Err(Fail::new(format!(
            "the mirror no longer has {path}: record the path and digest that its newest index has for that package's source"
        ))),
    }
}

/// The packages in a root's folder: those that are recorded, or those that had to be taken instead.
pub fn unpacked(root: &Root, folder: &Path) -> Outcome<Vec<Package>> {
    match std::fs::read_to_string(folder.join(INSTEAD)) {
        Ok(lines) => Ok(lines.lines().filter_map(Package::parse).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => recorded(root),
        Err(error) => Err(error).tried(format_args!("read which packages are in {}", folder.display())),
    }
}

/// The packages a root is recorded to be made of, with their names and versions.
fn recorded(root: &Root) -> Outcome<Vec<Package>> {
    let lock = Lock::read(&lock_file())?;
    Ok(lock.section(root.name).map(|section| section.packages.clone()).unwrap_or_default())
}

fn lock_file() -> PathBuf {
    workspace().join("xtask/debian.lock")
}
