//! Raw images with a partition that is to be encrypted: GPT, a clear partition `boot`, and `root` with a real file system.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::command::Run;
use crate::lab::Lab;
use crate::sample::{noise, sparse};
use crate::{KIB, Loop, MIB};

/// A file system, made by its own tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, without a journal.
    Ext2,
    /// ext4.
    Ext4,
    /// XFS, which is never smaller than 300 MiB.
    Xfs,
    /// btrfs, with data and metadata mixed, so that it can be small.
    Btrfs,
}

/// A raw image.
pub struct Disk {
    /// Its file.
    pub raw: PathBuf,
    /// The bytes of `root`, which is partition 2.
    pub root: Range<u64>,
    /// Its length in bytes.
    pub size: u64,
    /// Its sectors' length in bytes.
    pub sector: u64,
}

/// Where `root` begins.
const ROOT: u64 = 3 * MIB;

impl Disk {
    /// With a `root` of so many bytes, and in it a file system of so many, with these files in it where it can have them.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(lab: &Lab, kind: FileSystem, partition: u64, bytes: u64) -> Self {
        Self::of_sectors(lab, 512, kind, partition, bytes)
    }

    /// The same with sectors of another length.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn of_sectors(lab: &Lab, sector: u64, kind: FileSystem, partition: u64, bytes: u64) -> Self {
        let disk = Self::empty(lab, sector, partition);
        let (tree, made) = (lab.fresh_dir("tree"), lab.fresh("filesystem"));
        std::fs::write(tree.join("noise"), noise(31, 300 * KIB as usize)).expect("writing a file");
        std::fs::write(tree.join("text"), "what is to be found again\n".repeat(1000)).expect("writing a file");
        sparse(&made, bytes);
        let blocks = format!("{}k", bytes / KIB);
        match kind {
            FileSystem::Ext2 | FileSystem::Ext4 => {
                let kind = if kind == FileSystem::Ext2 { "ext2" } else { "ext4" };
                Run::tool("mke2fs")
                    .words("-q -F -b 4096 -t")
                    .arg(kind)
                    .arg("-d")
                    .args([&tree, &made])
                    .arg(blocks)
                    .done()
            }
            FileSystem::Xfs => Run::tool("mkfs.xfs").arg("-q").arg(&made).done(),
            FileSystem::Btrfs => Run::tool("mkfs.btrfs")
                .words("-q --mixed --rootdir")
                .arg(&tree)
                .arg("-b")
                .arg(bytes.to_string())
                .arg(&made)
                .done(),
        }
        .ok();
        let place = (disk.root.start / MIB).to_string();
        let copy = Run::tool("dd").words("bs=1M conv=sparse,notrunc status=none");
        copy.arg(format!("if={}", made.display()))
            .arg(format!("of={}", disk.raw.display()))
            .arg(format!("seek={place}"))
            .done()
            .ok();
        disk
    }

    /// With nothing in `root`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn empty(lab: &Lab, sector: u64, partition: u64) -> Self {
        let raw = lab.fresh("disk");
        let root = ROOT..ROOT + partition;
        let size = (root.end + 40 * sector).next_multiple_of(MIB) + 7 * sector;
        sparse(&raw, size);
        let row = |start: u64, len: u64, name: &str| {
            format!("start={}, size={}, name={name}\n", start / sector, len / sector)
        };
        let table = format!("label: gpt\n{}{}", row(MIB, 2 * MIB, "boot"), row(root.start, partition, "root"));
        let script = lab.file("table", table.as_bytes());
        let sfdisk = |onto: &Path| {
            let script = File::open(&script).expect("the script");
            Run::tool("sfdisk").words("--quiet --no-reread --no-tell-kernel").arg(onto).stdin(script).done().ok()
        };
        if sector == 512 {
            sfdisk(&raw);
        } else {
            let device = Loop::attach_with(&raw, &format!("--sector-size {sector}"));
            sfdisk(device.path());
            Run::tool("sync").arg(device.path()).done().ok();
        }
        let disk = Disk { raw, root, size, sector };
        disk.put(MIB, &noise(32, MIB as usize));
        disk
    }

    /// Writes bytes at a raw offset.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let raw = File::options().write(true).open(&self.raw).expect("opening a disk");
        raw.write_all_at(bytes, at).expect("writing to a disk");
    }

    /// Its bytes.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.raw).expect("reading a disk")
    }
}
