//! The root's packages: unpacked and configured by mmdebstrap, without what a machine on Z never reads.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::fail::{Fail, Outcome, Tried};
use crate::image::disk::EPOCH;
use crate::packages::mirror;
use crate::shell::{line, run, tool};

/// The release.
pub const SUITE: &str = "trixie";

/// Where the package with zipl lies afterwards, beside the root.
pub const ZIPL: &str = "zipl.deb";

const PACKAGES: &str =
    "linux-image-s390x,systemd-sysv,udev,initramfs-tools,cryptsetup-initramfs,e2fsprogs,login,passwd,kmod,zstd";

/// Documents, and data of hardware and of alphabets that this machine does not meet.
const UNREAD: [&str; 9] = [
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
    "/usr/lib/udev/hwdb.d/*",
    "/usr/lib/s390x-linux-gnu/gconv/*.so",
];

/// Kernel modules for what cannot be plugged into a mainframe, or would not be mounted on one. The cards that can be
/// (RoCE Express) are Mellanox's.
const NO_MODULES: &str = "sound drivers/accessibility drivers/ata drivers/firewire drivers/gpu drivers/hid \
    drivers/infiniband drivers/leds drivers/media drivers/mtd drivers/nfc drivers/ufs drivers/usb drivers/w1 \
    drivers/net/can drivers/net/ethernet drivers/net/ieee802154 drivers/net/usb drivers/net/wwan \
    fs/afs fs/bcachefs fs/ceph fs/f2fs fs/gfs2 fs/jffs2 fs/jfs fs/nilfs2 fs/ntfs3 fs/ocfs2 fs/reiserfs fs/ubifs \
    net/ceph net/sctp net/tipc";
const YET_MODULES: &str = "drivers/net/ethernet/mellanox";

/// What the root depends on.
pub fn recipe() -> String {
    format!("{SUITE} {PACKAGES}\nwithout {UNREAD:?} {NO_MODULES}, but {YET_MODULES}\n")
}

/// Fills a new `root`.
pub fn unpack(root: &Path, suite: &str) -> Outcome<()> {
    if root.exists() {
        std::fs::remove_dir_all(root).tried("remove what the first attempt left")?;
    }
    let mut mmdebstrap = mmdebstrap(root, suite, &format!("deb {} {suite} main", mirror::main_archive()?));
    eprintln!("$ {}", line(&mmdebstrap));
    run(&mut mmdebstrap)?;
    let release = std::fs::read_to_string(root.join("etc/os-release")).tried("read the image's /etc/os-release")?;
    // An alias is given to the next suite one day.
    if release.lines().any(|line| line == format!("VERSION_CODENAME={SUITE}")) {
        return Ok(());
    }
    Err(Fail::new(format!("{suite} is not {SUITE} any more")))
}

fn mmdebstrap(root: &Path, suite: &str, source: &str) -> Command {
    let mut command = tool("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", EPOCH).stdin(Stdio::null());
    // An initramfs takes longest of all under emulation. It is made once, when all is configured, instead of for each
    // package that would like a say in it: the kernel's package heeds this.
    command.env("INITRD", "No");
    command.args(["--variant=essential", "--mode=root", "--architectures=s390x", "--format=directory"]);
    // Signatures are still checked; only a clock that is ahead of the mirror is forgiven.
    command.arg(r#"--aptopt=Acquire::Check-Valid-Until "false""#);
    command.arg(r#"--aptopt=APT::Install-Recommends "false""#);
    // Nobody needs half a root after a power cut.
    command.arg("--dpkgopt=force-unsafe-io");
    for unread in UNREAD {
        command.arg(format!("--dpkgopt=path-exclude={unread}"));
    }
    for folder in NO_MODULES.split_whitespace() {
        command.arg(format!("--dpkgopt=path-exclude=/usr/lib/modules/*/kernel/{folder}/*"));
    }
    command.arg(format!("--dpkgopt=path-include=/usr/lib/modules/*/kernel/{YET_MODULES}/*"));
    let zipl = format!(
        r#"--customize-hook=cd "$1/.." && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -o APT::Sandbox::User=root download s390-tools && mv s390-tools_*.deb {ZIPL}"#
    );
    command.arg(zipl);
    command.arg(format!("--include={PACKAGES}")).arg(suite).arg(root).arg(source);
    command
}
