//! A simulated kernel: a tree laid out like sysfs, and what zFCP and the channel subsystem do when something is written
//! there.
//!
//! A write is a real one, to a file that must exist; then the simulation answers as the kernel does, with success or an
//! errno, and changes the tree, at once or after a while. Time is tokio's, so that tests can let it pass.
//!
//! Sources: drivers/s390/cio/device.c, blacklist.c and css.c; drivers/s390/scsi/zfcp_sysfs.c, zfcp_unit.c, zfcp_ccw.c
//! and zfcp_scsi.c; drivers/scsi/scsi_transport_fc.c; Documentation/arch/s390/common_io.rst and driver-model.rst; for
//! the layout also the comments in zdev/src/scsi.c of s390-tools.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use provisioner::sysfs::{self, Roots};
use provisioner::target::fcp::Fabric;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::channel::Channel;
use crate::tree::{Snapshot, Tree};

const DEVICES: &str = "sys/bus/ccw/devices";

/// What is wrong with an attribute.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Writing gives this error.
    Refuses(Errno),
    /// Writing gives this error so many times.
    Busy(u32),
    /// Writing succeeds and does nothing.
    Deaf,
    /// Writing does not return before [`Kernel::wake`].
    Hangs,
}

pub struct Kernel {
    root: TempDir,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    woken: Condvar,
    handle: Handle,
}

/// The simulation's state; what can be read of it is in the tree.
pub struct State {
    pub tree: Tree,
    pub start: Instant,
    pub channels: Vec<Channel>,
    pub ignored: BTreeSet<u32>,
    pub faults: HashMap<&'static str, Fault>,
    pub writes: Vec<String>,
    pub later: Vec<(Duration, Later)>,
    pub awake: bool,
}

/// Something that happens after a while.
pub type Later = Box<dyn FnOnce(&mut State) + Send>;

impl Kernel {
    /// A machine with these channels. Must be called inside the runtime.
    pub fn new(channels: impl IntoIterator<Item = Channel>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let state = State {
            tree: Tree::new(root.path()),
            start: Instant::now(),
            channels: channels.into_iter().collect(),
            ignored: BTreeSet::new(),
            faults: HashMap::new(),
            writes: Vec::new(),
            later: Vec::new(),
            awake: false,
        };
        let inner = Inner { state: Mutex::new(state), woken: Condvar::new(), handle: Handle::current() };
        let kernel = Kernel { root, inner: Arc::new(inner) };
        kernel.with(State::boot);
        kernel
    }

    /// An empty machine, without channels.
    pub fn without_channels() -> Self {
        let kernel = Kernel::new([]);
        kernel.with(|state| state.tree.remove("sys/bus/ccw"));
        kernel
    }

    /// The code under test, on this machine.
    pub fn fabric(&self) -> Fabric {
        let inner = Arc::clone(&self.inner);
        let roots = Roots::at(self.root.path().join("sys"), self.root.path().join("proc"));
        Fabric::at(roots.with_store(Arc::new(move |path, value| store(&inner, path, value))))
    }

    pub fn fault(&self, attribute: &'static str, fault: Fault) {
        self.with(|state| state.faults.insert(attribute, fault));
    }

    pub fn heal(&self) {
        self.with(|state| state.faults.clear());
    }

    /// Lets writes that hang return.
    pub fn wake(&self) {
        self.with(|state| state.awake = true);
        self.inner.woken.notify_all();
    }

    /// The writes since this was asked last, as `attribute value`, paths shortened.
    pub fn writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    pub fn snapshot(&self) -> Snapshot {
        self.with(|state| state.tree.snapshot())
    }

    pub fn tree(&self) -> Tree {
        self.with(|state| state.tree.clone())
    }

