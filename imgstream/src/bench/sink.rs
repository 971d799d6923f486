//! Where the benchmark writes: nowhere, a file, a device. Each run opens it anew, interlocks and all.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio_util::sync::CancellationToken;

use super::findings;
use crate::error::{IoContext, Kind, Result};
use crate::sink::engine::{self, Parts, Started};
use crate::sink::facts::FileKind;
use crate::sink::{Device, EngineChoice, EngineKind, OpenOptions, Target, null, open_patiently};

/// A sink.
#[derive(Debug)]
pub struct Sink {
    place: Place,
    sector_size: u32,
    name: String,
    largest_write: Option<usize>,
}

#[derive(Debug)]
enum Place {
    /// A file in memory of the image's length that nothing is ever written to; it stands for a device.
    Null(File),
    /// A block device, or a file that was there.
    Path(PathBuf),
    /// A file that was made for the benchmark, and goes with it.
    Made(PathBuf),
}

impl Sink {
    /// No device: writes are done at once.
    ///
    /// # Errors
    /// When the kernel gives no file in memory.
    pub fn null() -> Result<Self> {
        let file = memfd_create(c"imgstream-null", MFdFlags::MFD_CLOEXEC);
        let file = file.device(|| "making the null sink's file in memory".into())?.into();
        let name = "null: every write is done at once".into();
        Ok(Sink { place: Place::Null(file), sector_size: 512, name, largest_write: None })
    }

    /// A block device, or a file; a file that is not there is made with room for `size` bytes.
    ///
    /// # Errors
    /// [`Kind::Target`] naming what stands against it.
    pub async fn at(path: &Path, size: u64, cancel: &CancellationToken) -> Result<Self> {
        let options = OpenOptions { buffered: false, create: true, raw_size: size };
        let device = open_patiently(path, options, cancel).await?;
        let facts = *device.facts();
        let made = device.is_fresh();
        let place = if made { Place::Made(path.to_owned()) } else { Place::Path(path.to_owned()) };
        let sector_size = if facts.kind == FileKind::Block { facts.sector_size } else { 512 };
        let name = describe(path, facts.kind, facts.number);
        let sink = Sink { place, sector_size, name, largest_write: None };
        if made {
            drop(device);
            // Else the first run would be about finding room and the others about writing.
            allocate(path, size)?;
        }
        Ok(sink)
    }

    /// Cuts what is written into writes of at most so many bytes.
    #[must_use]
    pub fn with_largest_write(mut self, bytes: Option<usize>) -> Self {
        self.largest_write = bytes;
        self
    }

    /// The most bytes of one write, where that was limited.
    pub fn largest_write(&self) -> Option<usize> {
        self.largest_write
    }

    /// Logical sector size that an image for it has.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Whether it is a file that was made for the benchmark, so that nothing is lost.
    pub fn is_made(&self) -> bool {
        matches!(self.place, Place::Made(_))
    }

    /// As the findings have it.
    pub(super) fn finding(&self) -> findings::Sink {
        findings::Sink { name: self.name.clone(), is_real: self.is_real() }
    }

    /// Whether bytes reach a device.
    pub(super) fn is_real(&self) -> bool {
        !matches!(self.place, Place::Null(_))
    }

    /// As a target for an image of `raw_size` bytes that `engine` will write.
    pub(super) async fn target(
        &self,
        raw_size: u64,
        engine: EngineChoice,
        cancel: &CancellationToken,
    ) -> Result<Target> {
        self.target_of(1, raw_size, engine, cancel).await
    }

    /// The same with its map cut into so many extents.
    pub(super) async fn target_of(
        &self,
        extents: usize,
        raw_size: u64,
        engine: EngineChoice,
        cancel: &CancellationToken,
    ) -> Result<Target> {
        let buffered = engine == EngineChoice::Only(EngineKind::Buffered);
        let options = OpenOptions { buffered, create: false, raw_size };
        let device = match &self.place {
            Place::Null(file) => {
                file.set_len(raw_size).device(|| "giving the null sink its length".into())?;
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                open_patiently(Path::new(&path), OpenOptions { buffered: true, ..options }, cancel).await?
            }
            Place::Path(path) | Place::Made(path) => open_patiently(path, options, cancel).await?,
        };
        let device = self.largest_write.into_iter().fold(device, Device::with_largest_write);
        Ok(Target::in_pieces(device, raw_size, extents))
    }

    /// Starts the engine for it.
    pub(super) fn start(&self) -> fn(Parts) -> std::io::Result<Started> {
        if self.is_real() { engine::start } else { null::start }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Place::Made(path) = &self.place {
            let _ = fs::remove_file(path);
        }
    }
}

fn allocate(path: &Path, size: u64) -> Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let file =
        File::options().write(true).open(path).context(Kind::Target, || format!("opening {}", path.display()))?;
    let len = i64::try_from(size).unwrap_or(i64::MAX);
    match fallocate(&file, FallocateFlags::empty(), 0, len) {
        // A file system that knows no such thing finds room as it is written.
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => {
            drop(fs::remove_file(path));
            Err(errno).context(Kind::Target, || format!("getting room for {size} bytes in {}", path.display()))
        }
    }
}

/// A device and its model, or a file and its file system.
fn describe(path: &Path, kind: FileKind, number: u64) -> String {
    let shown = path.display();
    if kind == FileKind::Regular {
        let system = file_system(path).map_or_else(String::new, |system| format!(" on {system}"));
        return format!("file {shown}{system}");
    }
    let node = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number)));
    let read = |what: &str| fs::read_to_string(node.join(what)).ok().map(|text| text.trim().to_owned());
    let model = [read("device/vendor"), read("device/model"), read("dm/name")];
    let backing = read("loop/backing_file").map(|file| format!("loop on {file}"));
    let words: Vec<String> = model.into_iter().chain([backing]).flatten().filter(|text| !text.is_empty()).collect();
    let model = if words.is_empty() { String::new() } else { format!(" ({})", words.join(" ")) };
    let spins = if read("queue/rotational").as_deref() == Some("1") { ", rotational" } else { "" };
    format!("device {shown}{model}{spins}")
}

/// The type of the file system below `path`: `/proc/self/mountinfo`, the longest mount point that it lies below.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = text.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, system.split(' ').next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, system)| system.to_owned())
}
