//! A copy of a container's header, out of reach of whoever can write to the storage: what was compared is what is opened, and what
//! lies on the media at the end is compared with it once more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use imgstream::buffer::Pool;
use imgstream::digest::Digest;
use imgstream::error::{Error, IoContext, Kind, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A copy of a header in memory.
#[derive(Debug)]
pub(super) struct Copy {
    file: File,
    header: Header,
}

impl Copy {
    /// Copies the first `bytes` of a device, which its header takes.
    ///
    /// # Errors
    /// [`Kind::Device`] when it cannot be read.
    pub(super) fn of(device: &Path, bytes: usize) -> Result<Self> {
        let header = read(device, bytes)?;
        let making = || "making a file in memory for a LUKS2 header".into();
        // Tools inherit it: they are given its number.
        let mut file: File = memfd_create(c"luks2-header", MFdFlags::empty()).device(making)?.into();
        file.write_all(&header).device(making)?;
        Ok(Copy { file, header: Header { bytes, digest: Digest::of(&header) } })
    }

    /// Where a tool that we start finds it.
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string())
    }

    /// What it is.
    pub(super) fn header(&self) -> Header {
        self.header.clone()
    }
}

/// What a header was when it was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    bytes: usize,
    digest: Digest,
}

impl Header {
    /// Compares what lies at the start of a device now. For a thread that may wait.
    ///
    /// # Errors
    /// [`Kind::Proof`] when it is something else; [`Kind::Device`] when it cannot be read.
    pub fn prove(&self, device: &Path) -> Result<()> {
        if Digest::of(&read(device, self.bytes)?) == self.digest {
            return Ok(());
        }
        let message = format!("the LUKS2 header on {} is not the one that was compared and opened", device.display());
        Err(Error::proof(message).with_hint(
            "somebody else writes to this LUN: find out who before anything else; the disk must not be started from",
        ))
    }
}

/// The media's bytes, not a cache's.
pub(super) fn read(device: &Path, bytes: usize) -> Result<Vec<u8>> {
    let reading = || format!("reading the LUKS2 header on {}", device.display());
    let pool = Pool::new(1, bytes).device(reading)?;
    let mut header = pool.acquire().ok_or_else(|| Error::new(Kind::Device, reading()))?;
    let device = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device).device(reading)?;
    device.read_exact_at(&mut header[..bytes], 0).device(reading)?;
    Ok(header[..bytes].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_stays_and_a_header_that_became_another_is_no_proof() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let disk = dir.path().join("disk");
        let (mut content, bytes) = (vec![7; 32 << 10], 16 << 10);
        std::fs::write(&disk, &content).unwrap();
        let copy = Copy::of(&disk, bytes).unwrap();
        copy.header().prove(&disk).unwrap();
        content[bytes] ^= 1;
        std::fs::write(&disk, &content).unwrap();
        copy.header().prove(&disk).unwrap();
        content[bytes - 1] ^= 1;
        std::fs::write(&disk, &content).unwrap();
        assert_eq!(copy.header().prove(&disk).unwrap_err().kind(), Kind::Proof);
        // A child finds it by the same number.
        let seen = std::process::Command::new("cat").arg(copy.path()).output().unwrap();
        assert_eq!(seen.stdout, [7].repeat(bytes));
        assert!(Copy::of(&dir.path().join("none"), bytes).is_err());
    }
}
