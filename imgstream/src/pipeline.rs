//! Joins the rooms: plan → fetch → decode → write, then read back and commit.
//!
//! Order on the target: the first and last chunk's place is zeroed and flushed, so that the old content cannot boot; all
//! other chunks are written, flushed and read back; only then the withheld two are written, flushed and read back. Until
//! that moment nothing on the target boots, whatever happens.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::abort::Abort;
use crate::buffer::Pool;
use crate::decode::{CorruptFrame, Decoder, VerifiedChunk};
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::{self, Frame, FrameBuffers, Lanes, Queue, Request};
use crate::manifest::{ChunkKind, Descriptor};
use crate::open::Image;
use crate::plan::{self, Plans, SpanPlan};
use crate::progress::{Phase, Progress, Stage, add_time};
use crate::readback;
use crate::sink::{EngineChoice, Target, Writer};

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
            chunk_memory: 64 << 20,
            frame_memory: 24 << 20,
            max_tries: 6,
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
/// [`Kind::Proof`] as they occur, [`Kind::Cancelled`] once `cancel` is. On any error the target cannot boot.
pub async fn write(
    image: Image,
    target: Target,
    options: &WriteOptions,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Report> {
    check_fits(image.descriptor(), &target)?;
    let run = Arc::new(Run::start(image, target, options, progress, cancel)?);
    // Whatever ends this function, a dropped future included, ends the threads and lanes with it.
    let _end = EndOnDrop(Arc::clone(&run));
    let report = run.steps().await;
    if report.is_err() {
        let run = Arc::clone(&run);
        // Nothing of ours may still be writing when the caller learns that it is over.
        let _ = tokio::task::spawn_blocking(move || run.writer.drain()).await;
    }
    report
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
        image: Image,
        target: Target,
        options: &WriteOptions,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let descriptor = image.descriptor();
        let (count, depth) = buffers(options, descriptor.chunk_size);
        let pool = Pool::new(count, descriptor.chunk_size as usize)
            .context(Kind::Device, || format!("getting {count} buffers of {} bytes", descriptor.chunk_size))?;
        progress.raw_total.store(descriptor.raw_size, std::sync::atomic::Ordering::Relaxed);
        let writer = Writer::start(options.engine, Arc::new(target), &pool, depth, Arc::clone(&progress))?;
        Ok(Run {
            plans: Arc::new(Plans::new(image)),
            writer: Arc::new(writer),
            pool,
            queue: Arc::default(),
            abort: Arc::new(Abort::new(cancel)),
            progress,
            options: options.clone(),
            withheld: Mutex::default(),
        })
    }

    /// The page that tells the story.
    async fn steps(self: &Arc<Self>) -> Result<Report> {
        let start = Instant::now();
        let before = self.progress.snapshot();
        // The first index is needed before anything is touched: an image that cannot be had leaves the target as it was.
        self.plans.load(0).await?;
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
            self.prove(Part::AllButWithheld).await?;
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
        self.writer.target().devices().iter().try_for_each(|device| device.trim_padding())?;
        self.progress.enter(Phase::Done);
        Ok(self.report(start, write_time, read_back_time, limited_by))
    }

    async fn invalidate(self: &Arc<Self>) -> Result<()> {
        self.progress.enter(Phase::Invalidating);
        self.blocking(|run| run.zero_withheld()).await
    }

    /// Zeroes the places of the withheld chunks, durably.
    fn zero_withheld(&self) -> Result<()> {
        let descriptor = self.plans.image().descriptor();
        let chunk = u64::from(descriptor.chunk_size);
        let last = (descriptor.raw_size - 1) / chunk * chunk;
        // Not counted: these bytes are counted when their chunks land.
        let uncounted = Progress::default();
        for raw in [0..chunk.min(descriptor.raw_size), last..descriptor.raw_size] {
            self.writer.zero(raw, ChunkKind::Zero, &uncounted, &|| false)?;
        }
        self.writer.flush()
    }

    /// Fetches, verifies and writes everything but the withheld chunks, which it keeps.
    async fn stream(self: &Arc<Self>) -> Result<()> {
        let (frames, incoming) = unbounded();
        let frame_buffers = Arc::new(FrameBuffers::default());
        let workers = self.start_workers(&incoming, &frame_buffers)?;
        let (zero_ranges, zero_requests) = mpsc::channel(64);
        let zeroing = tokio::task::spawn_blocking({
            let run = Arc::clone(self);
            move || run.zero_ranges(zero_requests)
        });
        let mut tasks = JoinSet::new();
        let planning = Arc::clone(self);
        tasks.spawn(async move {
            if let Err(error) = planning.plan(zero_ranges).await {
                planning.abort.fail(error);
            }
        });
        self.start_lanes(&mut tasks, frames, frame_buffers);
        tokio::select! {
            () = self.abort.token().cancelled() => {}
            () = self.queue.finished() => while tasks.join_next().await.is_some() {},
        }
        // Over or finished: the lanes go, and with the last sender of frames the workers.
        self.queue.close();
        tasks.shutdown().await;
        if self.abort.is_over() {
            self.pool.close();
        }
        self.blocking(move |_| {
            workers.into_iter().for_each(|worker| drop(worker.join()));
            Ok(())
        })
        .await?;
        let _ = zeroing.await;
        self.abort.check("writing")
    }

    fn start_lanes(
        &self,
        tasks: &mut JoinSet<()>,
        frames: crossbeam_channel::Sender<Frame>,
        buffers: Arc<FrameBuffers>,
    ) {
        let sources = self.plans.image().sources().to_vec();
        let (count, connections) = (sources.len(), self.options.connections.max(1));
        let chunk_size = self.plans.image().descriptor().chunk_size;
        let lanes = Arc::new(Lanes {
            sources,
            queue: Arc::clone(&self.queue),
            frames,
            budget: fetch::budget(self.options.frame_memory, count * connections, chunk_size),
            buffers,
            progress: Arc::clone(&self.progress),
            abort: Arc::clone(&self.abort),
            max_tries: self.options.max_tries.max(1),
        });
        for lane in 0..count * connections {
            tasks.spawn(Arc::clone(&lanes).run(lane % count));
        }
    }

    /// Walks the spans: data becomes requests, zeros and holes become ranges.
    async fn plan(&self, zero_ranges: mpsc::Sender<(std::ops::Range<u64>, ChunkKind)>) -> Result<()> {
        for number in 0..self.plans.count() {
            let span = self.plans.load(number).await?;
            for (kind, run) in plan::runs(&span.index) {
                if kind == ChunkKind::Data {
                    if !self.plan_data(&span, run).await {
                        return Ok(());
                    }
                    continue;
                }
                let (start, _) = span.raw_range(run.start);
                let (last, len) = span.raw_range(run.end - 1);
                if zero_ranges.send((start..last + len as u64, kind)).await.is_err() {
                    return Ok(());
                }
            }
        }
        self.queue.planned();
        Ok(())
    }

    /// Cuts a run of data chunks into requests. `false` once nobody wants them any more.
    async fn plan_data(&self, span: &Arc<SpanPlan>, run: std::ops::Range<usize>) -> bool {
        let rows = span.index.rows();
        let mut start = run.start;
        while start < run.end {
            let mut end = start;
            let mut bytes = 0;
            while end < run.end && (end == start || bytes + u64::from(rows[end].length) <= self.options.request_size) {
                bytes += u64::from(rows[end].length);
                end += 1;
            }
            self.progress.planned_fetch.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            if !self.queue.plan(Request { span: Arc::clone(span), chunks: start..end, tries: 0, avoid: None }).await {
                return false;
            }
            start = end;
        }
        true
    }

    fn zero_ranges(&self, mut ranges: mpsc::Receiver<(std::ops::Range<u64>, ChunkKind)>) {
        while let Some((raw, kind)) = ranges.blocking_recv() {
            if self.abort.is_over() {
                return;
            }
            if let Err(error) = self.writer.zero(raw, kind, &self.progress, &|| self.abort.is_over()) {
                self.abort.fail(self.root_cause(error));
                return;
            }
        }
    }

    fn start_workers(
        self: &Arc<Self>,
        incoming: &Receiver<Frame>,
        buffers: &Arc<FrameBuffers>,
    ) -> Result<Vec<JoinHandle<()>>> {
        (0..self.options.workers.max(1))
            .map(|number| {
                let (run, incoming, buffers) = (Arc::clone(self), incoming.clone(), Arc::clone(buffers));
                std::thread::Builder::new()
                    .name(format!("decode-{number}"))
                    .spawn(move || run.work(&incoming, &buffers))
                    .context(Kind::Device, || "starting a thread".into())
            })
            .collect()
    }

    /// One worker: frame → verified chunk → writer, until no more frames come.
    fn work(&self, incoming: &Receiver<Frame>, buffers: &FrameBuffers) {
        let mut decoder = Decoder::new();
        loop {
            let waiting = Instant::now();
            let Ok(frame) = incoming.recv() else { return };
            add_time(&self.progress.source_wait, waiting);
            if self.abort.is_over() {
                continue;
            }
            if let Err(error) = self.handle(&mut decoder, frame, buffers) {
                self.abort.fail(error);
            }
        }
    }

    fn handle(&self, decoder: &mut Decoder, frame: Frame, buffers: &FrameBuffers) -> Result<()> {
        let waiting = Instant::now();
        let Some(buffer) = self.pool.acquire() else {
            return Ok(());
        };
        add_time(&self.progress.write_wait, waiting);
        let decoding = Instant::now();
        let (raw_offset, raw_len) = frame.span.raw_range(frame.chunk);
        let row = &frame.span.index.rows()[frame.chunk];
        let decoded = decoder.decode(row, raw_offset, raw_len, &frame.bytes, buffer);
        add_time(&self.progress.decode_busy, decoding);
        let chunk = match decoded {
            Ok(chunk) => chunk,
            Err(why) => return self.fetch_again(&frame, why),
        };
        buffers.give(frame.bytes);
        self.progress.decoded.fetch_add(raw_len as u64, std::sync::atomic::Ordering::Relaxed);
        let writing = Instant::now();
        if self.is_withheld(raw_offset, raw_len) {
            self.withheld().push(chunk);
        } else {
            self.writer.write(chunk).map_err(|error| self.root_cause(error))?;
        }
        add_time(&self.progress.write_wait, writing);
        self.queue.delivered();
        Ok(())
    }

    /// Wrong bytes are fetched once more, elsewhere if there is an elsewhere; the source that sent them is named.
    fn fetch_again(&self, frame: &Frame, why: CorruptFrame) -> Result<()> {
        let source = self.plans.image().sources()[frame.source].name();
        let chunk = frame.span.chunk_name(frame.chunk);
        if let CorruptFrame::Format(_) = why {
            return Err(Error::image(format!("{chunk} is signed but wrong: {why}"))
                .with_source(why)
                .with_hint("the image was packed wrongly: no source can help, pack it again"));
        }
        if frame.second_try {
            return Err(Error::corrupt(format!("{chunk} came corrupted twice, last from {source}: {why}"))
                .with_source(why)
                .with_hint("check the image on that server with `imgstream verify`, and what lies between"));
        }
        tracing::warn!(source, "{chunk} came corrupted: {why}; fetching it once more");
        self.progress.retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.queue.again(Request {
            span: Arc::clone(&frame.span),
            chunks: frame.chunk..frame.chunk + 1,
            tries: 0,
            avoid: Some(frame.source),
        });
        Ok(())
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

    async fn commit(self: &Arc<Self>) -> Result<()> {
        self.blocking(|run| {
            let chunks = std::mem::take(&mut *run.withheld());
            chunks.into_iter().try_for_each(|chunk| run.writer.write(chunk)).map_err(|error| run.root_cause(error))?;
            run.writer.flush()
        })
        .await
    }

    /// Reads the withheld chunks back; where they differ, takes the commit back.
    async fn prove_commit(self: &Arc<Self>) -> Result<()> {
        let Err(error) = self.prove(Part::Withheld).await else {
            return Ok(());
        };
        self.blocking(|run| run.zero_withheld()).await.map_err(|second| {
            Error::proof(format!("{error}; and invalidating the target again failed: {second}"))
                .with_hint("treat this device as broken, and do not boot it")
        })?;
        Err(error)
    }

    async fn prove(self: &Arc<Self>, part: Part) -> Result<()> {
        let wanted =
            move |run: &Run, raw_offset, raw_len| run.is_withheld(raw_offset, raw_len) == (part == Part::Withheld);
        let mut differing = Vec::new();
        for number in 0..self.plans.count() {
            let span = self.plans.load(number).await?;
            let compare = {
                let span = Arc::clone(&span);
                self.blocking(move |run| {
                    let select = |offset, len| wanted(run, offset, len);
                    readback::compare(&span, run.writer.target(), &run.pool, &select, &run.progress, &run.abort)
                })
            };
            let found = compare.await?;
            differing.extend(found.into_iter().map(|chunk| span.chunk_name(chunk)));
        }
        if differing.is_empty() {
            return Ok(());
        }
        let devices: Vec<_> = self.writer.target().devices().iter().map(|device| device.name()).collect();
        Err(Error::proof(format!(
            "{} of the chunks written to {} read back wrong; the first: {}",
            differing.len(),
            devices.join(", "),
            differing[0]
        ))
        .with_hint("the device, its cache or a path to it loses or changes data: do not use it; the target was left unbootable"))
    }

    /// A failed write is told to whoever waits for the writer; this asks for it where a later call only noticed.
    fn root_cause(&self, noticed: Error) -> Error {
        self.writer.drain().err().unwrap_or(noticed)
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    AllButWithheld,
    Withheld,
}

/// Number of chunk buffers, and the writer's depth, within the memory allowed: one per write in flight, two per worker,
/// two withheld chunks, one of zeros.
fn buffers(options: &WriteOptions, chunk_size: u32) -> (usize, usize) {
    let fixed = 2 * options.workers.max(1) + 3;
    let affordable = (options.chunk_memory / u64::from(chunk_size)) as usize;
    let depth = options.depth.min(affordable.saturating_sub(fixed)).max(2);
    (fixed + depth, depth)
}
