//! Joins the rooms: plan → fetch → decode → write, then read back and commit.
//!
//! Order on the target: the first and last chunk's place is zeroed and flushed, so that the old content cannot boot; all
//! other chunks are written, flushed and read back; only then the withheld two are written, flushed and read back. Until
//! that moment nothing on the target boots, whatever happens.

mod commit;
mod end;
#[cfg(test)]
mod hostile;
mod stream;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::abort::{Abort, unless_cancelled};
use crate::buffer::Pool;
use crate::decode::VerifiedChunk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::Queue;
use crate::manifest::Descriptor;
use crate::open::Image;
use crate::plan::{Plans, SpanPlan};
use crate::progress::{Phase, Progress, Stage};
use crate::sink::writer::StartEngine;
use crate::sink::{EngineChoice, Target, Writer, engine};

/// How to write. The defaults stay below 256 MiB of memory for any image.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The write engine.
    pub engine: EngineChoice,
    /// Whether to prove what the media hold.
    pub read_back: bool,
    /// Threads that verify and decode; one per core by default.
    pub workers: usize,
    /// Requests in flight per source.
    pub connections: usize,
    /// Bytes per request.
    pub request_size: u64,
    /// Writes in flight.
    pub depth: usize,
    /// Bytes of decoded chunks that may exist at once.
    pub chunk_memory: u64,
    /// Bytes of received, not yet decoded frames that may exist at once.
    pub frame_memory: u64,
    /// Tries of a request without progress before the run fails.
    pub max_tries: u32,
    /// How long nothing may move before that is warned of; half of the limit, where that is less.
    pub stall_warning: Duration,
    /// How long nothing may move before the run fails.
    pub stall_limit: Duration,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            engine: EngineChoice::Auto,
            read_back: true,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 4,
            request_size: 16 << 20,
            depth: 16,
            chunk_memory: 96 << 20,
            frame_memory: 40 << 20,
            max_tries: 6,
            stall_warning: Duration::from_secs(10),
            stall_limit: Duration::from_secs(300),
        }
    }
}

/// What was done, for the summary.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Raw bytes of the image.
    pub raw_bytes: u64,
    /// Raw bytes of data chunks written.
    pub data_bytes: u64,
    /// Raw bytes zeroed or left as holes.
    pub zero_bytes: u64,
    /// Compressed bytes received.
    pub fetched_bytes: u64,
    /// Raw bytes read back and found right; `None` when the proof was turned off.
    pub read_back_bytes: Option<u64>,
    /// Requests that had to be repeated.
    pub retries: u64,
    /// The write engine.
    pub engine: String,
    /// What the automatic choice could not have.
    pub fallback: Option<String>,
    /// The stage that limited writing.
    pub limited_by: Option<Stage>,
    /// Seconds spent fetching, verifying and writing.
    pub write_seconds: f64,
    /// Seconds spent reading back.
    pub read_back_seconds: f64,
    /// Seconds in all.
    pub total_seconds: f64,
}

