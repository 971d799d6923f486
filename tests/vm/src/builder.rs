//! How a guest is to be, and QEMU's command line for it.

use std::path::Path;
use std::time::Duration;

use crate::disk::Disk;
use crate::guest::Guest;
use crate::link::{Link, LinkEnd};
use crate::qemu;

/// Mebibytes of memory of a guest: enough for what it boots into and a program with a budget of 256 MiB.
const MEMORY: u32 = 1024;

/// How long a guest may take to boot; a busy machine takes five times as long as an idle one.
const BOOT: Duration = Duration::from_secs(150);

/// The interface of a guest's own network, and the address that QEMU expects there.
const MAC: &str = "52:54:00:00:02:0f";
const ADDRESS: &str = "10.0.2.15/24";

/// An oops is as bad as a panic. What is left out are self-tests of random numbers and keys that no test needs, and the clearing of
/// memory that is about to be overwritten: two seconds of five.
const KERNEL_OPTIONS: &str = "console=ttysclp0 loglevel=4 oops=panic init_on_alloc=0 \
    initcall_blacklist=jent_mod_init,init_encrypted,crypto_kdf108_init";

/// A guest to be booted. Clones are guests alike, with the same disks.
#[derive(Clone)]
pub struct Builder {
    pub(crate) name: String,
    memory: u32,
    processors: u8,
    pub(crate) disks: Vec<Disk>,
    network: bool,
    pub(crate) links: Vec<LinkEnd>,
    pub(crate) files: Vec<(String, u32, Vec<u8>)>,
    kernel_options: String,
    pub(crate) gateway: bool,
    pub(crate) limit: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// One processor, 1 GiB of memory, no disk, no network, named for the test that boots it.
    pub fn new() -> Self {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("guest").replace("::", "-");
        Self {
            name,
            memory: MEMORY,
            processors: 1,
            disks: Vec::new(),
            network: false,
            links: Vec::new(),
            files: Vec::new(),
            kernel_options: String::new(),
            gateway: false,
            limit: BOOT,
        }
    }

    /// Adds to its name, where a test boots several.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = format!("{}-{name}", self.name);
        self
    }

    /// Sets its memory in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory = mib;
        self
    }

    /// Sets the number of its processors.
    #[must_use]
    pub fn processors(mut self, processors: u8) -> Self {
        self.processors = processors;
        self
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disks.push(disk.clone());
        self
    }

    /// Gives it a network of its own, in which 10.0.2.2 is this machine: what listens on 127.0.0.1 here can be reached there.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// Plugs in one end (0 or 1) of a cable, with an address such as `10.9.0.1/24`.
    #[must_use]
    pub fn link(mut self, link: &Link, end: u8, address: &str) -> Self {
        assert!(end < 2, "a cable has ends 0 and 1");
        self.links.push(LinkEnd { link: link.clone(), end, address: address.to_owned() });
        self
    }

    /// Adds a file, which is there from the start.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.trim_start_matches('/').to_owned(), mode, content.into()));
        self
    }

    /// Makes it a gateway: strongSwan and nginx are there.
    #[must_use]
    pub fn gateway(mut self) -> Self {
        self.gateway = true;
        self
    }

    /// Adds options to the kernel's command line.
    #[must_use]
    pub fn kernel_options(mut self, options: &str) -> Self {
        self.kernel_options = format!("{} {options}", self.kernel_options);
        self
    }

    /// Boots it and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn boot(self) -> Guest {
        Guest::boot(self)
    }

    /// Its interfaces: hardware address, and what is to be set up on it.
    pub(crate) fn interfaces(&self) -> Vec<(String, String)> {
        let network = self.network.then(|| (MAC.to_owned(), ADDRESS.to_owned()));
        let links = self.links.iter().enumerate().map(|(index, end)| (end.mac(index), end.address.clone()));
        network.into_iter().chain(links).collect()
    }

    /// QEMU's command line, for files and sockets in `folder`.
    pub(crate) fn arguments(&self, kernel: &Path, folder: &Path) -> Vec<String> {
        let file = |name: &str| folder.join(name).display().to_string();
        let console = format!("file,id=console,path={}", file("console"));
        let mut arguments = qemu::machine(self.memory, self.processors, &console, folder);
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("-chardev", format!("socket,id=channel,path={}", file("channel")));
        option("-device", "virtio-serial-ccw,id=serial".into());
        option("-device", "virtserialport,bus=serial.0,chardev=channel,name=harness".into());
        option("-kernel", kernel.display().to_string());
        option("-initrd", file("initramfs"));
        option("-append", format!("{KERNEL_OPTIONS}{}", self.kernel_options));
        for (index, disk) in self.disks.iter().enumerate() {
            disk.arguments(index).chunks(2).for_each(|pair| option(&pair[0], pair[1].clone()));
        }
        if self.network {
            option("-netdev", "user,id=net,ipv6=off".into());
            option("-device", format!("virtio-net-ccw,netdev=net,mac={MAC}"));
        }
        for (index, end) in self.links.iter().enumerate() {
            option("-netdev", end.link.netdev(&format!("link{index}"), end.end));
            option("-device", format!("virtio-net-ccw,netdev=link{index},mac={}", end.mac(index)));
        }
        arguments
    }
}
