//! A guest's disks: files of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A disk, which outlives the guests it belongs to. Clones are the same disk.
///
/// What the guest's kernel has written and the device has acknowledged is in the file: QEMU holds nothing back, so a power
/// cut loses what is in the guest's memory (its page cache, requests on their way) and nothing else. A flush does not reach the
/// disk of this machine, whose power is not what is cut.
#[derive(Clone)]
pub struct Disk {
    /// Where the file is, and the folder that holds it if it is ours.
    path: PathBuf,
    _folder: Option<Arc<TempDir>>,
    wwn: u64,
    paths: u16,
    logical: u32,
    physical: u32,
    read_only: bool,
    virtio_blk: bool,
}

impl Disk {
    /// A new one of so many bytes, all zero, sparse: a SCSI disk with one path.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("vm-disk-").tempdir_in("/var/tmp").expect("a folder for a disk");
        let path = folder.path().join("disk");
        std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("making a disk");
        Self { _folder: Some(Arc::new(folder)), ..Self::on(&path) }
    }

    /// One on a file that is there already, and stays.
    pub fn on(file: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let wwn = 0x5000_c500_0000_0000 + NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            path: file.to_owned(),
            _folder: None,
            wwn,
            paths: 1,
            logical: 512,
            physical: 512,
            read_only: false,
            virtio_blk: false,
        }
    }

    /// With so many paths, 16 at most, each through an adapter of its own.
    #[must_use]
    pub fn paths(mut self, paths: u16) -> Self {
        assert!(paths <= 16, "a disk has at most 16 paths");
        self.paths = paths;
        self
    }

    /// With this world wide name (NAA 5, so its first digit is 5) instead of one that no other disk of this process has.
    #[must_use]
    pub fn wwn(mut self, wwn: u64) -> Self {
        self.wwn = wwn;
        self
    }

    /// With these logical and physical block sizes in bytes.
    #[must_use]
    pub fn blocks(mut self, logical: u32, physical: u32) -> Self {
        (self.logical, self.physical) = (logical, physical);
        self
    }

    /// Only to be read.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// As a virtio block device, `/dev/vdX`, instead of a SCSI disk.
    #[must_use]
    pub fn virtio_blk(mut self) -> Self {
        self.virtio_blk = true;
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name multipath knows it by.
    pub fn wwid(&self) -> String {
        format!("3{:016x}", self.wwn)
    }

    /// How many paths a guest has to it.
    pub(crate) fn count(&self) -> u16 {
        self.paths
    }

    /// Whether it is a virtio block device.
    pub(crate) fn is_virtio_blk(&self) -> bool {
        self.virtio_blk
    }

    /// QEMU's options, as the `index`th disk.
    pub(crate) fn arguments(&self, index: usize) -> Vec<String> {
        let path = self.path.display().to_string().replace(',', ",,");
        let blockdev = format!(
            "driver=raw,node-name=disk{index},read-only={},discard=unmap,file.driver=file,file.filename={path},\
             file.locking=off,cache.direct=off,cache.no-flush=on",
            if self.read_only { "on" } else { "off" }
        );
        let mut arguments = vec!["-blockdev".into(), blockdev];
        let mut device = |device: String| arguments.extend(["-device".into(), device]);
        if self.virtio_blk {
            let serial = &self.wwid()[1..];
            device(format!("virtio-blk-ccw,id=disk{index},drive=disk{index},serial={serial},{}", self.block_sizes()));
            return arguments;
        }
        for path in 0..self.paths {
            let number = Self::adapter(index, path).replacen('0', "fe", 1);
            device(format!("virtio-scsi-ccw,id=hba{index}-{path},devno={number}"));
            // The same JSON that brings a path back.
            device(Value::Object(self.scsi(index, path)).to_string());
        }
        arguments
    }

    /// The properties of one path's SCSI disk.
    pub(crate) fn scsi(&self, index: usize, path: u16) -> Map<String, Value> {
        let properties = json!({
            "driver": "scsi-hd",
            "id": Self::id(index, path),
            "bus": Self::bus(index, path),
            "drive": format!("disk{index}"),
            "share-rw": true,
            "wwn": self.wwn,
            "serial": format!("{:016x}", self.wwn),
            "logical_block_size": self.logical,
            "physical_block_size": self.physical,
        });
        properties.as_object().cloned().unwrap_or_default()
    }

    /// QEMU's name of one path's SCSI disk.
    pub(crate) fn id(index: usize, path: u16) -> String {
        format!("disk{index}-path{path}")
    }

    /// QEMU's name of the bus of one path's adapter.
    pub(crate) fn bus(index: usize, path: u16) -> String {
        format!("hba{index}-{path}.0")
    }

    /// The device number of one path's adapter, as the guest sees it. (QEMU calls that subchannel set `fe.0`.)
    pub(crate) fn adapter(index: usize, path: u16) -> String {
        format!("0.0.{:04x}", 0x1000 + index * 0x10 + usize::from(path))
    }

    fn block_sizes(&self) -> String {
        format!("logical_block_size={},physical_block_size={}", self.logical, self.physical)
    }
}
