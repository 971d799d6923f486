//! The raw disk images the demo streams: a real Debian for s390x, or a small one for a first look.

mod debian;
mod disk;
mod quick;
mod zipl;

use std::path::PathBuf;

use crate::fail::Outcome;

pub use disk::used;

/// Which image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian for s390x: kernel, systemd, boot record. Minutes to build.
    Debian,
    /// One ext4 with files of this machine. Seconds to build.
    Quick,
}

/// The raw image, from the cache, or built now.
pub fn raw(kind: Kind, again: bool) -> Outcome<PathBuf> {
    let file = "disk.img";
    let folder = match kind {
        Kind::Debian => crate::cache::entry("debian-s390x", &debian::recipe(), again, |half| {
            eprintln!("building a Debian disk image for s390x (once; 3 to 6 minutes, about 0.7 GB of disk)");
            debian::build(half, file)
        })?,
        Kind::Quick => crate::cache::entry("quick", &quick::recipe(), again, |half| quick::build(half, file))?,
    };
    Ok(folder.join(file))
}
