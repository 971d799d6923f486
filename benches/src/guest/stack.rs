//! The guest: two disks of this machine, one with one path, one with two, and the container that is opened on the latter.

use std::time::Instant;

use vm::{Builder, Disk, Guest, MIB};

use super::ways::{Luks, Paths, Way};

/// The configuration that comes with the agent.
const CONFIGURATION: &str = include_str!("../../../provisioner/multipath.conf");
/// MiB of memory: what an image of the default size and its buffers take.
const MEMORY: u32 = 1536;
/// Bytes of a container's header.
const HEADER: u64 = 16 * MIB;
/// The name of the mapping.
const NAME: &str = "bench";
/// The longest that one run may take, in seconds.
const LIMIT: u64 = 900;

/// A guest and its disks.
pub struct Stack {
    guest: Guest,
    /// Seconds from QEMU's start to a map of two live paths.
    ready_in: f64,
    one: Disk,
    two: Disk,
}

impl Stack {
    /// Boots it, with disks that hold `size` bytes of an image, in a container or not.
    pub fn boot(size: u64, processors: u8, uncut: bool) -> Self {
        let one = Disk::new(size + HEADER);
        let two = Disk::new(size + HEADER).paths(2);
        let began = Instant::now();
        let guest = Builder::new().named("bench").memory(MEMORY).processors(processors);
        let guest = guest.disk(&one).disk(&two).boot();
        let configuration = format!("{CONFIGURATION}blacklist {{\n    wwid \"{}\"\n}}\n", one.wwid());
        guest.start_multipath_with(&configuration).map(&two.wwid(), 2);
        let ready_in = began.elapsed().as_secs_f64();
        guest.sh("modprobe -a dm-crypt; head -c 32 /dev/urandom >/run/key");
        if uncut {
            guest.sh("for f in read write; do echo 1073741824 >/sys/module/dm_crypt/parameters/max_${f}_size; done");
        }
        Self { guest, ready_in, one, two }
    }

    /// Seconds from QEMU's start to the guest's first answer, and to a map of two live paths.
    pub fn start(&self) -> [f64; 2] {
        [self.guest.booted_in().as_secs_f64(), self.ready_in]
    }

    /// What figures depend on.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let cut = self.guest.sh("cat /sys/module/dm_crypt/parameters/max_write_size");
        let processors = self.guest.sh("nproc");
        vec![
            ("guest", format!("s390x under TCG, {processors} processors, Linux {}", self.guest.sh("uname -r"))),
            ("cryptsetup", self.guest.sh("cryptsetup --version")),
            ("dm-crypt's max_write_size", if cut == "0" { "0: 128 KiB".into() } else { cut }),
            ("disk", "a file of this machine, virtio-scsi; the same under every way but the first".into()),
        ]
    }

    /// What encrypts, as the kernel calls it. It says so once it has been needed.
    pub fn cipher(&self) -> String {
        self.guest.sh("grep -A1 '^name *: xts(aes)$' /proc/crypto | grep '^driver' | cut -d: -f2").trim().to_owned()
    }

    /// Opens what a way writes to.
    pub fn open(&self, way: &Way) -> String {
        let device = match way.paths {
            Paths::One => self.guest.path(&self.one, 0).device(),
            Paths::Two => format!("/dev/mapper/{}", self.two.wwid()),
        };
        let Some(Luks { sector, flags }) = way.luks else { return device };
        // Random keys need no expensive derivation, and the header is as the agent makes it.
        let format = "cryptsetup luksFormat --batch-mode --type luks2 --key-size 512 --cipher aes-xts-plain64 \
                      --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key";
        self.guest.run(&format!("{format} --sector-size {sector} {device}")).limit(LIMIT).done().ok();
        let flags = flags.join(" ");
        let open = format!("cryptsetup open --type luks2 --key-file /run/key {flags} {device} {NAME}");
        self.guest.run(&open).limit(LIMIT).done().ok();
        format!("/dev/mapper/{NAME}")
    }

    /// Closes it again.
    pub fn close(&self, way: &Way) {
        if way.luks.is_some() {
            self.guest.sh(&format!("udevadm settle; cryptsetup close {NAME}"));
        }
    }

    /// Runs a program to its end and returns what it said.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.guest.program(arguments.iter().copied()).limit(LIMIT).text()
    }

    /// Bytes per second that one core encrypts and decrypts, by `cryptsetup benchmark`.
    pub fn cipher_alone(&self) -> Option<[f64; 2]> {
        let told = self.run(&["cryptsetup", "benchmark", "--cipher", "aes-xts-plain64", "--key-size", "512"]);
        let line = told.lines().find(|line| line.trim_start().starts_with("aes-xts"))?;
        // aes-xts        512b      1234.5 MiB/s      1234.5 MiB/s
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        Some([numbers.next()? * MIB as f64, numbers.next()? * MIB as f64])
    }
}
