//! One device or file of a target: opened exclusively, checked, read, zeroed, flushed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::facts::{self, Facts, FileKind};
use super::open::{self, OpenOptions};
use super::outstanding::{Operation, Outstanding};
use super::target::ZeroPolicy;
use crate::buffer::ALIGNMENT;
use crate::error::{Error, IoContext, Kind, Result, Retry};
use crate::size::Size;

/// Bytes that O_DIRECT accepts, zeros at first.
#[repr(align(4096))]
struct Aligned<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Default for Aligned<LEN> {
    fn default() -> Self {
        Aligned([0; LEN])
    }
}

/// Zeros that are written at once where no engine does it. They lie on the stack.
const ZEROS: usize = 64 << 10;

/// An open device that is ours alone.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    facts: Facts,
    direct: bool,
    alignment: usize,
    largest_write: Option<usize>,
    fresh: bool,
    zeroes_unsupported: AtomicBool,
    outstanding: Outstanding,
}

impl Device {
    /// Opens `path` for writing, exclusively, after the interlocks.
    ///
    /// # Errors
    /// [`Kind::Target`] naming what stands against it.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let name = path.display();
        let fresh = options.create && !path.exists();
        let checked = if fresh { open::check_name(path).map(|()| None)? } else { Some(open::check(path)?) };
        let (file, direct) = open::open_file(path, options, fresh)?;
        let facts = facts::of(&file).context(Kind::Target, || format!("asking what {name} is"))?;
        // A link under /dev/disk may have been pointed elsewhere since the interlocks looked.
        if checked.is_some_and(|checked| checked != facts.number) {
            return Err(Error::target(format!("{name} became another device while it was opened"))
                .with_retry(Retry::Temporary)
                .with_hint("something changes the names of devices right now: run again when it is quiet"));
        }
        if facts.kind == FileKind::Regular {
            // The lock belongs to the open file, so it is held until the last descriptor of it is closed.
            file.try_lock().map_err(|_| {
                Error::target(format!("another process writes to {name}"))
                    .with_retry(Retry::Temporary)
                    .with_hint("wait for it, or stop it")
            })?;
        }
        if fresh {
            let len = options.raw_size;
            file.set_len(len).context(Kind::Target, || format!("giving {name} its {}", Size(len)))?;
        }
        let mut device = Device {
            file,
            path: path.to_owned(),
            facts: Facts { size: if fresh { options.raw_size } else { facts.size }, ..facts },
            direct,
            alignment: 1,
            largest_write: None,
            fresh,
            zeroes_unsupported: AtomicBool::new(false),
            outstanding: Outstanding::default(),
        };
        device.find_alignment()?;
        device.check_writable()?;
        Ok(device)
    }

    /// Has no write to it be longer than `bytes`, rounded down to whole blocks. Before Linux 6.11 dm-crypt encrypts a write on one
    /// core whatever its length; several shorter ones are encrypted on several.
    #[must_use]
    pub fn with_largest_write(mut self, bytes: usize) -> Self {
        self.largest_write = Some((bytes / self.alignment * self.alignment).max(self.alignment));
        self
    }

    /// Checks that it holds `needed` bytes and, where it is a block device, has sectors of `sector_size` bytes.
    ///
    /// # Errors
    /// [`Kind::Target`] with both numbers.
    pub fn check_fits(&self, needed: u64, sector_size: u32) -> Result<()> {
        self.check_size(needed)?;
        if self.facts.kind == FileKind::Block && self.facts.sector_size != sector_size {
            return Err(Error::target(format!(
                "{} has sectors of {} bytes, the image was built for {sector_size}",
                self.name(),
                self.facts.sector_size
            ))
            .with_hint("its partition table and file systems would be unreadable there: use an image built for this sector size"));
        }
        Ok(())
    }

    pub(super) fn check_size(&self, needed: u64) -> Result<()> {
        if self.facts.size >= needed {
            return Ok(());
        }
        Err(Error::target(format!(
            "{} holds {} bytes, the image needs {needed}: {} are missing",
            self.name(),
            self.facts.size,
            Size(needed - self.facts.size)
        ))
        .with_hint("use a larger device"))
    }

    /// Its path as text.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What the kernel said about it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether it was created just now, so that it holds nobody's old content.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether writes bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Offsets and lengths of writes must be multiples of this; a power of two of at most [`ALIGNMENT`].
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// The longest that a write to it may be; any where that was not set.
    pub fn largest_write(&self) -> Option<usize> {
        self.largest_write
    }

    /// What it has been asked and has not answered.
    pub fn outstanding(&self) -> &Outstanding {
        &self.outstanding
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Reads `into` from the media; its length must be a multiple of the alignment. Only the first `needed` bytes have to
    /// be there: the padding after the end of a file may be missing.
    ///
    /// # Errors
    /// [`Kind::Device`] with device, offset, length and errno.
    pub fn read(&self, offset: u64, into: &mut [u8], needed: usize) -> Result<()> {
        let _waiting = self.outstanding.during(Operation::Read, offset, needed as u64);
        let mut done = 0;
        while done < needed {
            let outcome = match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other,
            };
            done += outcome.device(|| format!("reading {needed} bytes at offset {offset} of {}", self.name()))?;
        }
        Ok(())
    }

    /// Zeroes a range by a means the kernel guarantees. `false` when there is none here: then it must be written.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn zero_out(&self, offset: u64, len: u64) -> Result<bool> {
        if self.zeroes_unsupported.load(Relaxed) {
            return Ok(false);
        }
        let _waiting = self.outstanding.during(Operation::Zero, offset, len);
        match facts::punch(&self.file, offset, len) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                tracing::debug!(device = %self.path.display(), "no zeroing without writing here");
                self.zeroes_unsupported.store(true, Relaxed);
                Ok(false)
            }
            Err(error) => Err(error).device(|| format!("zeroing {len} bytes at offset {offset} of {}", self.name())),
        }
    }

    /// Makes a range read as zeros, by the device where `policy` and device allow it, else by plain writes. For the few
    /// ranges that matter even when the write engine has failed.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn force_zeros(&self, offset: u64, len: u64, policy: ZeroPolicy) -> Result<()> {
        if policy == ZeroPolicy::Device && self.zero_out(offset, len)? {
            return Ok(());
        }
        let _waiting = self.outstanding.during(Operation::Zero, offset, len);
        let zeros = Aligned::<ZEROS>::default();
        let end = offset + len.next_multiple_of(self.alignment as u64);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS as u64);
            self.file
                .write_all_at(&zeros.0[..step as usize], at)
                .device(|| format!("zeroing {len} bytes at offset {offset} of {}", self.name()))?;
            at += step;
        }
        Ok(())
    }

    /// Tells the device that a range is not needed any more; `false` when it knows no such thing. What is read there
    /// afterwards is the device's choice.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn discard(&self, offset: u64, len: u64) -> Result<bool> {
        let _waiting = self.outstanding.during(Operation::Zero, offset, len);
        match facts::discard(&self.file, self.facts.kind, offset, len) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error).device(|| format!("discarding {len} bytes at offset {offset} of {}", self.name())),
        }
    }

    /// Writes a few bytes anywhere, keeping what else lies in the blocks they touch.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let block_len = ALIGNMENT as u64;
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let start = at / block_len * block_len;
            let here = (self.facts.size - start).min(block_len) as usize;
            let mut block = Aligned::<ALIGNMENT>::default();
            let padded = here.next_multiple_of(self.alignment);
            self.read(start, &mut block.0[..padded], here)?;
            let upto = end.min(start + block_len);
            let new = &bytes[(at - offset) as usize..(upto - offset) as usize];
            block.0[(at - start) as usize..(upto - start) as usize].copy_from_slice(new);
            let _waiting = self.outstanding.during(Operation::Write, start, padded as u64);
            self.file
                .write_all_at(&block.0[..padded], start)
                .device(|| format!("writing {} bytes at offset {offset} of {}", bytes.len(), self.name()))?;
            at = upto;
        }
        Ok(())
    }

    /// Makes the kernel see the partitions that the device holds now. `Ok(false)` where it shows none at all.
    ///
    /// # Errors
    /// [`Kind::Device`] while one of the old partitions is in use.
    pub fn reread_partitions(&self) -> Result<bool> {
        if self.facts.kind == FileKind::Regular {
            return Ok(false);
        }
        match facts::reread_partitions(&self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error).device(|| format!("reading the partition table of {} again", self.name())),
        }
    }

    /// Makes the device write back its cache, and forgets what the page cache holds, so that a read asks the media.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn flush(&self) -> Result<()> {
        let _waiting = self.outstanding.during(Operation::Flush, 0, 0);
        self.file.sync_all().device(|| format!("flushing {}", self.name()))?;
        if !self.direct {
            let _ = nix::fcntl::posix_fadvise(&self.file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    /// Whether a padded last write made a regular file longer than it was. Devices keep their size.
    pub fn is_padded(&self) -> bool {
        self.facts.kind == FileKind::Regular && self.file.metadata().is_ok_and(|now| now.len() > self.facts.size)
    }

    /// Cuts a regular file back to its length, where [`Device::is_padded`].
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn trim_padding(&self) -> Result<()> {
        if self.is_padded() {
            let _waiting = self.outstanding.during(Operation::Flush, 0, 0);
            self.file.set_len(self.facts.size).device(|| format!("cutting {} to its length", self.name()))?;
            self.file.sync_all().device(|| format!("flushing {}", self.name()))?;
        }
        Ok(())
    }

    /// Whether the range is a hole of a regular file, which reads as zeros by the file system's word.
    pub fn is_hole(&self, offset: u64, len: u64) -> bool {
        facts::is_hole(&self.file, self.facts.kind, offset, len)
    }

    fn find_alignment(&mut self) -> Result<()> {
        self.alignment = match (self.direct, self.facts.kind) {
            (false, _) => 1,
            (true, FileKind::Block) => self.facts.sector_size as usize,
            (true, FileKind::Regular) => facts::direct_alignment(&self.file).map_or(ALIGNMENT, |align| align as usize),
        };
        // Zero is the kernel's way to say that this file has no O_DIRECT after all.
        if self.alignment == 0 {
            (self.direct, self.alignment) = (false, 1);
        }
        if !self.alignment.is_power_of_two() || self.alignment > ALIGNMENT {
            return Err(Error::target(format!(
                "{} needs blocks of {} bytes, more than {ALIGNMENT}",
                self.name(),
                self.alignment
            )));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.facts.read_only {
            return Err(Error::target(format!("{} is read-only", self.name()))
                .with_hint("make it writable (blockdev --setrw, or the storage server's setting)"));
        }
        Ok(())
    }
}
