//! The raw disk images the demo streams: a real Debian for s390x, or a small one for a first look.

mod chroot;
mod debian;
mod disk;
mod quick;
mod zipl;

use std::path::PathBuf;

use crate::fail::Outcome;

pub use debian::pack_options as split_pack_options;
pub use disk::{EPOCH, used};

/// Which image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian for s390x: kernel, systemd, boot record. Minutes to build.
    Debian,
    /// The same with a root that belongs inside LUKS (`split_pack_options`), and an initramfs that asks for the passphrase.
    DebianSplit,
    /// One ext4 with files of this machine. Seconds to build.
    Quick,
}

/// The raw image, from the cache, or built now.
pub fn raw(kind: Kind, again: bool) -> Outcome<PathBuf> {
    let file = match kind {
        Kind::Debian => debian::PLAIN,
        Kind::DebianSplit => debian::SPLIT,
        Kind::Quick => "disk.img",
    };
    let folder = match kind {
        Kind::Debian | Kind::DebianSplit => crate::cache::entry("debian-s390x", &debian::recipe(), again, |half| {
            eprintln!("building Debian disk images for s390x (once; 2 to 5 minutes, about 0.7 GB of disk)");
            debian::build(half)
        })?,
        Kind::Quick => crate::cache::entry("quick", &quick::recipe(), again, |half| quick::build(half, file))?,
    };
    Ok(folder.join(file))
}
