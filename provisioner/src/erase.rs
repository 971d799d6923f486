//! `z-provisioner erase`: makes a returned server's disk forget, and proves it.
//!
//! The keys go first, because with them goes everything that was encrypted: wherever a LUKS header is found, it and its key
//! slots are overwritten with zeros, flushed and read back. Then the whole disk is zeroed (by the device where the kernel
//! vouches for that, else by writing), flushed, and read back; or, when asked for, discarded, which proves nothing.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use imgstream::abort::Abort;
use imgstream::buffer::{ALIGNMENT, Pool};
use imgstream::error::{Error, IoContext, Kind, Result};
use imgstream::progress::{Phase, Progress, Snapshot};
use imgstream::readback;
use imgstream::sink::{Device, EngineChoice, OpenOptions, Target, Writer, ZeroPolicy, Zeroed, open_patiently};
use imgstream::size::Size;
use imgstream::watchdog::Watchdog;
use protocol::event::TailTreatment;
use tokio_util::sync::CancellationToken;

use crate::luks::probe;
use crate::report::Screen;

/// Writes in flight, and the size of each.
const DEPTH: usize = 8;
const WRITE: usize = 1 << 20;

/// How long nothing may move before that is warned of, and before it is given up.
const STALL_WARNING: Duration = Duration::from_secs(10);
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// How often is told how far it is.
const TELL: Duration = Duration::from_secs(5);

/// What was done to a disk.
#[derive(Debug, Clone)]
pub struct Erased {
    /// The disk.
    pub device: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// LUKS headers that were found and overwritten before anything else.
    pub luks_headers: usize,
    /// How the disk was treated.
    pub how: TailTreatment,
    /// Bytes read back and found zero: all, or after a discard the places of the headers.
    pub proven_bytes: u64,
    /// Seconds in all.
    pub seconds: f64,
}

/// Erases the disk `path`. With `discard` it is only told that nobody needs its blocks; the keys are overwritten all the same.
///
/// # Errors
/// `Target` when the interlocks refuse it, `Device` when it fails, `Proof` when it does not hold zeros afterwards, `Cancelled`.
pub async fn erase(path: &Path, discard: bool, progress: Arc<Progress>, cancel: &CancellationToken) -> Result<Erased> {
    let device = open_patiently(path, OpenOptions::default(), cancel).await?;
    let eraser = Eraser::new(device, progress, Abort::new(cancel))?;
    let (target, progress) = (Arc::clone(eraser.writer.target()), Arc::clone(&eraser.progress));
    let watchdog = Watchdog::new(progress, Vec::new(), Some(target), STALL_WARNING);
    let mut work = tokio::task::spawn_blocking(move || eraser.run(discard));
    tokio::select! {
        joined = &mut work => joined.map_err(|error| Error::device(format!("the erasing thread died: {error}")))?,
        stall = watchdog.stalled_for(STALL_LIMIT) => Err(stall.error().in_addition("the disk is erased in part")),
    }
}

/// [`erase`], telling on `screen` how far it is.
///
/// # Errors
/// Those of [`erase`].
pub async fn watched(path: &Path, discard: bool, screen: &Screen, cancel: &CancellationToken) -> Result<Erased> {
    let progress = Arc::new(Progress::default());
    let erasing = erase(path, discard, Arc::clone(&progress), cancel);
    let mut erasing = std::pin::pin!(erasing);
    let mut ticks = tokio::time::interval(TELL);
    ticks.tick().await;
    loop {
        tokio::select! {
            outcome = &mut erasing => return outcome,
            _ = ticks.tick() => screen.lines(&told(&progress.snapshot())),
        }
    }
}

fn told(now: &Snapshot) -> String {
    let (what, done) = match now.phase {
        Phase::Comparing => ("looking for keys", now.compared),
        Phase::Writing => ("erasing", now.zeroed),
        Phase::ReadingBack => ("reading back", now.read_back),
        _ => ("flushing", 0),
    };
    format!("{what}: {} of {}", Size(done), Size(now.raw_total))
}

impl Erased {
    /// For machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "erased",
            "device": self.device,
            "bytes": self.bytes,
            "luks_headers": self.luks_headers,
            "how": self.how,
            "proven_bytes": self.proven_bytes,
            "seconds": self.seconds,
        })
    }
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, proven) = (Size(self.bytes), Size(self.proven_bytes));
        writeln!(f, "erased: {}, {size}, in {:.1} s", self.device, self.seconds)?;
        writeln!(f, "  keys       {} LUKS headers, overwritten with their key slots first", self.luks_headers)?;
        match self.how {
            TailTreatment::Discarded => {
                write!(
                    f,
                    "  proof      NONE but for the keys ({proven} read back as zeros): the disk was only told to discard"
                )
            }
            _ => write!(f, "  proof      {proven} read back as zeros; {}", self.how),
        }
    }
}

struct Eraser {
    writer: Writer,
    pool: Arc<Pool>,
    progress: Arc<Progress>,
    abort: Abort,
    size: u64,
}

