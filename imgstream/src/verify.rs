//! Checks an image where it lies: every blob's digest, every chunk's frame and raw bytes, every seek table, and that there is
//! nothing where a target has no place. Writes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::abort::Abort;
use crate::buffer::Pool;
use crate::decode::Decoder;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, IoContext, Kind, Result};
use crate::manifest::{ChunkKind, Descriptor, Region};
use crate::open::Image;
use crate::pipeline::WriteOptions;
use crate::plan::{Plans, SpanPlan};
use crate::progress::{Phase, Progress};
use crate::sink::target::no_place;
use crate::source;
use crate::watchdog::Watchdog;
use crate::zeros;

/// Memory for decoded chunks, whatever the number of cores.
const MEMORY: u64 = 96 << 20;
/// Frames that may wait to be checked.
const WAITING: usize = 16;

/// What was checked.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Chunks, each with its frame and raw digest.
    pub chunks: u64,
    /// Distinct data blobs, each with its digest and seek table.
    pub data_blobs: u64,
    /// Bytes of the data blobs.
    pub data_bytes: u64,
}

struct Job {
    span: Arc<SpanPlan>,
    chunk: usize,
    frame: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// Checks everything the first source of `image` holds.
///
/// # Errors
/// [`Kind::Source`] naming the first blob or chunk that is not what its digest says, [`Kind::Image`] for one that is
/// signed but wrong; `Cancelled`.
pub async fn verify(
    image: Image,
    workers: usize,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Verified> {
    let descriptor = Arc::clone(image.descriptor());
    let workers = workers.min((MEMORY / u64::from(descriptor.chunk_size)) as usize).max(1);
    let pool = Pool::new(workers, descriptor.chunk_size as usize).context(Kind::Device, || "getting buffers".into())?;
    let abort = Arc::new(Abort::new(cancel));
    let (jobs, queue) = unbounded();
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (queue, pool, abort) = (queue.clone(), Arc::clone(&pool), Arc::clone(&abort));
            let descriptor = Arc::clone(&descriptor);
            std::thread::spawn(move || check_chunks(&queue, &descriptor, &pool, &abort))
        })
        .collect();
    progress.raw_total.store(descriptor.raw_size, Relaxed);
    progress.planned_fetch.store(descriptor.data_bytes(), Relaxed);
    progress.enter(Phase::Writing);
    let limits = WriteOptions::default();
    let watchdog = Watchdog::new(Arc::clone(&progress), image.sources().to_vec(), None, limits.stall_warning);
    let reading = read_blobs(Plans::new(image), jobs, &progress, &abort);
    let outcome = tokio::select! {
        outcome = reading => Some(outcome),
        stall = watchdog.stalled_for(limits.stall_limit) => Some(Err(stall.error())),
        () = abort.token().cancelled() => None,
    };
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    joined.map_err(|error| Error::device(format!("a checking thread died: {error}")))?;
    abort.check("verifying")?;
    progress.enter(Phase::Done);
    outcome.unwrap_or_else(|| Err(Error::cancelled("verifying")))
}

async fn read_blobs(plans: Plans, jobs: Sender<Job>, progress: &Progress, abort: &Abort) -> Result<Verified> {
    let places = Arc::new(Semaphore::new(WAITING));
    let mut seen = HashSet::new();
    let mut totals = Verified { chunks: 0, data_blobs: 0, data_bytes: 0 };
    for number in 0..plans.count() {
        let span = plans.load(number).await?;
        totals.chunks += span.index.rows().len() as u64;
        let descriptor = plans.image().descriptor();
        let is_new = seen.insert((span.data, descriptor.spans[number].index));
        if is_new {
            totals.data_blobs += 1;
            totals.data_bytes += span.data.size;
        }
        // Blobs that were seen before may still have something where only this span has no place.
        if is_new || has_data_without_place(descriptor, &span) {
            read_blob(plans.image(), &span, &places, &jobs, progress).await?;
        }
        if abort.is_over() {
            return Err(Error::cancelled("verifying"));
        }
        progress.decoded.fetch_add(span.index.raw_length(), Relaxed);
    }
    Ok(totals)
}

