//! What is on the medium. Little, since all of it is loaded, unpacked and trusted: a program, a rule or a module is here because the
//! agent drives it or the machine does not come up without.

use std::io;
use std::path::Path;

use initramfs::closure;

/// Programs of the packages.
const PROGRAMS: &[&str] = &[
    // DHCP, and the shell of whoever is allowed one
    "usr/bin/busybox",
    // modules and devices
    "usr/bin/kmod",
    "usr/bin/udevadm",
    "usr/lib/udev/scsi_id",
    // the target
    "usr/sbin/cryptsetup",
    "usr/sbin/dmsetup",
    "usr/sbin/mpathpersist",
    "usr/sbin/multipath",
    "usr/sbin/multipathd",
    "usr/sbin/wipefs",
    // the network
    "usr/sbin/charon-systemd",
    "usr/sbin/ip",
    // what programs open by name, while they run
    "usr/lib/s390x-linux-gnu/libkmod.so.2",
];

/// Plugins of strongSwan: those the agent's configuration names, and no others.
const PLUGINS: &[&str] = &[
    "constraints",
    "kdf",
    "kernel-netlink",
    "nonce",
    "openssl",
    "pem",
    "pkcs1",
    "pkcs8",
    "pubkey",
    "random",
    "revocation",
    "socket-default",
    "vici",
    "x509",
];

/// udev's rules.
const RULES: &[&str] = &[
    "50-udev-default",
    "55-dm",
    "55-scsi-sg3_id",
    "56-dm-mpath",
    "60-block",
    "60-multipath",
    "60-persistent-storage",
    "60-persistent-storage-dm",
    "80-drivers",
    "95-dm-notify",
    "99-z-dm-mpath-late",
];

/// Whole folders whose files are all taken: checkers and prioritizers of multipathd.
const FOLDERS_TAKEN: &[&str] = &["usr/lib/multipath"];

/// Modules, with those they depend on. Devices load theirs by udev; the others are loaded by the first process or by who needs them.
pub const MODULES: &[&str] = &[
    // FCP and disks
    "sd_mod",
    "sg",
    "virtio_blk",
    "virtio_scsi",
    "zfcp",
    // multipath
    "dm-mod",
    "dm-multipath",
    "dm-queue-length",
    "dm-round-robin",
    "dm-service-time",
    "scsi_dh_alua",
    "scsi_dh_emc",
    "scsi_dh_rdac",
    // LUKS
    "algif_skcipher",
    "dm-crypt",
    "xts",
    "aes_s390",
    // networks
    "8021q",
    "qeth",
    "qeth_l2",
    "virtio_net",
    // IPsec
    "esp4",
    "esp6",
    "gcm",
    "ghash-generic",
    "seqiv",
    "xfrm_user",
    // random numbers
    "s390-trng",
    "virtio-rng",
];

/// Links: where, and where to.
pub const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("var/run", "/run"),
    ("etc/mtab", "/proc/self/mounts"),
    ("usr/lib/systemd/systemd-udevd", "/usr/bin/udevadm"),
    ("usr/sbin/modprobe", "/usr/bin/kmod"),
    ("usr/lib/z-provisioner/lease", "/usr/bin/z-provisioner"),
];

/// Empty folders.
pub const FOLDERS: &[&str] =
    &["dev", "etc/multipath", "etc/udev/rules.d", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp"];

/// Files that every system has and no package brings.
pub const TEXTS: &[(&str, &str)] = &[
    ("etc/group", "root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
];

/// All files that are taken from the packages.
///
/// # Errors
/// When a folder cannot be read.
pub fn wanted(root: &Path) -> io::Result<Vec<String>> {
    let mut wanted: Vec<String> = PROGRAMS.iter().map(|path| (*path).to_owned()).collect();
    wanted.extend(PLUGINS.iter().map(|plugin| format!("usr/lib/ipsec/plugins/libstrongswan-{plugin}.so")));
    wanted.extend(RULES.iter().map(|rule| format!("usr/lib/udev/rules.d/{rule}.rules")));
    for folder in FOLDERS_TAKEN {
        wanted.extend(closure::in_folder(root, folder)?);
    }
    Ok(wanted)
}