impl Eraser {
    fn new(device: Device, progress: Arc<Progress>, abort: Abort) -> Result<Self> {
        let size = device.facts().size;
        let pool = Pool::new(2 * DEPTH, WRITE).context(Kind::Device, || "getting buffers".into())?;
        let target = Arc::new(Target::single(device, size));
        let writer = Writer::start(EngineChoice::Auto, target, &pool, DEPTH, Arc::clone(&progress))?;
        progress.raw_total.store(size, Relaxed);
        Ok(Eraser { writer, pool, progress, abort, size })
    }

    fn run(&self, discard: bool) -> Result<Erased> {
        let start = Instant::now();
        self.progress.enter(Phase::Comparing);
        let keys = self.key_areas()?;
        self.progress.enter(Phase::Invalidating);
        let mut proven_bytes = self.overwrite(&keys)?;
        self.progress.enter(Phase::Writing);
        let how = if discard { self.discard()? } else { self.zero()? };
        self.progress.enter(Phase::Flushing);
        self.device().flush()?;
        if !discard {
            self.progress.enter(Phase::ReadingBack);
            proven_bytes = self.prove(std::slice::from_ref(&(0..self.size)))?;
        }
        self.device().trim_padding()?;
        if let Err(error) = self.device().reread_partitions() {
            tracing::warn!("{error}; the kernel shows the old partitions until partprobe or a reboot");
        }
        self.progress.enter(Phase::Done);
        let seconds = start.elapsed().as_secs_f64();
        let luks_headers = keys.len();
        Ok(Erased { device: self.device().name(), bytes: self.size, luks_headers, how, proven_bytes, seconds })
    }

    fn device(&self) -> &Device {
        &self.writer.target().devices()[0]
    }

    /// Where LUKS headers lie, with the key slots behind them.
    fn key_areas(&self) -> Result<Vec<Range<u64>>> {
        let mut areas = Vec::new();
        let mut at = 0;
        while at < self.size {
            self.abort.check("looking for LUKS headers")?;
            let found = match self.header_at(at)? {
                Some(header) => Some(header),
                None => self.header_at(at + probe::SPARE)?,
            };
            if let Some(header) = found {
                tracing::info!("a LUKS{} header at byte {at}: its key slots go first", header.version);
                areas.push(at..(at + header.key_area).min(self.size));
            }
            at += probe::GRID;
            self.progress.compared.store(at.min(self.size), Relaxed);
        }
        Ok(areas)
    }

    fn header_at(&self, at: u64) -> Result<Option<probe::Header>> {
        if at + probe::PROBE as u64 > self.size {
            return Ok(None);
        }
        let read = |len: usize| {
            let mut buffer = self.pool.acquire().ok_or_else(|| Error::cancelled("looking for LUKS headers"))?;
            let len = len.min(buffer.len());
            self.device().read(at, &mut buffer[..len.next_multiple_of(ALIGNMENT)], len)?;
            Ok::<_, Error>(buffer[..len].to_vec())
        };
        // Metadata that cannot be read say nothing about the key slots; the usual length holds then.
        Ok(probe::probe(&read(probe::PROBE)?, |len| read(len).ok()))
    }

    /// Writes zeros, never leaving that to the device: whoever reads the old blocks below a thin pool must not find keys.
    fn overwrite(&self, areas: &[Range<u64>]) -> Result<u64> {
        let counter = AtomicU64::new(0);
        for area in areas {
            self.writer.zero_device(0, area.clone(), ZeroPolicy::Write, &counter, &|| self.abort.is_over())?;
        }
        self.writer.flush()?;
        self.prove(areas)
    }

    fn zero(&self) -> Result<TailTreatment> {
        let over = || self.abort.is_over();
        let how = self.writer.zero_device(0, 0..self.size, ZeroPolicy::Device, &self.progress.zeroed, &over)?;
        self.writer.drain()?;
        Ok(match how {
            Zeroed::ByDevice => TailTreatment::ZeroedByDevice,
            Zeroed::ByWriting => TailTreatment::ZeroedByWriting,
        })
    }

    fn discard(&self) -> Result<TailTreatment> {
        let over = || self.abort.is_over();
        if self.writer.discard_device(0, 0..self.size, &self.progress.zeroed, &over)? {
            return Ok(TailTreatment::Discarded);
        }
        Err(Error::target(format!("{} cannot discard", self.device().name()))
            .with_hint("erase it without --discard: then it is zeroed"))
    }

    fn prove(&self, ranges: &[Range<u64>]) -> Result<u64> {
        let tell = |len| {
            self.progress.read_back.fetch_add(len, Relaxed);
        };
        match readback::first_nonzero(self.device(), ranges, &self.pool, &self.abort, &tell)? {
            None => Ok(self.progress.read_back.swap(0, Relaxed)),
            Some(at) => Err(Error::proof(format!("{} was zeroed, but byte {at} is not zero", self.device().name()))
                .with_hint("the disk does not do what it says: it must not be given to anybody else; destroy it or shred it by its maker's means")),
        }
    }
}