async fn read_blob(
    image: &Image,
    span: &Arc<SpanPlan>,
    places: &Arc<Semaphore>,
    jobs: &Sender<Job>,
    progress: &Progress,
) -> Result<()> {
    let source = image.sources()[0].as_ref();
    let mut blob = Cutter {
        stream: source::open_range(source, span.data, 0..span.data.size).await?,
        pending: Bytes::new(),
        hasher: Hasher::new(),
        progress,
    };
    for (chunk, row) in span.index.rows().iter().enumerate() {
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| Error::cancelled("verifying"))?;
        let frame = blob.cut(row.length as usize).await?;
        jobs.send(Job { span: Arc::clone(span), chunk, frame, _place: place })
            .map_err(|_| Error::cancelled("verifying"))?;
    }
    let expected = span.index.seek_table();
    let found = blob.cut(expected.len()).await?;
    let digest = blob.hasher.finish();
    if digest != span.data.digest {
        return Err(Error::corrupt(format!(
            "the data blob of span {} at {} has the digest {digest} instead of {}",
            span.number,
            source.name(),
            span.data.digest
        )));
    }
    if found != expected {
        return Err(Error::image(format!("the seek table of span {} contradicts the index", span.number)));
    }
    Ok(())
}

/// Cuts a blob into pieces while hashing the whole of it.
struct Cutter<'a> {
    stream: source::ExactStream,
    pending: Bytes,
    hasher: Hasher,
    progress: &'a Progress,
}

impl Cutter<'_> {
    async fn cut(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(len);
        while piece.len() < len {
            if self.pending.is_empty() {
                let next = self.stream.next().await?;
                self.pending = next.ok_or_else(|| Error::source_failed("the blob ended too early"))?;
                self.hasher.update(&self.pending);
                self.progress.fetched.fetch_add(self.pending.len() as u64, Relaxed);
            }
            let part = self.pending.split_to(self.pending.len().min(len - piece.len()));
            piece.extend_from_slice(&part);
        }
        Ok(piece)
    }
}

/// Whether a data chunk of the span reaches into the end of an encrypted region.
fn has_data_without_place(descriptor: &Descriptor, span: &SpanPlan) -> bool {
    let is_data = |chunk: &usize| span.index.rows()[*chunk].kind == ChunkKind::Data;
    (0..span.index.rows().len()).filter(is_data).any(|chunk| {
        let (start, len) = span.raw_range(chunk);
        let mut ends = descriptor.regions.iter().filter_map(Region::without_place);
        ends.any(|end| end.start < start + len as u64 && start < end.end)
    })
}

fn check_chunks(queue: &Receiver<Job>, descriptor: &Descriptor, pool: &Arc<Pool>, abort: &Abort) {
    let mut decoder = Decoder::new();
    for job in queue {
        if abort.is_over() {
            continue;
        }
        if let Err(error) = check_chunk(&mut decoder, &job, descriptor, pool) {
            abort.fail(error);
        }
    }
}

fn check_chunk(decoder: &mut Decoder, job: &Job, descriptor: &Descriptor, pool: &Arc<Pool>) -> Result<()> {
    let row = &job.span.index.rows()[job.chunk];
    let (raw_offset, raw_len) = job.span.raw_range(job.chunk);
    let buffer = pool.acquire().ok_or_else(|| Error::cancelled("verifying"))?;
    let name = || job.span.chunk_name(job.chunk);
    let chunk = decoder.decode(row, raw_offset, raw_len, &job.frame, buffer).map_err(|why| why.into_error(&name()))?;
    let found = Digest::of(chunk.bytes());
    if found != row.raw_digest {
        return Err(Error::image(format!(
            "{}: its raw bytes have the digest {found} instead of {}",
            name(),
            row.raw_digest
        )));
    }
    check_placeable(descriptor, raw_offset, chunk.bytes())
}

/// Where the end of an encrypted region has no place on a target, it must be zeros.
fn check_placeable(descriptor: &Descriptor, start: u64, bytes: &[u8]) -> Result<()> {
    for region in &descriptor.regions {
        let Some(place) = region.without_place() else { continue };
        let (from, to) = (place.start.max(start), place.end.min(start + bytes.len() as u64));
        let found = (from < to).then(|| zeros::first_nonzero(&bytes[(from - start) as usize..(to - start) as usize]));
        if let Some(at) = found.flatten() {
            return Err(no_place(region.offset, from + at as u64));
        }
    }
    Ok(())
}
