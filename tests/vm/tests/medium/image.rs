//! Images that machines are given, packed, and on a disk that a gateway serves them from.

use std::path::{Path, PathBuf};

use e2e::{Image, Lab, Run, sample};
use tempfile::TempDir;
use vm::{Disk, MIB};

/// An image, and the disk with its layout.
pub struct Packed {
    pub raw: PathBuf,
    pub size: u64,
    pub image: Image,
    pub disk: Disk,
    _lab: Lab,
    _folder: TempDir,
}

impl Packed {
    /// The sample disk, which nothing boots from: a GPT, an ext4 with files, noise.
    pub fn sample() -> Self {
        Self::of(&sample::disk(512), "--chunk-size 512KiB")
    }

    /// Packs a raw image with these options.
    pub fn of(raw: &Path, options: &str) -> Self {
        let lab = Lab::new();
        let image = lab.pack(raw, options);
        let folder = tempfile::Builder::new().prefix("vm-image-").tempdir_in("/var/tmp").unwrap();
        let file = folder.path().join("served");
        let used: u64 =
            Run::tool("du").words("-sb").arg(&image.dir).text().split_whitespace().next().unwrap().parse().unwrap();
        let size = format!("{}M", used / MIB + used / MIB / 8 + 16);
        Run::tool("mke2fs").words("-q -t ext4 -O ^has_journal -d").arg(&image.dir).arg(&file).arg(&size).done().ok();
        Self {
            raw: raw.to_owned(),
            size: std::fs::metadata(raw).unwrap().len(),
            disk: Disk::on(&file).virtio_blk().read_only(),
            image,
            _lab: lab,
            _folder: folder,
        }
    }
}
