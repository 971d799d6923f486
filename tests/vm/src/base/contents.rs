//! What is in every guest. Little, since all of it is unpacked at each boot: a program, a rule or a module is added when a test
//! needs it.

use std::io;
use std::path::Path;

use initramfs::closure;

/// Programs of the packages. Busybox has the rest.
const PROGRAMS: &[&str] = &[
    "usr/bin/busybox",
    // Not busybox's shell: that one takes busybox's own mount, mke2fs, modprobe and ip for the real ones.
    "usr/bin/dash",
    // block devices and file systems
    "usr/bin/findmnt",
    "usr/bin/lsblk",
    "usr/bin/mount",
    "usr/bin/umount",
    "usr/sbin/blkdiscard",
    "usr/sbin/blkid",
    "usr/sbin/blockdev",
    "usr/sbin/e2fsck",
    "usr/sbin/losetup",
    "usr/sbin/mke2fs",
    "usr/sbin/mkfs.xfs",
    "usr/bin/partx",
    "usr/sbin/sfdisk",
    "usr/sbin/wipefs",
    "usr/sbin/xfs_repair",
    // device mapper
    "usr/sbin/cryptsetup",
    "usr/sbin/dmsetup",
    "usr/sbin/kpartx",
    "usr/sbin/mpathpersist",
    "usr/sbin/multipath",
    "usr/sbin/multipathd",
    // SCSI
    "usr/bin/sg_dd",
    "usr/bin/sg_inq",
    "usr/bin/sg_persist",
    "usr/bin/sg_readcap",
    "usr/bin/sg_reset",
    "usr/bin/sg_vpd",
    "usr/sbin/iscsiadm",
    "usr/sbin/iscsid",
    "usr/sbin/iscsistart",
    // the machine
    "usr/bin/kmod",
    "usr/bin/openssl",
    "usr/bin/udevadm",
    "usr/sbin/ip",
    "usr/sbin/lsreipl",
    // what programs open by name, while they run
    "usr/lib/s390x-linux-gnu/libkmod.so.2",
];

/// udev's rules, and the programs they call. Its database of hardware (9 MB) is left out.
const RULES: &[&str] = &[
    "40-z90crypt",
    "50-udev-default",
    "55-dm",
    "55-scsi-sg3_id",
    "56-dm-mpath",
    "56-dm-parts",
    "58-scsi-sg3_symlink",
    "60-block",
    "60-kpartx",
    "60-multipath",
    "60-persistent-storage",
    "60-persistent-storage-dm",
    "68-del-part-nodes",
    "80-drivers",
    "95-dm-notify",
    "99-z-dm-mpath-late",
];

/// Whole folders whose files are all taken.
const FOLDERS_TAKEN: &[&str] = &["usr/lib/multipath"];

const UDEV: &[&str] = &["usr/lib/udev/kpartx_id", "usr/lib/udev/scsi_id"];

/// Modules that can be loaded, with those they depend on. None is loaded before it is needed.
pub const MODULES: &[&str] = &[
    // disks
    "loop",
    "scsi_mod",
    "sd_mod",
    "sg",
    "virtio_blk",
    "virtio_scsi",
    // device mapper and its ciphers
    "aes_s390",
    "crypto_null",
    "dm-crypt",
    "algif_skcipher",
    "dm-delay",
    "dm-flakey",
    "dm-integrity",
    "dm-mod",
    "dm-multipath",
    "dm-round-robin",
    "dm-service-time",
    "dm-snapshot",
    "dm-zero",
    "essiv",
    "gcm",
    "scsi_dh_alua",
    "xts",
    // SCSI targets and initiators
    "configfs",
    "iscsi_target_mod",
    "iscsi_tcp",
    "target_core_file",
    "target_core_iblock",
    "target_core_mod",
    "tcm_loop",
    // file systems
    "ext4",
    "isofs",
    "overlay",
    "vfat",
    "xfs",
    // networks
    "8021q",
    "esp4",
    "gcm",
    "ghash-generic",
    "sch_netem",
    "seqiv",
    "veth",
    "virtio_net",
    "xfrm_user",
];

