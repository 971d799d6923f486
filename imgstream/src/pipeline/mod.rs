//! Joins the rooms: plan → fetch → decode → write, then read back and commit.
//!
//! Order on the target: the places of the first and last chunks are zeroed and flushed, so that the old content cannot boot;
//! all other chunks are written, what lies beyond the image is cleared, all is flushed and read back; only then the withheld
//! chunks are written, flushed and read back. Until that moment nothing on the target boots, whatever happens.
//!
//! To resume is to compare first: what the media hold already is neither fetched nor written.
//!
//! A run that may lose its right to write asks a [`Permit`] before it begins, before it commits, and before it cleans up; and before
//! each write whether that right has passed meanwhile.

mod commit;
mod end;
mod follow;
#[cfg(test)]
mod hostile;
mod marks;
mod permit;
mod report;
mod resume;
mod stream;
mod tail;
mod withheld;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::abort::{Abort, unless_cancelled};
use crate::buffer::Pool;
use crate::decode::VerifiedChunk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::Patience;
use crate::open::Image;
use crate::plan::{Plans, SpanPlan};
use crate::progress::{Phase, Progress, Stage};
use crate::readback;
use crate::sink::writer::StartEngine;
use crate::sink::{Device, EngineChoice, Target, Writer, engine};

pub use permit::Permit;
pub use report::Report;
pub use tail::{Tail, TailPolicy};

use follow::Glimpses;
use marks::Marks;
use report::{Outcome, Times};
use stream::Selection;
use withheld::Placement;

/// How to write. The defaults stay below 256 MiB of memory for any image.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The write engine.
    pub engine: EngineChoice,
    /// Whether to prove what the media hold.
    pub read_back: bool,
    /// Whether that waits until all is written. Else it follows the writing, which takes less time in all.
    pub read_back_last: bool,
    /// Whether to compare first, and fetch and write only what the media do not hold already.
    pub resume: bool,
    /// What becomes of a device beyond the image.
    pub tail: TailPolicy,
    /// Who is asked whether this run may still write; without one it always may.
    pub permit: Option<Arc<dyn Permit>>,
    /// What was found on the target that is not this image's, in words ("gpt, LVM2_member"). A run that is to resume then ends,
    /// before anything is written, unless at least one chunk of the image is there.
    pub foreign: Option<String>,
    /// Threads that verify and decode; one per core by default.
    pub workers: usize,
    /// Requests in flight per source.
    pub connections: usize,
    /// Bytes per request.
    pub request_size: u64,
    /// Writes in flight, each of a chunk; more where a device takes only shorter ones.
    pub depth: usize,
    /// Bytes of decoded chunks that may exist at once.
    pub chunk_memory: u64,
    /// Bytes of received, not yet decoded frames that may exist at once.
    pub frame_memory: u64,
    /// How long and how often sources are borne with.
    pub patience: Patience,
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
            read_back_last: false,
            resume: false,
            tail: TailPolicy::Zero,
            permit: None,
            foreign: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 4,
            request_size: 16 << 20,
            depth: 16,
            chunk_memory: 96 << 20,
            frame_memory: 32 << 20,
            patience: Patience::default(),
            stall_warning: Duration::from_secs(10),
            stall_limit: Duration::from_secs(300),
        }
    }
}

impl WriteOptions {
    /// Whether reading back follows the writing.
    fn follows(&self) -> bool {
        self.read_back && !self.read_back_last
    }
}

