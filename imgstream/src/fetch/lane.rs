//! A lane: one request at a time to one source, frame by frame to the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::board::Failed;
use super::memory::{FrameBuffers, permits};
use super::queue::Queue;
use super::work::{Frame, Request};
use crate::abort::Abort;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::source::{self, ExactStream, Source};

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
}

impl Lanes {
    /// Starts `connections` lanes per source, and the watch that ends the run when nothing comes from any of them.
    pub fn start(self, connections: usize, tasks: &mut JoinSet<()>) {
        let (queue, abort) = (Arc::clone(&self.queue), Arc::clone(&self.abort));
        tasks.spawn(async move { abort.fail(queue.silence().await) });
        let (sources, lanes) = (self.sources.len(), Arc::new(self));
        for number in 0..sources * connections {
            tasks.spawn(Arc::clone(&lanes).run(number, number % sources));
        }
    }

    /// Lane `number`, which belongs to a source: works until everything is delivered or the run is aborted.
    async fn run(self: Arc<Self>, number: usize, source: usize) {
        while let Some((request, superseded)) = self.queue.next(number, source).await {
            let fetched = tokio::select! {
                biased;
                () = superseded.cancelled() => None,
                fetched = self.fetch(number, source, &request) => Some(fetched),
            };
            match fetched {
                None => self.queue.superseded(number),
                Some(Ok(())) => self.queue.landed(number),
                Some(Err(error)) => match self.queue.failed(number, error) {
                    Failed::Again => drop(self.progress.retries.fetch_add(1, Relaxed)),
                    Failed::NotNeeded => {}
                    Failed::Fatal(error) => return self.abort.fail(error),
                },
            }
        }
    }

    async fn fetch(&self, lane: usize, source: usize, request: &Request) -> Result<()> {
        let span = &request.span;
        let stream = source::open_range(self.sources[source].as_ref(), span.plan.data, request.bytes()).await?;
        let mut bytes = Pieces { stream, pending: Bytes::new(), progress: &self.progress };
        for chunk in request.chunks.clone() {
            let len = span.plan.index.rows()[chunk].length as usize;
            if span.is_claimed(chunk) {
                bytes.take(len, |_| ()).await?;
                drop(self.queue.arrived(lane, len));
                continue;
            }
            let budget = Arc::clone(&self.budget).acquire_many_owned(permits(len)).await;
            let budget = budget.map_err(|_| Error::cancelled("fetching"))?;
            let mut frame = self.buffers.take(len);
            bytes.take(len, |piece| frame.extend_from_slice(piece)).await?;
            let frame = Frame {
                span: Arc::clone(span),
                chunk,
                bytes: frame,
                source,
                second_try: request.second_try,
                _budget: budget,
                _in_hand: self.queue.arrived(lane, len),
            };
            self.frames.send(frame).map_err(|_| Error::cancelled("fetching"))?;
        }
        // Reads the end of the body, which also lets the connection be used again.
        bytes.stream.next().await.map(drop)
    }
}

/// The bytes of an answer, counted as they come.
struct Pieces<'a> {
    stream: ExactStream,
    pending: Bytes,
    progress: &'a Progress,
}

impl Pieces<'_> {
    /// Hands the next `len` bytes to `with`, piece by piece.
    async fn take(&mut self, mut len: usize, mut with: impl FnMut(&[u8])) -> Result<()> {
        while len > 0 {
            if self.pending.is_empty() {
                let next = self.stream.next().await?;
                self.pending = next.ok_or_else(|| Error::source_failed("the answer ended too early"))?;
                self.progress.fetched.fetch_add(self.pending.len() as u64, Relaxed);
            }
            let piece = self.pending.split_to(self.pending.len().min(len));
            len -= piece.len();
            with(&piece);
        }
        Ok(())
    }
}
