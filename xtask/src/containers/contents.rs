//! What is in the images. As little as can be: a file is here because the program opens or starts it.

/// An image.
pub struct Image {
    /// Its name, and that of its program and its Containerfile.
    pub name: &'static str,
    /// The Rust package that the program is built from.
    pub package: &'static str,
    /// Programs of Debian's packages that it starts; their libraries come with them.
    pub tools: &'static [&'static str],
    /// Folders whose files are all taken.
    pub folders_taken: &'static [&'static str],
    /// Empty folders, for what is mounted there.
    pub folders: &'static [&'static str],
    /// Whether multipath's tools find the configuration that the agent needs of them.
    pub multipath: bool,
}

/// All of them. `cargo xtask containers` builds their programs in this order.
pub const IMAGES: [Image; 2] = [
    Image {
        name: "z-provisioner",
        package: "provisioner",
        tools: &[
            "usr/sbin/cryptsetup",
            "usr/sbin/dmsetup",
            "usr/sbin/mpathpersist",
            "usr/sbin/multipath",
            "usr/sbin/multipathd",
            "usr/sbin/wipefs",
        ],
        // Checkers and prioritizers, opened by name.
        folders_taken: &["usr/lib/multipath"],
        folders: &["dev", "etc/multipath", "proc", "run/cryptsetup", "run/udev", "run/z-provisioner", "sys"],
        multipath: true,
    },
    Image {
        name: "z-orchestrator",
        package: "orchestrator",
        tools: &[],
        folders_taken: &[],
        folders: &["dev", "etc/z-orchestrator", "proc", "run", "sys", "var/lib/z-orchestrator"],
        multipath: false,
    },
];

/// Links: where, and where to. As on every Debian since 12.
pub const LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// Where names of hosts are looked for: without this, not in the file first.
pub const NSSWITCH: (&str, &str) = ("etc/nsswitch.conf", "hosts: files dns\n");

/// The authorities that Debian trusts, as its package has them and as programs read them.
pub const AUTHORITIES: (&str, &str) = ("usr/share/ca-certificates/mozilla", "etc/ssl/certs/ca-certificates.crt");
