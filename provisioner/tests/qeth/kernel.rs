//! A simulated kernel: a tree laid out like sysfs, and what qeth, ccwgroup and the channel subsystem do when something is
//! written there. A write is a real one, to a file that must exist; then the simulation answers as the kernel does.
//!
//! Sources: drivers/s390/net/qeth_core_sys.c (`layer2`, `portno`, `if_name`, `state`, `card_type`), qeth_core_main.c
//! (`qeth_set_online`), drivers/s390/cio/ccwgroup.c (`group`, `online`), blacklist.c and css.c.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use provisioner::network::qeth::Card;
use provisioner::sysfs::{self, Roots};
use tempfile::TempDir;

use crate::tree::Tree;
use crate::{DATA, READ, WRITE};

const GROUP: &str = "sys/bus/ccwgroup/devices/0.0.0600";

/// What is wrong with an attribute.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Writing gives this error.
    Refuses(Errno),
    /// Writing gives EAGAIN so many times.
    Busy(u32),
    /// Writing succeeds and does nothing.
    Deaf,
}

pub struct Kernel {
    root: TempDir,
    state: Arc<Mutex<State>>,
}

pub struct State {
    pub tree: Tree,
    card_type: &'static str,
    /// The name of the interface, once it is online; `None` where it never gets one.
    pub interface: Option<&'static str>,
    /// How many ports the adapter has.
    ports: u8,
    ignored: Vec<&'static str>,
    faults: HashMap<&'static str, Fault>,
    writes: Vec<String>,
}

impl Kernel {
    /// A machine with an OSA adapter of two ports on three subchannels.
    pub fn osa() -> Self {
        Kernel::new("OSD_10GIG", "1731/01", 2, "eth0")
    }

    /// A machine with HiperSockets.
    pub fn hiper_sockets() -> Self {
        Kernel::new("HiperSockets", "1731/05", 1, "hsi0")
    }

    fn new(card_type: &'static str, control_unit: &'static str, ports: u8, interface: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path());
        for dir in ["sys/bus/ccw/devices", "sys/bus/ccw/drivers/qeth", "sys/bus/ccwgroup/devices", "sys/class/net"] {
            tree.dir(dir);
        }
        tree.attributes("sys/bus/ccwgroup/drivers/qeth", &[("group", "")]);
        tree.attributes("proc", &[("cio_ignore", ""), ("cio_settle", "")]);
        for (number, channel) in [READ, WRITE, DATA].into_iter().enumerate() {
            let subchannel = format!("sys/devices/css0/0.0.{number:04x}");
            let dir = format!("{subchannel}/{channel}");
            tree.attributes(&subchannel, &[("chpids", "f0 00 00 00 00 00 00 00")]);
            tree.attributes(&dir, &[("availability", "good"), ("cutype", control_unit), ("online", "0")]);
            tree.link(&format!("{dir}/driver"), "sys/bus/ccw/drivers/qeth");
            tree.link(&format!("sys/bus/ccw/devices/{channel}"), &dir);
        }
        let state = State {
            tree,
            card_type,
            interface: Some(interface),
            ports,
            ignored: Vec::new(),
            faults: HashMap::new(),
            writes: Vec::new(),
        };
        Kernel { root, state: Arc::new(Mutex::new(state)) }
    }

    /// The code under test, on this machine.
    pub fn card(&self, port: u8) -> Card {
        let state = Arc::clone(&self.state);
        let roots = Roots::at(self.root.path().join("sys"), self.root.path().join("proc"));
        let roots = roots.with_store(Arc::new(move |path, value| state.lock().unwrap().store(path, value)));
        Card::new(&roots, &[READ, WRITE, DATA].map(str::to_owned), port)
    }

    pub fn fault(&self, attribute: &'static str, fault: Fault) {
        self.with(|state| state.faults.insert(attribute, fault));
    }

    /// The writes since this was asked last, as `attribute value`.
    pub fn writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// An attribute of the device.
    pub fn read(&self, attribute: &str) -> String {
        self.with(|state| state.tree.read(&format!("{GROUP}/{attribute}")))
    }

    pub fn set(&self, path: &str, value: &str) {
        self.with(|state| state.tree.set(path, value));
    }

    pub fn remove(&self, path: &str) {
        self.with(|state| state.tree.remove(path));
    }

    /// Ignores all three devices, as `cio_ignore=` on the command line does.
    pub fn ignore(&self) {
        self.with(|state| {
            state.ignored = vec![READ, WRITE, DATA];
            state.ignored.iter().for_each(|channel| state.tree.remove(&format!("sys/bus/ccw/devices/{channel}")));
            state.tree.set("proc/cio_ignore", "0.0.0000-0.0.ffff");
        });
    }
}

