//! Undoing: what attaching set is taken back, in reverse, and nothing else.
//!
//! A LUN's SCSI device is deleted first: chzdev does it so (zfcp_lun.c), and a device that loses its adapter instead
//! waits for a minute (`dev_loss_tmo`) to be sure that it is gone. zFCP keeps the directories of host and ports of an
//! adapter that was online once ("the port and LUN subdirectories are preserved", IBM's Device Drivers book): they
//! stay.

use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::event::TornDown;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::Fabric;
use super::adapter::Adapter;
use crate::cio::{self, device_dir, is_busy};
use crate::sysfs::{self, Roots};

/// How long undoing may take in all.
const LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether something has gone, and a busy device is ordered again.
const LOOK: Duration = Duration::from_millis(100);

/// Something that was not so before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Set {
    /// The kernel no longer ignores a device.
    Freed { adapter: String },
    /// An adapter is online.
    Online { adapter: String },
    /// A port has a LUN.
    Lun { adapter: String, wwpn: String, lun: String },
}

/// What [`Fabric::attach`] set, to be given to [`Fabric::undo`].
#[must_use = "what was set stays set unless it is undone"]
#[derive(Debug, Default)]
pub struct Attached {
    set: Vec<Set>,
    unanswered: Vec<Unanswered>,
    up: usize,
}

/// An order that the kernel has not answered yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Whom it was given to, and what the kernel does.
    pub(super) doing: String,
    /// The answer.
    pub(super) answer: JoinHandle<io::Result<()>>,
}

impl Attached {
    pub(super) fn new(set: Vec<Set>, unanswered: Vec<Unanswered>, up: usize) -> Self {
        Attached { set, unanswered, up }
    }

    /// How many of the ways came up. Where that is enough, a run may go on without the others.
    pub fn ways_up(&self) -> usize {
        self.up
    }

    /// Whether nothing was set, because all was there already.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unanswered.is_empty()
    }
}

/// What [`Fabric::undo`] does.
pub(super) async fn undo(fabric: &Fabric, attached: Attached) -> TornDown {
    let (now, mut told) = (Instant::now(), TornDown::default());
    for Unanswered { doing, answer } in attached.unanswered {
        // Until then it can take effect at any moment, also after what it sets was looked at here.
        if timeout_at(now + LIMIT / 2, answer).await.is_err() {
            told.left.push(format!("{doing} is not finished, and may have its effect later"));
        }
    }
    let mut undoing = Undoing { roots: &fabric.roots, until: now + LIMIT, told };
    for set in attached.set.into_iter().rev() {
        match undoing.take_back(&set).await {
            Ok(Some(done)) => undoing.told.undone.push(done),
            Ok(None) => {}
            Err(why) => undoing.told.left.push(why),
        }
    }
    undoing.told
}

struct Undoing<'a> {
    roots: &'a Roots,
    until: Instant,
    told: TornDown,
}

/// What was undone, nothing where it was gone already, or what was left and why.
type Undone = Result<Option<String>, String>;

