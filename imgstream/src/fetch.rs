//! What to ask for next, and asking for it: a shared queue of requests, and lanes that work it off, several per source.
//!
//! A request is a run of adjacent chunks, so that round trips do not bound throughput; a chunk is handed on as soon as it
//! is complete. What fails goes back to the queue, so whichever source is alive takes it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::abort::Abort;
use crate::error::{Error, Kind, Result, Retry};
use crate::plan::SpanPlan;
use crate::progress::Progress;
use crate::source::{self, Source};

/// Requests planned ahead of the lanes.
const PLANNED_AHEAD: usize = 64;
/// A permit stands for this many bytes, so that budgets beyond 4 GiB fit a semaphore.
const PERMIT: usize = 1024;

/// A run of adjacent data chunks of one span, still to be fetched.
#[derive(Debug, Clone)]
pub struct Request {
    /// The span.
    pub span: Arc<SpanPlan>,
    /// The chunks, by number.
    pub chunks: Range<usize>,
    /// Tries without a single chunk's progress.
    pub tries: u32,
    /// The source that failed last to serve it: another one is next, where there is another.
    pub avoid: Option<usize>,
    /// Whether wrong bytes came for it before.
    pub corrupted: bool,
}

/// A frame as it came, unverified.
pub struct Frame {
    /// The span it belongs to.
    pub span: Arc<SpanPlan>,
    /// The chunk it is said to be.
    pub chunk: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which source sent it.
    pub source: usize,
    /// Whether wrong bytes came for it before.
    pub second_try: bool,
    _budget: OwnedSemaphorePermit,
}

/// Requests waiting, and how many chunks are not yet delivered.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Request>,
    undelivered: usize,
    all_planned: bool,
    closed: bool,
}

impl Queue {
    /// Adds planned chunks; waits while enough are planned. `false` once the queue is closed.
    pub async fn plan(&self, request: Request) -> bool {
        self.when(|state| {
            if state.closed {
                return Some(false);
            }
            (state.ready.len() < PLANNED_AHEAD).then(|| {
                state.undelivered += request.chunks.len();
                state.ready.push_back(request.clone());
                true
            })
        })
        .await
    }

    /// Says that nothing more will be planned.
    pub fn planned(&self) {
        self.lock().all_planned = true;
        self.changed.notify_waiters();
    }

    /// Puts back what could not be delivered; it goes first.
    pub fn again(&self, request: Request) {
        self.lock().ready.push_front(request);
        self.changed.notify_waiters();
    }

    /// Says that a chunk has reached its goal.
    pub fn delivered(&self) {
        let mut state = self.lock();
        state.undelivered -= 1;
        if state.undelivered == 0 {
            self.changed.notify_waiters();
        }
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Waits until every planned chunk is delivered, or the queue is closed.
    pub async fn finished(&self) {
        self.when(|state| (state.closed || (state.all_planned && state.undelivered == 0)).then_some(())).await;
    }

    /// The next request that source `source` of `sources` may take; `None` when all is delivered or the queue closed.
    async fn next(&self, source: usize, sources: usize) -> Option<Request> {
        self.when(|state| {
            if state.closed || (state.all_planned && state.undelivered == 0) {
                return Some(None);
            }
            let suits = |request: &Request| sources == 1 || request.avoid != Some(source);
            let at = state.ready.iter().position(suits)?;
            Some(state.ready.remove(at))
        })
        .await
    }

    async fn when<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                self.changed.notify_waiters();
                return found;
            }
            changed.await;
        }
    }

    // The state is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empty buffers for frames that are kept for the next one. A kept buffer is as large as the largest frame it ever held,
/// so only a few are: many small frames must not leave many large buffers behind.
const KEPT_BUFFERS: usize = 6;

/// Buffers for frames, used again and again.
#[derive(Debug, Default)]
pub struct FrameBuffers(Mutex<Vec<Vec<u8>>>);

impl FrameBuffers {
    fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(len);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
    }
}

/// What every lane shares.
pub struct Lanes {
    /// The sources, by number.
    pub sources: Vec<Arc<dyn Source>>,
    /// The work.
    pub queue: Arc<Queue>,
    /// Where complete frames go. Unbounded: the budget bounds it.
    pub frames: Sender<Frame>,
    /// Bytes of frames that may exist at once.
    pub budget: Arc<Semaphore>,
    /// Recycled memory for frames.
    pub buffers: Arc<FrameBuffers>,
    /// Counters.
    pub progress: Arc<Progress>,
    /// Where fatal errors go.
    pub abort: Arc<Abort>,
    /// Tries without progress before a request is given up.
    pub max_tries: u32,
}