impl State {
    fn store(&mut self, path: &Path, value: &str) -> io::Result<()> {
        let below = path.strip_prefix(self.tree.path("")).unwrap().to_str().unwrap().to_owned();
        let before = std::fs::read(path);
        sysfs::write(path, value)?;
        // What a file shows is the kernel's to say.
        std::fs::write(path, before?)?;
        let attribute = path.file_name().unwrap().to_str().unwrap();
        self.writes.push(format!("{attribute} {value}"));
        match self.faults.get_mut(attribute) {
            Some(Fault::Refuses(errno)) => return Err((*errno).into()),
            Some(Fault::Deaf) => return Ok(()),
            Some(Fault::Busy(times)) if *times > 0 => {
                *times -= 1;
                return Err(Errno::EAGAIN.into());
            }
            _ => {}
        }
        self.answer(&below, value).map_err(io::Error::from)
    }

    fn answer(&mut self, below: &str, value: &str) -> Result<(), Errno> {
        match (below.rsplit('/').next().unwrap(), value) {
            ("cio_ignore", _) => {
                let channel = value.strip_prefix("free ").ok_or(Errno::EINVAL)?;
                self.ignored.retain(|ignored| *ignored != channel);
                self.tree.set("proc/cio_ignore", &self.ignored.join("\n"));
                Ok(())
            }
            ("cio_settle", _) => {
                for (number, channel) in [READ, WRITE, DATA].into_iter().enumerate() {
                    let (link, dir) = (
                        format!("sys/bus/ccw/devices/{channel}"),
                        format!("sys/devices/css0/0.0.{number:04x}/{channel}"),
                    );
                    if !self.ignored.contains(&channel) && self.tree.exists(&dir) && !self.tree.exists(&link) {
                        self.tree.link(&link, &dir);
                    }
                }
                Ok(())
            }
            ("group", channels) => self.group(channels),
            ("online", "1") => self.set_online(),
            ("online", "0") => self.set_offline(),
            ("layer2", layer) if self.is_down() => {
                self.tree.set(&format!("{GROUP}/layer2"), layer);
                Ok(())
            }
            ("portno", port) if self.is_down() => {
                let port = u8::from_str_radix(port, 16).ok().filter(|port| *port < self.ports).ok_or(Errno::EINVAL)?;
                self.tree.set(&format!("{GROUP}/portno"), &port.to_string());
                Ok(())
            }
            ("layer2" | "portno", _) => Err(Errno::EPERM),
            _ => panic!("nothing is to be written to {below}"),
        }
    }

    fn is_down(&self) -> bool {
        self.tree.read(&format!("{GROUP}/state")) == "DOWN"
    }

    /// Three devices with one driver, none of which is in a group.
    pub fn group(&mut self, channels: &str) -> Result<(), Errno> {
        let channels: Vec<_> = channels.split(',').collect();
        let device = |channel: &&str| format!("sys/bus/ccw/devices/{channel}");
        let fits = |channel: &&str| {
            self.tree.exists(&format!("{}/driver", device(channel)))
                && !self.tree.exists(&format!("{}/group_device", device(channel)))
        };
        if channels.len() != 3 || !channels.iter().all(fits) {
            return Err(Errno::EINVAL);
        }
        let dir = format!("sys/devices/qeth/{}", channels[0]);
        let attributes = [
            ("online", "0"),
            ("state", "DOWN"),
            ("layer2", "-1"),
            ("portno", "0"),
            ("card_type", self.card_type),
            ("if_name", "(unnamed net_device)"),
        ];
        self.tree.attributes(&dir, &attributes);
        self.tree.link(&format!("sys/bus/ccwgroup/devices/{}", channels[0]), &dir);
        for (number, channel) in channels.iter().enumerate() {
            self.tree.link(&format!("{dir}/cdev{number}"), &device(channel));
            self.tree.link(&format!("{}/group_device", device(channel)), &dir);
        }
        Ok(())
    }

    pub fn set_online(&mut self) -> Result<(), Errno> {
        if self.tree.read(&format!("{GROUP}/online")) == "1" {
            return Err(Errno::EINVAL);
        }
        self.tree.set(&format!("{GROUP}/online"), "1");
        self.tree.set(&format!("{GROUP}/state"), "SOFTSETUP");
        if let Some(interface) = self.interface {
            self.tree.dir(&format!("sys/class/net/{interface}"));
            self.tree.set(&format!("{GROUP}/if_name"), interface);
        }
        Ok(())
    }

    fn set_offline(&mut self) -> Result<(), Errno> {
        if self.tree.read(&format!("{GROUP}/online")) == "0" {
            return Err(Errno::EINVAL);
        }
        self.tree.set(&format!("{GROUP}/online"), "0");
        self.tree.set(&format!("{GROUP}/state"), "DOWN");
        if let Some(interface) = self.interface {
            self.tree.remove(&format!("sys/class/net/{interface}"));
        }
        Ok(())
    }
}
