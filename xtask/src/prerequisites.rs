//! The Debian packages a lane needs. Missing ones are installed when we may; otherwise we say exactly what to
//! install and stop. Nothing is skipped because a tool is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::interrupted;
use crate::shell::{find, run, tool};

/// A package, and the commands that show it is there (any one of them: names changed between releases).
pub type Package = (&'static str, &'static [&'static str]);

const DISK: [Package; 4] =
    [("fdisk", &["sfdisk"]), ("e2fsprogs", &["mke2fs"]), ("mount", &["losetup"]), ("diffutils", &["cmp"])];

const DEBIAN: [Package; 5] = [
    ("mmdebstrap", &["mmdebstrap"]),
    ("arch-test", &["arch-test"]),
    ("qemu-user-static", &["qemu-s390x-static"]),
    ("openssl", &["openssl"]),
    NAMESPACES,
];

const LUKS: Package = ("cryptsetup-bin", &["cryptsetup"]);

const NAMESPACES: Package = ("util-linux", &["unshare"]);

const SERVERS: [Package; 4] = [
    ("nginx-light", &["nginx"]),
    ("docker-registry", &["docker-registry"]),
    ("skopeo", &["skopeo"]),
    ("openssl", &["openssl"]),
];

/// What an encrypted region may hold besides ext4.
const FILE_SYSTEMS: [Package; 2] = [("xfsprogs", &["mkfs.xfs"]), ("btrfs-progs", &["mkfs.btrfs"])];

/// For the service's store. Debian keeps the server out of the PATH, in a folder of its version.
const DATABASE: Package = (
    "postgresql",
    &[
        "/usr/lib/postgresql/15/bin/postgres",
        "/usr/lib/postgresql/16/bin/postgres",
        "/usr/lib/postgresql/17/bin/postgres",
        "/usr/lib/postgresql/18/bin/postgres",
    ],
);

/// For the second reader of images, which also takes openssl and zstd.
const READER: Package = ("python3", &["python3"]);

/// Makes Python environments. It has no command, and its files' names have a version in them.
const VENV: Package = (
    "python3-venv",
    &[
        "/usr/lib/python3.11/ensurepip/__init__.py",
        "/usr/lib/python3.12/ensurepip/__init__.py",
        "/usr/lib/python3.13/ensurepip/__init__.py",
        "/usr/lib/python3.14/ensurepip/__init__.py",
    ],
);

/// Scrapes the service's metrics, and judges their names.
const PROMETHEUS: Package = ("prometheus", &["prometheus"]);

/// For the pages, the benchmark's and the service's, which are looked at as their readers do.
const BROWSER: Package = ("chromium", &["chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"]);

const PEERS: [Package; 2] = [("zstd", &["zstd"]), ("curl", &["curl"])];

const MEASURES: [Package; 4] =
    [("nginx-light", &["nginx"]), ("openssl", &["openssl"]), ("fio", &["fio"]), ("coreutils", &["dd"])];

/// The second has no command of its own; an absolute path is found as well.
const CROSS: [Package; 2] = [
    ("gcc-s390x-linux-gnu", &["s390x-linux-gnu-gcc"]),
    ("libc6-dev-s390x-cross", &["/usr/s390x-linux-gnu/lib/libc.a"]),
];

/// For the initramfs of guests, and for QEMU, which must not outlive a test.
const GUESTS: [Package; 3] = [("kmod", &["depmod"]), ("xz-utils", &["xz"]), ("util-linux", &["setpriv"])];

/// For the tests of serving and of keys, wherever they run.
const COUNTERPARTS: [Package; 3] = [("curl", &["curl"]), ("openssl", &["openssl"]), ("diffutils", &["cmp"])];

/// What the agent sets a network up with; busybox is also the DHCP server of its tests.
const NETWORK: [Package; 2] = [("iproute2", &["ip"]), ("busybox", &["busybox"])];

/// Reads what the harness of guests has written.
const CPIO: Package = ("cpio", &["cpio"]);

/// Sets a program's wall clock, and no other.
const CLOCK: Package = (
    "libfaketime",
    &["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/s390x-linux-gnu/faketime/libfaketimeMT.so.1"],
);

/// Counts instructions.
const COUNTER: Package = ("valgrind", &["valgrind"]);

/// Writes ISO 9660.
const ISO: Package = ("xorriso", &["xorriso"]);

/// For the source of the control plane, and its build.
const UNPACKING: [Package; 3] = [("tar", &["tar"]), ("gzip", &["gzip"]), ("grep", &["grep"])];

/// Builds and runs images, in namespaces, and moves them; without a network of its own, so without what sets one up.
const CONTAINERS: [Package; 4] =
    [("podman", &["podman"]), ("buildah", &["buildah"]), ("runc", &["runc"]), ("skopeo", &["skopeo"])];

/// What the tests' images are made of.
const BUSYBOX: Package = ("busybox", &["busybox"]);

/// What the tests of the cluster start must not outlive them, and they look whether it did.
const LEASH: [Package; 2] = [("util-linux", &["setpriv"]), ("procps", &["ps"])];

/// Makes images of containers, from programs without their debug information.
const IMAGES: [Package; 3] = [("buildah", &["buildah"]), ("binutils", &["strip"]), ("git", &["git"])];

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The demo with the Debian image: build it as well.
    Demo,
    /// The demo with a small image, or with one that is there already.
    DemoQuick,
    /// Unit, property and end-to-end tests.
    Test,
    /// Building for s390x, and the tests that run under emulation.
    S390x,
    /// The boot medium.
    Iso,
    /// Images of containers.
    Containers,
    /// Tests in guests.
    Vm,
    /// A Kubernetes control plane.
    Cluster,
    /// Tests with a Kubernetes cluster, and of the images.
    Kubernetes,
    /// The Python environment alone.
    Python,
    /// The service's page in a browser.
    Page,
    /// Instruction counts alone.
    Counts,
    /// The benchmarks, ours beside the peers'.
    Bench,
}

impl Lane {
    fn packages(self) -> Vec<Package> {
        match self {
            Self::Demo => DISK.into_iter().chain(DEBIAN).collect(),
            Self::DemoQuick => DISK.to_vec(),
            Self::Test => {
                let more = [NAMESPACES, LUKS, READER, VENV, BROWSER, COUNTER, CPIO, DATABASE, CLOCK, PROMETHEUS];
                DISK.into_iter().chain(SERVERS).chain(PEERS).chain(FILE_SYSTEMS).chain(NETWORK).chain(more).collect()
            }
            Self::S390x => CROSS.into_iter().chain(COUNTERPARTS).collect(),
            Self::Iso => CROSS.into_iter().chain(GUESTS).chain([ISO]).collect(),
            Self::Containers => IMAGES.to_vec(),
            Self::Vm => DISK
                .into_iter()
                .chain([ISO])
                .chain(CROSS)
                .chain(GUESTS)
                .chain(COUNTERPARTS)
                .chain([SERVERS[0], FILE_SYSTEMS[0]])
                .collect(),
            Self::Cluster => UNPACKING.to_vec(),
            Self::Kubernetes => {
                CONTAINERS.into_iter().chain(UNPACKING).chain(COUNTERPARTS).chain([BUSYBOX]).chain(LEASH).collect()
            }
            Self::Python => vec![READER, VENV],
            Self::Page => vec![READER, VENV, BROWSER, SERVERS[3], NAMESPACES],
            Self::Counts => vec![COUNTER],
            Self::Bench => PEERS.into_iter().chain(MEASURES).collect(),
        }
    }
}

/// Makes sure that a lane finds its tools.
pub fn ensure(lane: Lane) -> Outcome<()> {
    let missing = missing(&lane.packages(), |command| find(command).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find("apt-get").is_none() {
        return Err(Fail::usage(format!(
            "this needs what Debian's packages {list} contain, and there is no apt-get here: install them by hand"
        )));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Fail::usage(format!(
            "packages are missing and only root can install them; run: sudo apt-get install --no-install-recommends {list}"
        )));
    }
    install(&missing)?;
    let still = self::missing(&lane.packages(), |command| find(command).is_some());
    if still.is_empty() {
        return Ok(());
    }
    Err(Fail::usage(format!("installed {list}, but the commands of {} are still not in PATH", still.join(" "))))
}

/// Installs what is missing of `packages` as far as that works, and says of each of their commands that is not there
/// afterwards why. An interruption is the only error.
pub fn attempt(packages: &[Package], there: impl Fn(&str) -> bool) -> Outcome<Vec<(&'static str, String)>> {
    let lacking = missing(packages, &there);
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let mut reason = "its package was installed, but the command is still not there".to_string();
    if find("apt-get").is_none() {
        reason = "there is no apt-get here".into();
    } else if !nix::unistd::geteuid().is_root() {
        reason = "only root can install packages".into();
    } else if install(&lacking).is_err() {
        // One that cannot be had must not keep the others away.
        for package in &lacking {
            if let Err(fail) = install(&[package]) {
                reason = fail.message;
            }
        }
    }
    if interrupted() {
        return Err(Fail::interrupted());
    }
    let still = packages.iter().filter(|(package, _)| missing(packages, &there).contains(package));
    Ok(still.flat_map(|(_, commands)| commands.iter().map(|command| (*command, reason.clone()))).collect())
}

fn missing(packages: &[Package], there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let lacking = packages.iter().filter(|(_, commands)| !commands.iter().any(|command| there(command)));
    lacking.map(|(package, _)| *package).collect()
}

fn install(packages: &[&str]) -> Outcome<()> {
    let _quiet = NoServices::new()?;
    let mut apt = apt_get();
    apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    eprintln!("$ {}", crate::shell::line(&apt));
    if crate::shell::status(&mut apt)?.success() {
        return Ok(());
    }
    eprintln!("that failed, perhaps only because the package lists are old\n$ apt-get update");
    run(apt_get().arg("update"))?;
    run(&mut apt)
}

fn apt_get() -> Command {
    let mut apt = tool("apt-get");
    apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive");
    // What is printed on our stdout is the chore's result; apt's errors still come on stderr.
    apt.stdin(Stdio::null()).stdout(Stdio::null());
    apt
}

/// While this lives, packages that bring a server do not start it: the tests start their own, on their own ports.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn new() -> Outcome<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let tried = format!("write {POLICY}");
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").tried(&tried)?;
        let guard = Self { ours: true };
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(POLICY, executable).tried(&tried)?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if let Err(error) = std::fs::remove_file(POLICY) {
            eprintln!("xtask: cleaning up: could not remove {POLICY}: {error}; please remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_asked_for() {
        let packages: [Package; 2] = [("one", &["a", "b"]), ("two", &["c"])];
        assert_eq!(missing(&packages, |command| command == "b"), ["two"]);
        assert!(missing(&packages, |_| true).is_empty());
    }
}
