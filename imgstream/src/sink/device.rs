//! One device or file of a target: opened exclusively, checked, read, zeroed, flushed.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::facts::{self, Facts, FileKind};
use super::interlock::{self, Host};
use super::outstanding::{Operation, Outstanding};
use super::target::ZeroPolicy;
use crate::buffer::ALIGNMENT;
use crate::error::{Error, IoContext, Kind, Result, Retry};
use crate::size::Size;

/// A block that O_DIRECT accepts, of zeros at first.
#[repr(align(4096))]
struct AlignedBlock([u8; ALIGNMENT]);

impl Default for AlignedBlock {
    fn default() -> Self {
        AlignedBlock([0; ALIGNMENT])
    }
}

/// How to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Go through the page cache even where O_DIRECT works.
    pub buffered: bool,
    /// Create a regular file where nothing is.
    pub create: bool,
    /// Length of the image that will be written, in bytes: a created file's length.
    pub raw_size: u64,
}

/// An open device that is ours alone.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    facts: Facts,
    direct: bool,
    alignment: usize,
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
        if fresh && lies_below_dev(path) {
            // A mistyped device would become a file in memory, and writing it would "succeed".
            return Err(Error::target(format!("{name} does not exist")).with_hint("lsblk lists this machine's devices"));
        }
        let checked = if fresh { None } else { Some(check_before_open(path)?) };
        let options = OpenOptions { buffered: options.buffered || padding_would_hurt(path, options), ..options };
        let (file, direct) = open_file(path, options, fresh)?;
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
            fresh,
            zeroes_unsupported: AtomicBool::new(false),
            outstanding: Outstanding::default(),
        };
        device.find_alignment()?;
        device.check_writable()?;
        Ok(device)
    }

    /// Checks that an image of `raw_size` bytes built for sectors of `sector_size` fits.
    ///
    /// # Errors
    /// [`Kind::Target`] with both numbers.
    pub fn check_fits(&self, raw_size: u64, sector_size: u32) -> Result<()> {
        let name = self.name();
        if self.facts.size < raw_size {
            return Err(Error::target(format!(
                "{name} holds {} bytes, the image needs {raw_size}: {} are missing",
                self.facts.size,
                Size(raw_size - self.facts.size)
            ))
            .with_hint("use a larger device"));
        }
        if self.facts.kind == FileKind::Block && self.facts.sector_size != sector_size {
            return Err(Error::target(format!(
                "{name} has sectors of {} bytes, the image was built for {sector_size}",
                self.facts.sector_size
            ))
            .with_hint("its partition table and file systems would be unreadable there: use an image built for this sector size"));
        }
        Ok(())
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
        let zeros = AlignedBlock::default();
        let end = offset + len.next_multiple_of(self.alignment as u64);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ALIGNMENT as u64);
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
            let mut block = AlignedBlock::default();
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

    /// Cuts a regular file back to its length, after a padded last write made it longer. Devices keep their size.
    ///
    /// # Errors
    /// [`Kind::Device`].
    pub fn trim_padding(&self) -> Result<()> {
        if self.facts.kind == FileKind::Regular && self.file.metadata().is_ok_and(|now| now.len() > self.facts.size) {
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

/// Whether O_DIRECT's padding after the image would overwrite what follows it in a longer regular file.
fn padding_would_hurt(path: &Path, options: OpenOptions) -> bool {
    let longer = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > options.raw_size);
    longer && !options.raw_size.is_multiple_of(ALIGNMENT as u64)
}

/// Whether a file made at `path` would be one among the devices, however the path is spelled.
fn lies_below_dev(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.starts_with("/dev") || parent.canonicalize().is_ok_and(|parent| parent.starts_with("/dev"))
}

/// The interlocks. Returns the device number that was checked; 0 for a regular file.
fn check_before_open(path: &Path) -> Result<u64> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(path).context(Kind::Target, || format!("looking at {}", path.display()))?;
    if metadata.file_type().is_block_device() {
        Host::default().check(&path.display().to_string(), &interlock::number_text(metadata.rdev()))?;
        return Ok(metadata.rdev());
    }
    if !metadata.file_type().is_file() {
        return Err(Error::target(format!("{} is neither a block device nor a regular file", path.display())));
    }
    Host::default().check_file(path)?;
    Ok(0)
}

/// Opens with O_EXCL (on a block device: nobody else has it mounted, mapped or open exclusively), with O_DIRECT where it works.
fn open_file(path: &Path, options: OpenOptions, fresh: bool) -> Result<(File, bool)> {
    let is_block = !fresh && !path.is_file();
    let open = |flags: i32| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(fresh)
            .custom_flags(flags | libc::O_CLOEXEC | if is_block { libc::O_EXCL } else { 0 })
            .open(path)
    };
    let opened = match (options.buffered, fresh) {
        (true, _) => open(0).map(|file| (file, false)),
        // O_DIRECT refused on a new file would leave it behind; so create it first and ask again.
        (false, true) => open(0).map(|file| {
            let direct = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
                .open(path);
            direct.map_or((file, false), |file| (file, true))
        }),
        (false, false) => match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0).map(|file| (file, false)),
            other => other.map(|file| (file, true)),
        },
    };
    opened.map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::EBUSY) => "somebody else uses it: find out with lsblk and fuser",
            Some(libc::EACCES | libc::EPERM) => "run as root, or as a user who may write this device",
            Some(libc::EROFS) => "it is read-only: make it writable first",
            _ => "check the path",
        };
        let retry = if error.raw_os_error() == Some(libc::EBUSY) { Retry::Temporary } else { Retry::Permanent };
        Error::target(format!("opening {} for writing: {error}", path.display()))
            .with_source(error)
            .with_retry(retry)
            .with_hint(hint)
    })
}