/// Requests in flight per source that `bytes` of frames allow: every lane must be able to hold one frame of the largest
/// chunk, or lanes would wait for each other for ever. At least one.
pub fn connections(wanted: usize, bytes: u64, sources: usize, chunk_size: u32) -> usize {
    let frames = bytes / crate::manifest::index::max_frame_len(chunk_size as usize);
    wanted.min(frames as usize / sources.max(1)).max(1)
}

/// A budget of `bytes` for the frames of `lanes` lanes, never less than one frame of the largest chunk for each.
pub fn budget(bytes: u64, lanes: usize, chunk_size: u32) -> Arc<Semaphore> {
    let least = lanes * crate::manifest::index::max_frame_len(chunk_size as usize) as usize;
    let bytes = (bytes as usize).max(least);
    Arc::new(Semaphore::new((bytes / PERMIT + lanes).min(Semaphore::MAX_PERMITS)))
}

impl Lanes {
    /// One lane of source `number`: works until everything is delivered or the run is aborted.
    pub async fn run(self: Arc<Self>, number: usize) {
        while let Some(request) = self.queue.next(number, self.sources.len()).await {
            let mut delivered = request.chunks.start;
            let Err(error) = self.fetch(number, &request, &mut delivered).await else {
                continue;
            };
            if let Err(fatal) = self.put_back(number, request, delivered, error).await {
                self.abort.fail(fatal);
                return;
            }
        }
    }

    /// Fetches a request; `next` is the first chunk not yet handed on.
    async fn fetch(&self, number: usize, request: &Request, next: &mut usize) -> Result<()> {
        let rows = request.span.index.rows();
        let (first, last) = (&rows[request.chunks.start], &rows[request.chunks.end - 1]);
        let range = first.offset..last.offset + u64::from(last.length);
        let mut stream = source::open_range(self.sources[number].as_ref(), request.span.data, range).await?;
        let mut pending = Bytes::new();
        while *next < request.chunks.end {
            let len = rows[*next].length as usize;
            let permits = len.div_ceil(PERMIT) as u32;
            let budget = Arc::clone(&self.budget).acquire_many_owned(permits).await;
            let budget = budget.map_err(|_| Error::cancelled("fetching"))?;
            let mut bytes = self.buffers.take(len);
            while bytes.len() < len {
                if pending.is_empty() {
                    pending = stream.next().await?.ok_or_else(|| Error::source_failed("the answer ended too early"))?;
                    self.progress.fetched.fetch_add(pending.len() as u64, Relaxed);
                }
                let piece = pending.split_to(pending.len().min(len - bytes.len()));
                bytes.extend_from_slice(&piece);
            }
            let frame = Frame {
                span: Arc::clone(&request.span),
                chunk: *next,
                bytes,
                source: number,
                second_try: request.corrupted,
                _budget: budget,
            };
            self.frames.send(frame).map_err(|_| Error::cancelled("fetching"))?;
            *next += 1;
        }
        // Reads the end of the body, which also lets the connection be used again.
        stream.next().await.map(drop)
    }

    async fn put_back(&self, number: usize, request: Request, next: usize, error: Error) -> Result<()> {
        if next == request.chunks.end {
            tracing::debug!(%error, "after the last byte");
            return Ok(());
        }
        let tries = if next > request.chunks.start { 1 } else { request.tries + 1 };
        if error.kind() != Kind::Source || tries >= self.max_tries {
            return Err(error);
        }
        // What the source itself is wrong about no waiting mends; another source may do better.
        if error.retry() != Retry::Temporary && self.sources.len() == 1 {
            return Err(error);
        }
        self.progress.retries.fetch_add(1, Relaxed);
        let source = self.sources[number].name();
        tracing::warn!(source, tries, %error, "trying again");
        tokio::time::sleep(pause(tries)).await;
        // Whichever source is alive takes it; with one source this means nothing.
        self.queue.again(Request { chunks: next..request.chunks.end, tries, avoid: Some(number), ..request });
        Ok(())
    }
}

/// 250 ms, doubled per try up to 8 s, of which the upper half is random, so that many agents do not come back at once.
fn pause(tries: u32) -> Duration {
    let full = Duration::from_millis(250 << (tries - 1).min(5));
    let mut random = [0u8; 1];
    // Without randomness the pause is merely not jittered.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    full / 2 + full / 2 * u32::from(random[0]) / 255
}