/// What the gateway of a VCN has besides: strongSwan and nginx.
pub const GATEWAY: &[&str] = &[
    "usr/sbin/charon-systemd",
    "usr/sbin/nginx",
    "usr/sbin/swanctl",
    "usr/lib/ipsec/plugins/libstrongswan-constraints.so",
    "usr/lib/ipsec/plugins/libstrongswan-kdf.so",
    "usr/lib/ipsec/plugins/libstrongswan-kernel-netlink.so",
    "usr/lib/ipsec/plugins/libstrongswan-nonce.so",
    "usr/lib/ipsec/plugins/libstrongswan-openssl.so",
    "usr/lib/ipsec/plugins/libstrongswan-pem.so",
    "usr/lib/ipsec/plugins/libstrongswan-pkcs1.so",
    "usr/lib/ipsec/plugins/libstrongswan-pkcs8.so",
    "usr/lib/ipsec/plugins/libstrongswan-pubkey.so",
    "usr/lib/ipsec/plugins/libstrongswan-random.so",
    "usr/lib/ipsec/plugins/libstrongswan-revocation.so",
    "usr/lib/ipsec/plugins/libstrongswan-socket-default.so",
    "usr/lib/ipsec/plugins/libstrongswan-vici.so",
    "usr/lib/ipsec/plugins/libstrongswan-x509.so",
];

/// Folders that those write into, or read.
pub const GATEWAY_FOLDERS: &[&str] = &[
    "etc/swanctl/conf.d",
    "etc/swanctl/private",
    "etc/swanctl/x509",
    "etc/swanctl/x509ca",
    "var/lib/nginx",
    "var/log/nginx",
];

/// Commands of busybox. None that is a program of the packages as well.
pub const APPLETS: &str = "awk base64 basename cat chmod chown cksum clear cmp cp cpio cut date dd df diff dirname dmesg du echo \
    env expr false find fold free fuser getopt grep groups gunzip gzip halt head hexdump hostname id install kill killall less \
    ln logger ls lsof md5sum mkdir mkfifo mknod mktemp more mountpoint mv nc nice nohup nproc nslookup od paste ping pgrep \
    pidof pivot_root pkill poweroff printf ps pwd readlink realpath reboot renice rev rm rmdir sed seq setsid sha256sum sha512sum \
    shred shuf sleep sort split stat strings stty sum sync sysctl tac tail tar taskset tee telnet test time timeout top touch tr \
    true truncate tty uname uniq unlink unshare unxz unzip uptime usleep vi vmstat watch wc wget which whoami xargs xxd yes zcat";

/// Links: where, and where to.
pub const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("var/run", "/run"),
    ("etc/mtab", "/proc/self/mounts"),
    ("usr/bin/sh", "dash"),
    ("usr/lib/systemd/systemd-udevd", "/usr/bin/udevadm"),
    ("usr/sbin/depmod", "/usr/bin/kmod"),
    ("usr/sbin/insmod", "/usr/bin/kmod"),
    ("usr/sbin/lsmod", "/usr/bin/kmod"),
    ("usr/sbin/mkfs.ext4", "/usr/sbin/mke2fs"),
    ("usr/sbin/modinfo", "/usr/bin/kmod"),
    ("usr/sbin/modprobe", "/usr/bin/kmod"),
    ("usr/sbin/rmmod", "/usr/bin/kmod"),
];

/// Empty folders.
pub const FOLDERS: &[&str] =
    &["dev", "etc/multipath", "etc/udev/rules.d", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp"];

/// Files that every system has and no package brings.
pub const TEXTS: &[(&str, &str)] = &[
    ("etc/group", "root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\n"),
    ("etc/hosts", "127.0.0.1 localhost guest\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
];

/// All files that are taken from the packages.
///
/// # Errors
/// When a folder cannot be read.
pub fn wanted(root: &Path) -> io::Result<Vec<String>> {
    let mut wanted: Vec<String> = PROGRAMS.iter().chain(UDEV).map(|path| (*path).to_owned()).collect();
    wanted.extend(RULES.iter().map(|rule| format!("usr/lib/udev/rules.d/{rule}.rules")));
    for folder in FOLDERS_TAKEN {
        wanted.extend(closure::in_folder(root, folder)?);
    }
    Ok(wanted)
}

/// Everything above.
pub fn recipe() -> String {
    format!(
        "{PROGRAMS:?}\n{RULES:?}\n{FOLDERS_TAKEN:?}\n{UDEV:?}\n{MODULES:?}\n{APPLETS}\n{LINKS:?}\n{FOLDERS:?}\n{TEXTS:?}\n{GATEWAY:?}\n{GATEWAY_FOLDERS:?}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_is_there_twice() {
        let real: Vec<&str> = PROGRAMS.iter().copied().chain(LINKS.iter().map(|(path, _)| *path)).collect();
        for applet in APPLETS.split_whitespace() {
            let twice = real.iter().find(|path| path.rsplit('/').next() == Some(applet));
            assert_eq!(twice, None, "busybox's {applet} stands beside another");
        }
    }
}
