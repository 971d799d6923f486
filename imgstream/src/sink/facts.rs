//! What the kernel says about an open file or block device: size, sector, read-only. System calls only; no judgement.
#![allow(unsafe_code)] // ioctl and statx; each block says why it is sound.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

mod ioctl {
    #![allow(missing_docs)]
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_read_bad!(blkroget, 0x125e, libc::c_int);
    nix::ioctl_none_bad!(blkrrpart, 0x125f);
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
}

/// What kind of thing a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    Block,
}

/// Facts about an open target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Regular file or block device.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Logical sector size in bytes; 1 for a regular file, which has none.
    pub sector_size: u32,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// Device number of a block device (`st_rdev`).
    pub number: u64,
}

/// Asks the kernel about `file`.
///
/// # Errors
/// Those of the system calls; `InvalidInput` when it is neither a regular file nor a block device.
pub fn of(file: &File) -> io::Result<Facts> {
    let metadata = file.metadata()?;
    if metadata.file_type().is_file() {
        return Ok(Facts {
            kind: FileKind::Regular,
            size: metadata.len(),
            sector_size: 1,
            read_only: false,
            number: 0,
        });
    }
    if !metadata.file_type().is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a regular file nor a block device"));
    }
    let (mut size, mut sector, mut read_only) = (0u64, 0, 0);
    // SAFETY: the three requests write one u64 or one int through a valid pointer to just that.
    unsafe {
        ioctl::blkgetsize64(file.as_raw_fd(), &raw mut size)?;
        ioctl::blksszget(file.as_raw_fd(), &raw mut sector)?;
        ioctl::blkroget(file.as_raw_fd(), &raw mut read_only)?;
    }
    let sector_size = u32::try_from(sector).map_err(io::Error::other)?;
    Ok(Facts { kind: FileKind::Block, size, sector_size, read_only: read_only != 0, number: metadata.rdev() })
}

/// The alignment O_DIRECT needs on a regular file's offsets and lengths, where the kernel (6.1 and later) says it.
/// `Some(0)` means the file does not take O_DIRECT.
pub fn direct_alignment(file: &File) -> Option<u32> {
    // SAFETY: statx fills the zeroed structure it is given; the empty path with AT_EMPTY_PATH means the descriptor itself.
    let (answer, facts) = unsafe {
        let mut facts: libc::statx = std::mem::zeroed();
        let answer =
            libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut facts);
        (answer, facts)
    };
    (answer == 0 && facts.stx_mask & libc::STATX_DIOALIGN != 0).then_some(facts.stx_dio_offset_align)
}

/// Zeroes a range by a means the kernel guarantees and that never falls back to slow writing: a punched hole.
/// On a block device this is a discard or write-same that is known to read as zeros afterwards.
///
/// # Errors
/// `Unsupported` when the device or file system has no such means.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    fallocate(file, flags, signed(offset)?, signed(len)?).map_err(|errno| match errno {
        nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS | nix::errno::Errno::EINVAL => {
            io::ErrorKind::Unsupported.into()
        }
        other => other.into(),
    })
}

/// Tells a block device that nobody needs a range any more. What it reads as afterwards is the device's choice.
///
/// # Errors
/// `Unsupported` when the device has no such means.
pub fn discard(file: &File, kind: FileKind, offset: u64, len: u64) -> io::Result<()> {
    if kind == FileKind::Regular {
        return punch(file, offset, len);
    }
    let range = [offset, len];
    // SAFETY: the request reads two u64, offset and length, through a valid pointer.
    match unsafe { ioctl::blkdiscard(file.as_raw_fd(), &raw const range) } {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::EOPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the kernel read a block device's partition table again.
///
/// # Errors
/// `Unsupported` on a device that shows no partitions, `ResourceBusy` while one of the old ones is in use.
pub fn reread_partitions(file: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    match unsafe { ioctl::blkrrpart(file.as_raw_fd()) } {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOTTY) => Err(io::ErrorKind::Unsupported.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the range is a hole of a regular file: its file system says that nothing was ever written there, so it reads as
/// zeros. Never for anything else, which cannot say so.
pub fn is_hole(file: &File, kind: FileKind, offset: u64, len: u64) -> bool {
    use nix::unistd::{Whence, lseek};
    if kind != FileKind::Regular {
        return false;
    }
    let Ok(from) = i64::try_from(offset) else {
        return false;
    };
    match lseek(file, from, Whence::SeekData) {
        Ok(data) => data as u64 >= offset + len,
        // No data from here to the end: a hole, unless the file has become shorter than that.
        Err(errno) => errno == nix::errno::Errno::ENXIO && file.metadata().is_ok_and(|now| now.len() >= offset + len),
    }
}