/// Writes an image to a target and proves it.
///
/// # Errors
/// [`Kind::Target`] when the image does not fit, [`Kind::Source`], [`Kind::Image`], [`Kind::Device`] and
/// [`Kind::Proof`] as they occur, [`Kind::Cancelled`] once `cancel` is, and the permit's own. On any error the target cannot boot, unless it held
/// the whole image when the run began, the device did not answer to the end ([`Progress::given_up`]), or the error says so. Nothing is waited for without an end:
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
pub(crate) async fn write_with(
    start: &StartEngine,
    image: Image,
    target: Target,
    options: &WriteOptions,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Report> {
    let descriptor = image.descriptor();
    target.check_fits(descriptor.raw_size, descriptor.sector_size)?;
    tail::check(options.tail, &target)?;
    let run = Arc::new(Run::start(start, image, target, options, progress, cancel)?);
    // Whatever ends this function, a dropped future included, ends the threads and lanes with it.
    let _end = EndOnDrop(Arc::clone(&run));
    run.to_its_end().await
}

struct Run {
    plans: Arc<Plans>,
    writer: Arc<Writer>,
    pool: Arc<Pool>,
    abort: Arc<Abort>,
    progress: Arc<Progress>,
    workers: usize,
    options: WriteOptions,
    /// What the media hold already; nothing unless the run compared first.
    kept: Marks,
    /// What was written and has been read back already.
    proven: Marks,
    glimpses: Glimpses,
    withheld: Mutex<Vec<VerifiedChunk>>,
    placement: OnceLock<Placement>,
    outcome: Mutex<Outcome>,
    /// Whether the media held a data chunk of the image when they were compared.
    recognised: AtomicBool,
    /// Whether the permit was refused.
    refused: AtomicBool,
}

struct EndOnDrop(Arc<Run>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort.token().cancel();
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
        let abort = Arc::new(Abort::with_permit(cancel, options.permit.clone()));
        let (target, over) = (Arc::new(target), abort.over().clone());
        let writer = Writer::start_with(start, options.engine, target, &pool, depth, Arc::clone(&progress), over)?;
        Ok(Run {
            plans: Arc::new(Plans::new(image)),
            writer: Arc::new(writer),
            pool,
            abort,
            progress,
            workers,
            options: options.clone(),
            kept: Marks::default(),
            proven: Marks::default(),
            glimpses: Glimpses::default(),
            withheld: Mutex::default(),
            placement: OnceLock::new(),
            outcome: Mutex::default(),
            recognised: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        })
    }

    /// The page that tells the story.
    async fn steps(self: &Arc<Self>) -> Result<Report> {
        let mut times = Times::start();
        // The first index is needed before anything is touched: an image that cannot be had leaves the target as it was.
        self.load(0).await?;
        if self.options.resume && self.compare().await? {
            times.compared();
            self.permitted().await?;
            self.clear_tail().await?;
            self.flush().await?;
            return self.finish(&times, None).await;
        }
        times.compared();
        self.check_foreign()?;
        self.permitted().await?;
        self.invalidate().await?;
        let before = self.progress.snapshot();
        self.progress.enter(Phase::Writing);
        self.stream(Selection::Missing).await?;
        let limited_by = self.progress.snapshot().limiting_stage(&before);
        self.place();
        self.clear_tail().await?;
        self.flush().await?;
        times.written();
        if self.options.read_back {
            self.progress.enter(Phase::ReadingBack);
            self.prove(commit::Part::AllButWithheld).await?;
            self.look_again().await?;
            self.prove_tail().await?;
        }
        self.permitted().await?;
        self.abort.check("waiting to commit")?;
        self.progress.enter(Phase::Committing);
        self.commit().await?;
        if self.options.read_back {
            self.prove_commit().await?;
        }
        self.finish(&times, limited_by).await
    }

    async fn finish(self: &Arc<Self>, times: &Times, limited_by: Option<Stage>) -> Result<Report> {
        self.blocking(|run| {
            run.trim_padding()?;
            run.show_partitions();
            Ok(())
        })
        .await?;
        self.progress.enter(Phase::Done);
        Ok(self.report(times, limited_by))
    }

    async fn load(&self, span: usize) -> Result<Arc<SpanPlan>> {
        unless_cancelled(self.abort.token(), "fetching an index", self.plans.load(span)).await
    }

    async fn flush(self: &Arc<Self>) -> Result<()> {
        self.progress.enter(Phase::Flushing);
        self.blocking(|run| run.writer.flush()).await
    }

    fn trim_padding(&self) -> Result<()> {
        let devices = self.writer.target().devices();
        if devices.iter().any(Device::is_padded) {
            self.may_write()?;
        }
        devices.iter().try_for_each(Device::trim_padding)
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Run) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let run = Arc::clone(self);
        let joined = tokio::task::spawn_blocking(move || work(&run)).await;
        joined.unwrap_or_else(|error| Err(Error::device(format!("a thread of the data path died: {error}"))))
    }
}

/// Buffers for the withheld chunks and for zeros.
const OTHERS: usize = withheld::MAX_WITHHELD + 1;

/// How many threads, writes and buffers the memory allows.
pub(crate) struct Shape {
    pub(crate) workers: usize,
    pub(crate) depth: usize,
    pub(crate) buffers: usize,
}

impl Shape {
    /// A buffer per write in flight, two per worker, three for the withheld chunks, one of zeros. What reads back while others
    /// still write has its own, as far as they can be afforded.
    pub(crate) fn of(options: &WriteOptions, chunk_size: u32) -> Self {
        let affordable = (options.chunk_memory / u64::from(chunk_size)) as usize;
        let least_depth = 2;
        let workers = options.workers.min(affordable.saturating_sub(OTHERS + least_depth) / 2).max(1);
        let fixed = 2 * workers + OTHERS;
        let depth = options.depth.min(affordable.saturating_sub(fixed)).max(least_depth);
        let readers = if options.follows() { readback::threads() } else { 0 };
        let buffers = (fixed + depth + readers).min(affordable).max(fixed + depth);
        Shape { workers, depth, buffers }
    }
}