/// Writes an image to a target and proves it.
///
/// # Errors
/// [`Kind::Target`] when the image does not fit, [`Kind::Source`], [`Kind::Image`], [`Kind::Device`] and
/// [`Kind::Proof`] as they occur, [`Kind::Cancelled`] once `cancel` is. On any error the target cannot boot, unless the
/// device did not answer to the end ([`Progress::given_up`]), or the error says so. Nothing is waited for without an end:
/// see [`WriteOptions::stall_limit`].
pub async fn write(
    image: Image,
    target: Target,
    options: &WriteOptions,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Report> {
    write_with(&engine::start, image, target, options, progress, cancel).await
}

/// [`write`], with an engine that `start` makes.
async fn write_with(
    start: &StartEngine,
    image: Image,
    target: Target,
    options: &WriteOptions,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Report> {
    check_fits(image.descriptor(), &target)?;
    let run = Arc::new(Run::start(start, image, target, options, progress, cancel)?);
    // Whatever ends this function, a dropped future included, ends the threads and lanes with it.
    let _end = EndOnDrop(Arc::clone(&run));
    run.to_its_end().await
}

fn check_fits(descriptor: &Descriptor, target: &Target) -> Result<()> {
    for device in target.devices().iter() {
        let needed = if target.devices().len() == 1 { descriptor.raw_size } else { 0 };
        device.check_fits(needed, descriptor.sector_size)?;
    }
    if target.raw_len() != descriptor.raw_size {
        return Err(Error::target(format!(
            "the target maps {} bytes, the image has {}",
            target.raw_len(),
            descriptor.raw_size
        )));
    }
    Ok(())
}

struct Run {
    plans: Arc<Plans>,
    writer: Arc<Writer>,
    pool: Arc<Pool>,
    queue: Arc<Queue>,
    abort: Arc<Abort>,
    progress: Arc<Progress>,
    workers: usize,
    options: WriteOptions,
    withheld: Mutex<Vec<VerifiedChunk>>,
}

struct EndOnDrop(Arc<Run>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort.token().cancel();
        self.0.queue.close();
        self.0.pool.close();
    }
}

impl Run {
    fn start(
        start: &StartEngine,
        image: Image,
        target: Target,
        options: &WriteOptions,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let descriptor = image.descriptor();
        let Shape { workers, depth, buffers } = Shape::of(options, descriptor.chunk_size);
        let pool = Pool::new(buffers, descriptor.chunk_size as usize)
            .context(Kind::Device, || format!("getting {buffers} buffers of {} bytes", descriptor.chunk_size))?;
        progress.raw_total.store(descriptor.raw_size, Relaxed);
        let writer = Writer::start(start, options.engine, Arc::new(target), &pool, depth, Arc::clone(&progress))?;
        Ok(Run {
            plans: Arc::new(Plans::new(image)),
            writer: Arc::new(writer),
            pool,
            queue: Arc::default(),
            abort: Arc::new(Abort::new(cancel)),
            progress,
            workers,
            options: options.clone(),
            withheld: Mutex::default(),
        })
    }

    /// The page that tells the story.
    async fn steps(self: &Arc<Self>) -> Result<Report> {
        let start = Instant::now();
        let before = self.progress.snapshot();
        // The first index is needed before anything is touched: an image that cannot be had leaves the target as it was.
        self.load(0).await?;
        self.invalidate().await?;
        self.progress.enter(Phase::Writing);
        let writing = Instant::now();
        self.stream().await?;
        let limited_by = self.progress.snapshot().limiting_stage(&before);
        self.flush().await?;
        let write_time = writing.elapsed();
        let reading = Instant::now();
        if self.options.read_back {
            self.progress.enter(Phase::ReadingBack);
            self.prove(commit::Part::AllButWithheld).await?;
        }
        let mut read_back_time = reading.elapsed();
        self.abort.check("waiting to commit")?;
        self.progress.enter(Phase::Committing);
        self.commit().await?;
        if self.options.read_back {
            let reading = Instant::now();
            self.prove_commit().await?;
            read_back_time += reading.elapsed();
        }
        self.blocking(Run::trim_padding).await?;
        self.progress.enter(Phase::Done);
        Ok(self.report(start, write_time, read_back_time, limited_by))
    }

    async fn load(&self, span: usize) -> Result<Arc<SpanPlan>> {
        unless_cancelled(self.abort.token(), "fetching an index", self.plans.load(span)).await
    }

    /// The first and the last chunk are written last: without them nothing on the target boots.
    fn is_withheld(&self, raw_offset: u64, raw_len: usize) -> bool {
        raw_offset == 0 || raw_offset + raw_len as u64 == self.plans.image().descriptor().raw_size
    }

    fn withheld(&self) -> std::sync::MutexGuard<'_, Vec<VerifiedChunk>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn flush(self: &Arc<Self>) -> Result<()> {
        self.progress.enter(Phase::Flushing);
        self.blocking(|run| run.writer.flush()).await
    }

    fn trim_padding(&self) -> Result<()> {
        self.writer.target().devices().iter().try_for_each(|device| device.trim_padding())
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Run) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let run = Arc::clone(self);
        let joined = tokio::task::spawn_blocking(move || work(&run)).await;
        joined.unwrap_or_else(|error| Err(Error::device(format!("a thread of the data path died: {error}"))))
    }

    fn report(&self, start: Instant, write: Duration, read_back: Duration, limited_by: Option<Stage>) -> Report {
        let now = self.progress.snapshot();
        Report {
            raw_bytes: now.raw_total,
            data_bytes: now.decoded,
            zero_bytes: now.zeroed,
            fetched_bytes: now.fetched,
            read_back_bytes: self.options.read_back.then_some(now.read_back),
            retries: now.retries,
            engine: self.writer.engine().to_string(),
            fallback: self.writer.fallback().map(str::to_owned),
            limited_by,
            write_seconds: write.as_secs_f64(),
            read_back_seconds: if self.options.read_back { read_back.as_secs_f64() } else { 0.0 },
            total_seconds: start.elapsed().as_secs_f64(),
        }
    }
}

/// How many threads, writes and buffers the memory allows.
struct Shape {
    workers: usize,
    depth: usize,
    buffers: usize,
}

impl Shape {
    /// A buffer per write in flight, two per worker, two for the withheld chunks, one of zeros.
    fn of(options: &WriteOptions, chunk_size: u32) -> Self {
        let affordable = (options.chunk_memory / u64::from(chunk_size)) as usize;
        let least_depth = 2;
        let workers = options.workers.min(affordable.saturating_sub(3 + least_depth) / 2).max(1);
        let fixed = 2 * workers + 3;
        let depth = options.depth.min(affordable.saturating_sub(fixed)).max(least_depth);
        Shape { workers, depth, buffers: fixed + depth }
    }
}