impl Undoing<'_> {
    async fn take_back(&mut self, set: &Set) -> Undone {
        match set {
            Set::Lun { adapter, wwpn, lun } => self.remove_lun(adapter, wwpn, lun).await,
            Set::Online { adapter } => self.set_offline(adapter).await,
            Set::Freed { adapter } => self.ignore(adapter).await,
        }
    }

    async fn remove_lun(&mut self, adapter: &str, wwpn: &str, lun: &str) -> Undone {
        let port = device_dir(self.roots, adapter).join(wwpn);
        let unit = port.join(lun);
        self.delete_devices(adapter, |device_wwpn, device_lun| (device_wwpn, device_lun) == (wwpn, lun)).await;
        if !unit.exists() {
            return Ok(None);
        }
        let way = format!("{adapter} {wwpn} {lun}");
        let removed = self.order(&port.join("unit_remove"), lun, || !unit.exists()).await;
        removed.map_err(|why| format!("{way}: LUN not removed: {why}"))?;
        Ok(Some(format!("{way}: LUN removed")))
    }

    async fn set_offline(&mut self, adapter: &str) -> Undone {
        let online = device_dir(self.roots, adapter).join("online");
        let Some(now) = Adapter::read(self.roots, adapter).filter(|adapter| adapter.online) else { return Ok(None) };
        // "Piping 0 to online will forcibly delete the device" then (Documentation/arch/s390/driver-model.rst).
        if matches!(now.availability.as_str(), "no path" | "no device") {
            return Err(format!("{adapter}: left online: {}, setting it offline would remove it", now.availability));
        }
        self.delete_devices(adapter, |_, _| true).await;
        let set = self.order(&online, "0", || !sysfs::is_set(&online)).await;
        set.map_err(|why| format!("{adapter}: still online: {why}"))?;
        Ok(Some(format!("{adapter}: set offline")))
    }

    async fn ignore(&mut self, adapter: &str) -> Undone {
        let (list, device) = (self.roots.proc("cio_ignore"), device_dir(self.roots, adapter));
        let added = self.order(&list, &format!("add {adapter}"), || cio::is_ignored(self.roots, adapter)).await;
        added.map_err(|why| format!("{adapter}: no longer ignored (cio_ignore): {why}"))?;
        if self.others_would_be_forgotten(adapter) {
            return Ok(Some(format!("{adapter}: ignored again, from when it goes away")));
        }
        let purged = self.order(&list, "purge", || !device.exists()).await;
        purged.map_err(|why| format!("{adapter}: ignored again, but not forgotten: {why}"))?;
        Ok(Some(format!("{adapter}: ignored again")))
    }

    /// Whether the kernel would forget other devices, too: "purge" is for all that are ignored and offline.
    fn others_would_be_forgotten(&self, adapter: &str) -> bool {
        let others = sysfs::names(&self.roots.sys("bus/ccw/devices")).into_iter().filter(|bus_id| bus_id != adapter);
        let is_offline = |bus_id: &str| !sysfs::is_set(&device_dir(self.roots, bus_id).join("online"));
        others.into_iter().any(|bus_id| is_offline(&bus_id) && cio::is_ignored(self.roots, &bus_id))
    }

    /// Deletes the SCSI devices of an adapter whose WWPN and LUN are `wanted`.
    async fn delete_devices(&mut self, adapter: &str, wanted: impl Fn(&str, &str) -> bool) {
        let devices = Adapter::read(self.roots, adapter).map(|adapter| adapter.devices).unwrap_or_default();
        for device in devices.iter().filter(|device| wanted(&device.wwpn, &device.lun)) {
            let dir = self.roots.sys("bus/scsi/devices").join(&device.address);
            if let Err(why) = self.order(&dir.join("delete"), "1", || !dir.exists()).await {
                self.told.left.push(format!("{adapter}: SCSI device {} not deleted: {why}", device.address));
            }
        }
    }

    /// Writes, again while the device is busy, until it `is_so`, by this or by itself.
    async fn order(&self, path: &Path, value: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
        let mut taken = false;
        while !is_so() {
            if Instant::now() >= self.until {
                let what =
                    if taken { "the kernel took it, and has not done it" } else { "there was no time left for it" };
                return Err(format!("{value} to {}: {what}", path.display()));
            }
            if !taken {
                match timeout_at(self.until, self.roots.write_aside(path, value)).await {
                    Err(_) => return Err(format!("{value} to {}: the kernel does not answer", path.display())),
                    Ok(Ok(Ok(()))) => taken = true,
                    Ok(Ok(Err(error))) if is_busy(&error) || is_so() => {}
                    Ok(Ok(Err(error))) => return Err(format!("{value} to {}: {error}", path.display())),
                    Ok(Err(error)) => return Err(format!("{value} to {}: {error}", path.display())),
                }
            }
            if !is_so() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}