    /// Does something to the machine, and lets happen afterwards what follows from it.
    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.inner.lock();
        let done = work(&mut state);
        let later = std::mem::take(&mut state.later);
        drop(state);
        schedule(&self.inner, later);
        done
    }

    /// Ignores the devices with these numbers, and forgets those it knows, as `cio_ignore=` on the command line does.
    pub fn ignore(&self, numbers: std::ops::RangeInclusive<u32>) {
        self.with(|state| {
            state.ignored.extend(numbers);
            state.purge();
            state.show_ignored();
        });
    }

    /// Lets time pass until everything has happened that follows from what was done.
    pub async fn settle(&self) {
        sleep(Duration::from_secs(70)).await;
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // A thread that hangs would keep the runtime from ending.
        self.wake();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn schedule(inner: &Arc<Inner>, later: Vec<(Duration, Later)>) {
    for (delay, work) in later {
        let then = Arc::clone(inner);
        inner.handle.spawn(async move {
            sleep(delay).await;
            let mut state = then.lock();
            work(&mut state);
            let later = std::mem::take(&mut state.later);
            drop(state);
            schedule(&then, later);
        });
    }
}

/// What the kernel does at a write.
fn store(inner: &Arc<Inner>, path: &Path, value: &str) -> io::Result<()> {
    let mut state = inner.lock();
    let below = path.strip_prefix(state.tree.path("")).unwrap().to_str().unwrap().to_owned();
    let before = std::fs::read(path);
    sysfs::write(path, value)?;
    // What a file shows is the kernel's to say.
    std::fs::write(path, before?)?;
    let short = below.trim_start_matches("sys/bus/ccw/devices/").trim_start_matches("sys/bus/scsi/devices/");
    state.writes.push(format!("{short} {value}"));
    let attribute = path.file_name().unwrap().to_str().unwrap();
    let fault = state.faults.get(attribute).copied();
    match fault {
        Some(Fault::Refuses(errno)) => return Err(errno.into()),
        Some(Fault::Deaf) => return Ok(()),
        Some(Fault::Busy(0)) | None => {}
        Some(Fault::Busy(times)) => {
            let name = *state.faults.get_key_value(attribute).unwrap().0;
            state.faults.insert(name, Fault::Busy(times - 1));
            return Err(Errno::EAGAIN.into());
        }
        Some(Fault::Hangs) => state = inner.woken.wait_while(state, |state| !state.awake).unwrap(),
    }
    let answer = state.answer(&below, value);
    let later = std::mem::take(&mut state.later);
    drop(state);
    schedule(inner, later);
    answer.map_err(io::Error::from)
}

impl State {
    pub fn after(&mut self, delay: Duration, work: impl FnOnce(&mut State) + Send + 'static) {
        self.later.push((delay, Box::new(work)));
    }

    /// The channel `bus_id`, and its place in the list: its SCSI host has that number.
    pub fn channel(&self, bus_id: &str) -> Option<usize> {
        self.channels.iter().position(|channel| channel.bus_id == bus_id)
    }

    fn boot(&mut self) {
        for dir in [DEVICES, "sys/bus/scsi/devices", "sys/class/fc_host", "sys/class/fc_remote_ports", "sys/block"] {
            self.tree.dir(dir);
        }
        self.tree.dir("sys/bus/ccw/drivers/zfcp");
        self.tree.attributes("sys/module/zfcp/parameters", &[("allow_lun_scan", "Y")]);
        self.tree.attributes("proc", &[("cio_ignore", ""), ("cio_settle", "")]);
        (0..self.channels.len()).for_each(|number| self.register(number));
    }

    fn answer(&mut self, below: &str, value: &str) -> Result<(), Errno> {
        let parts: Vec<&str> = below.split('/').collect();
        match parts[..] {
            ["proc", "cio_ignore"] => self.cio_ignore(value),
            ["proc", "cio_settle"] => {
                self.evaluate();
                Ok(())
            }
            ["sys", "bus", "scsi", "devices", address, "delete"] => {
                self.delete_device(address);
                Ok(())
            }
            ["sys", "bus", "ccw", "devices", bus_id, ref attribute @ ..] => {
                let number = self.channel(bus_id).ok_or(Errno::ENODEV)?;
                self.device_answer(number, attribute, value)
            }
            _ => panic!("nothing is to be written to {below}"),
        }
    }

    fn device_answer(&mut self, number: usize, attribute: &[&str], value: &str) -> Result<(), Errno> {
        match (attribute, value) {
            (["online"], "1") => self.set_online(number),
            (["online"], "0") => self.set_offline(number),
            (["port_rescan"], "1") => {
                self.scan_ports(number);
                Ok(())
            }
            (["failed"], "0") => {
                self.recover(number);
                Ok(())
            }
            ([wwpn, "failed"], "0") => {
                self.log_in(number, wwpn);
                Ok(())
            }
            ([wwpn, "unit_add"], lun) => self.add_unit(number, wwpn, lun),
            ([wwpn, "unit_remove"], lun) => self.remove_unit(number, wwpn, lun),
            ([wwpn, lun, "failed"], "0") => {
                self.scan_lun(number, wwpn, lun);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// "free" takes effect later; "add" knows no effect on devices; "purge" forgets those that are ignored and offline.
    fn cio_ignore(&mut self, value: &str) -> Result<(), Errno> {
        let number = |bus_id: &str| u32::from_str_radix(bus_id.strip_prefix("0.0.")?, 16).ok();
        match value.split_once(' ') {
            Some(("free", bus_id)) => {
                self.ignored.remove(&number(bus_id).ok_or(Errno::EINVAL)?);
                self.after(Duration::from_millis(500), State::evaluate);
            }
            Some(("add", bus_id)) => {
                self.ignored.insert(number(bus_id).ok_or(Errno::EINVAL)?);
            }
            None if value == "purge" => self.purge(),
            _ => return Err(Errno::EINVAL),
        }
        self.show_ignored();
        Ok(())
    }

    /// Registers what is there and not ignored.
    fn evaluate(&mut self) {
        for number in 0..self.channels.len() {
            if !self.is_ignored(number) {
                self.register(number);
            }
        }
    }

    fn purge(&mut self) {
        for number in 0..self.channels.len() {
            let online = format!("{DEVICES}/{}/online", self.channels[number].bus_id);
            if self.is_ignored(number) && self.tree.read(&online) == "0" {
                self.unregister(number);
            }
        }
    }

    fn is_ignored(&self, number: usize) -> bool {
        let digits = self.channels[number].bus_id.strip_prefix("0.0.").unwrap();
        self.ignored.contains(&u32::from_str_radix(digits, 16).unwrap())
    }

    /// As cio_ignore_proc_seq_show does: neighbours as a range.
    fn show_ignored(&self) {
        let ends = |number: &u32| !self.ignored.contains(&(number + 1));
        let starts = |number: &u32| *number == 0 || !self.ignored.contains(&(number - 1));
        let (starts, ends) = (self.ignored.iter().filter(|n| starts(n)), self.ignored.iter().filter(|n| ends(n)));
        let lines = starts.zip(ends).map(|(from, to)| match from == to {
            true => format!("0.0.{from:04x}"),
            false => format!("0.0.{from:04x}-0.0.{to:04x}"),
        });
        self.tree.set("proc/cio_ignore", &lines.collect::<Vec<_>>().join("\n"));
    }
}
