//! Paths to SCSI disks in a guest: known by their address, which stays, and not by `sdX`, which does not.

use serde_json::{Value, json};

use crate::disk::Disk;
use crate::guest::Guest;

/// A path to a SCSI disk.
pub struct Path<'g> {
    guest: &'g Guest,
    /// `HOST:CHANNEL:TARGET:LUN`
    address: String,
}

impl<'g> Path<'g> {
    pub(crate) fn new(guest: &'g Guest, address: String) -> Self {
        Self { guest, address }
    }

    /// Its address, `HOST:CHANNEL:TARGET:LUN`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The kernel's name of it just now (`sda`); waits until it has one.
    ///
    /// # Panics
    /// When there is no such disk.
    #[track_caller]
    pub fn name(&self) -> String {
        let line = format!("ls /sys/bus/scsi/devices/{}/block", self.address);
        self.guest.until(&format!("the disk at {}", self.address), 20, &line)
    }

    /// Its device just now, `/dev/sda`.
    ///
    /// # Panics
    /// When there is no such disk.
    #[track_caller]
    pub fn device(&self) -> String {
        format!("/dev/{}", self.name())
    }

    /// Makes every command on it fail, as on a path that does not work.
    ///
    /// # Panics
    /// When there is no such disk.
    #[track_caller]
    pub fn offline(&self) {
        self.guest.sh(&format!("echo offline >/sys/bus/scsi/devices/{}/state", self.address));
    }

    /// Makes it work again.
    ///
    /// # Panics
    /// When there is no such disk.
    #[track_caller]
    pub fn online(&self) {
        self.guest.sh(&format!("echo running >/sys/bus/scsi/devices/{}/state", self.address));
    }

    /// Makes the kernel forget it.
    ///
    /// # Panics
    /// When there is no such disk.
    #[track_caller]
    pub fn delete(&self) {
        self.guest.sh(&format!("echo 1 >/sys/bus/scsi/devices/{}/delete", self.address));
    }

    /// Makes the kernel find it again, perhaps under another name.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn scan(&self) {
        let host = self.address.split(':').next().unwrap_or_default();
        self.guest.sh(&format!("echo '- - -' >/sys/class/scsi_host/host{host}/scan"));
        self.name();
    }
}

impl Guest {
    /// One path (counted from 0) of a disk, through the adapter it is on.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn path(&self, disk: &Disk, path: u16) -> Path<'_> {
        let adapter = Disk::adapter(self.index(disk), path);
        let line = format!("cd /sys/bus/ccw/devices/{adapter}/virtio*/host*/target*/ && ls -d [0-9]*:*");
        Path::new(self, self.until(&format!("the disk of adapter {adapter}"), 20, &line))
    }

    /// Takes away one path of a disk, as if a cable were pulled.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn unplug(&self, disk: &Disk, path: u16) {
        let id = Disk::id(self.index(disk), path);
        self.qmp("device_del", json!({"id": id}));
        self.event("DEVICE_DELETED", 30, |data| data["device"] == id.as_str());
    }

    /// Brings a path back.
    ///
    /// # Panics
    /// When it is there already.
    #[track_caller]
    pub fn plug(&self, disk: &Disk, path: u16) {
        self.qmp("device_add", Value::Object(disk.scsi(self.index(disk), path)));
    }

    /// Puts another disk of this guest, which may have no path of its own (`paths(0)`), where a path of the first has been.
    ///
    /// # Panics
    /// When there is a disk already.
    #[track_caller]
    pub fn plug_instead(&self, disk: &Disk, path: u16, other: &Disk) {
        let (here, there) = (self.index(disk), self.index(other));
        let mut properties = other.scsi(there, path);
        properties.insert("bus".into(), Disk::bus(here, path).into());
        self.qmp("device_add", Value::Object(properties));
    }
}
