//! The flowing part: plan → lanes → workers → writer, and zero ranges beside it.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Run;
use super::follow::{Follower, PROVERS, Written};
use crate::decode::{CorruptFrame, Decoder};
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::{self, Frame, FrameBuffers, Lanes, Queue, SpanWork};
use crate::manifest::ChunkKind;
use crate::plan::{self, SpanPlan};
use crate::progress::add_time;

/// Which chunks are to flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// What the media do not hold, and the withheld chunks.
    Missing,
    /// The withheld chunks alone.
    Ends,
}

/// One flowing of chunks.
struct Flow {
    run: Arc<Run>,
    queue: Arc<Queue>,
    selection: Selection,
    /// What proves while this still writes, where anything does.
    follower: Option<Follower>,
}

/// Adjacent chunks of one span that are zeros or holes.
struct Empty {
    span: Arc<SpanPlan>,
    chunks: Range<usize>,
    kind: ChunkKind,
}

impl Empty {
    fn raw(&self) -> Range<u64> {
        let (start, _) = self.span.raw_range(self.chunks.start);
        let (last, len) = self.span.raw_range(self.chunks.end - 1);
        start..last + len as u64
    }
}

impl std::ops::Deref for Flow {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl Run {
    /// Fetches, verifies and writes the selected chunks. The withheld ones are not written, but kept in hand.
    pub(super) async fn stream(self: &Arc<Self>, selection: Selection) -> Result<()> {
        let queue = Arc::new(Queue::new(self.plans.image().sources(), &self.options.patience));
        let follows = self.options.follows() && selection == Selection::Missing;
        let (follower, written) = if follows { Some(Follower::new()).unzip() } else { (None, None) };
        let flow = Arc::new(Flow { run: Arc::clone(self), queue, selection, follower });
        let following = written.map(|written| flow.start_following(written)).transpose()?;
        let flowed = flow.flow().await;
        if let (Some(follower), Some(following)) = (&flow.follower, following) {
            follower.close();
            self.blocking(|_| {
                following.into_iter().for_each(|thread| drop(thread.join()));
                Ok(())
            })
            .await?;
        }
        let flowed = flowed.and_then(|()| self.abort.check("reading back"));
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).add(flow.queue.shares());
        flowed
    }
}

impl Flow {
    /// Starts the threads that flush and prove what is written.
    fn start_following(&self, written: Written) -> Result<Vec<JoinHandle<()>>> {
        let (onward, flushed) = written.onward();
        let mut threads = vec![self.start_thread("flush", move |run| run.flush_stretches(&written, &onward))?];
        for _ in 0..PROVERS {
            let flushed = flushed.clone();
            threads.push(self.start_thread("prove", move |run| run.prove_stretches(&flushed))?);
        }
        Ok(threads)
    }

    fn start_thread(
        &self,
        name: &str,
        work: impl FnOnce(&Run) -> Result<()> + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let run = Arc::clone(&self.run);
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let worked = std::panic::catch_unwind(AssertUnwindSafe(|| work(&run)));
                if let Err(error) = worked.unwrap_or_else(|_| Err(Error::device("a proving thread died"))) {
                    run.abort.fail(error);
                }
            })
            .context(Kind::Device, || "starting a thread".into())
    }

    /// Says that writing chunks of a span has been started.
    fn started(&self, span: &SpanPlan, chunks: Range<usize>) {
        if let Some(follower) = &self.follower {
            follower.started(span.number, chunks, || self.writer.mark());
        }
    }

    async fn flow(self: &Arc<Self>) -> Result<()> {
        let (frames, incoming) = unbounded();
        let frame_buffers = Arc::new(FrameBuffers::default());
        let workers = self.start_workers(&incoming, &frame_buffers)?;
        let (zero_ranges, zero_requests) = mpsc::channel(64);
        let zeroing = tokio::task::spawn_blocking({
            let run = Arc::clone(self);
            move || {
                let zeroed = std::panic::catch_unwind(AssertUnwindSafe(|| run.zero_ranges(zero_requests)));
                run.writer.settle();
                if zeroed.is_err() {
                    run.abort.fail(Error::device("the zeroing thread died"));
                }
            }
        });
        let mut tasks = JoinSet::new();
        let planning = Arc::clone(self);
        tasks.spawn(async move {
            if let Err(error) = planning.plan(zero_ranges).await {
                planning.abort.fail(error);
            }
        });
        self.start_lanes(&mut tasks, frames, frame_buffers);
        loop {
            tokio::select! {
                () = self.abort.token().cancelled() => break,
                () = self.queue.finished() => break,
                Some(ended) = tasks.join_next() => if ended.is_err() {
                    self.abort.fail(Error::device("a fetching task died"));
                },
            }
        }
        // Over or finished: the lanes go, and with the last sender of frames the workers.
        self.queue.close();
        tasks.shutdown().await;
        if self.abort.is_over() {
            self.pool.close();
        }
        self.run
            .blocking(move |_| {
                workers.into_iter().for_each(|worker| drop(worker.join()));
                Ok(())
            })
            .await?;
        if zeroing.await.is_err() {
            self.abort.fail(Error::device("the zeroing thread died"));
        }
        self.abort.check("writing")
    }

    fn start_lanes(&self, tasks: &mut JoinSet<()>, frames: Sender<Frame>, buffers: Arc<FrameBuffers>) {
        let sources = self.plans.image().sources().to_vec();
        let chunk_size = self.plans.image().descriptor().chunk_size;
        let count = sources.len();
        let wanted = self.options.connections;
        let connections = fetch::connections(wanted, self.options.frame_memory, count, chunk_size);
        if connections < wanted {
            tracing::warn!("{wanted} connections per source would need too much memory: using {connections}");
        }
        let lanes = Lanes {
            sources,
            queue: Arc::clone(&self.queue),
            frames,
            budget: fetch::budget(self.options.frame_memory, count * connections, chunk_size),
            buffers,
            progress: Arc::clone(&self.progress),
            abort: Arc::clone(&self.abort),
        };
        lanes.start(connections, tasks);
    }

    /// Walks the spans: data becomes requests, zeros and holes become ranges.
    async fn plan(&self, zero_ranges: mpsc::Sender<Empty>) -> Result<()> {
        for number in 0..self.plans.count() {
            let span = self.plans.load(number).await?;
            if self.selection == Selection::Ends && !self.has_ends(&span) {
                continue;
            }
            if let Some(follower) = &self.follower {
                follower.expect(&span, |chunk| self.is_wanted(&span, chunk) && !self.is_held_back(&span, chunk));
            }
            let work = SpanWork::new(Arc::clone(&span));
            for (kind, run) in plan::runs(&span.index, &|chunk| self.is_wanted(&span, chunk)) {
                if kind == ChunkKind::Data {
                    if !self.plan_data(&work, run).await {
                        return Ok(());
                    }
                    continue;
                }
                if zero_ranges.send(Empty { span: Arc::clone(&span), chunks: run, kind }).await.is_err() {
                    return Ok(());
                }
            }
        }
        self.queue.planned();
        Ok(())
    }

    /// Whether a chunk is fetched, but written only when all others are proven.
    fn is_held_back(&self, span: &SpanPlan, chunk: usize) -> bool {
        self.is_withheld(span, chunk) && span.index.rows()[chunk].kind == ChunkKind::Data
    }

    fn is_wanted(&self, span: &SpanPlan, chunk: usize) -> bool {
        let is_data = span.index.rows()[chunk].kind == ChunkKind::Data;
        let missing_end = self.is_withheld(span, chunk) && is_data && !self.is_in_hand(span, chunk);
        match self.selection {
            Selection::Ends => missing_end,
            Selection::Missing if self.is_withheld(span, chunk) && is_data => missing_end,
            Selection::Missing => !self.is_kept(span, chunk),
        }
    }

    /// Cuts a run of data chunks into requests. `false` once nobody wants them any more.
    async fn plan_data(&self, work: &Arc<SpanWork>, run: Range<usize>) -> bool {
        for request in work.requests(run, self.options.request_size) {
            let bytes = request.bytes();
            self.progress.planned_fetch.fetch_add(bytes.end - bytes.start, Relaxed);
            if !self.queue.plan(request).await {
                return false;
            }
        }
        true
    }

    fn zero_ranges(&self, mut ranges: mpsc::Receiver<Empty>) {
        while let Some(empty) = ranges.blocking_recv() {
            if self.abort.is_over() {
                return;
            }
            if let Err(error) = self.writer.zero(empty.raw(), empty.kind, &self.progress, &|| self.abort.is_over()) {
                self.abort.fail(error);
                return;
            }
            self.started(&empty.span, empty.chunks);
        }
    }

    fn start_workers(
        self: &Arc<Self>,
        incoming: &Receiver<Frame>,
        buffers: &Arc<FrameBuffers>,
    ) -> Result<Vec<JoinHandle<()>>> {
        (0..self.workers)
            .map(|number| {
                let (run, incoming, buffers) = (Arc::clone(self), incoming.clone(), Arc::clone(buffers));
                std::thread::Builder::new()
                    .name(format!("decode-{number}"))
                    .spawn(move || {
                        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| run.work(&incoming, &buffers)));
                        run.writer.settle();
                        // Its chunk would never be delivered, and the run would wait for it.
                        if worked.is_err() {
                            run.abort.fail(Error::device("a decoding thread died"));
                        }
                    })
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
        if frame.is_late() {
            buffers.give(frame.bytes);
            return Ok(());
        }
        let waiting = Instant::now();
        let Some(buffer) = self.pool.acquire() else {
            return Ok(());
        };
        add_time(&self.progress.write_wait, waiting);
        let decoding = Instant::now();
        let (raw_offset, raw_len) = frame.span.plan.raw_range(frame.chunk);
        let row = &frame.span.plan.index.rows()[frame.chunk];
        self.progress.decoding.fetch_add(1, Relaxed);
        let decoded = decoder.decode(row, raw_offset, raw_len, &frame.bytes, buffer);
        self.progress.decoding.fetch_sub(1, Relaxed);
        add_time(&self.progress.decode_busy, decoding);
        let chunk = match decoded {
            Ok(chunk) => chunk,
            Err(why) => return self.fetch_again(&frame, why),
        };
        let claim = frame.claim();
        buffers.give(frame.bytes);
        // Two copies were decoded at once: the other one was faster.
        let Some(claim) = claim else { return Ok(()) };
        self.progress.decoded.fetch_add(raw_len as u64, Relaxed);
        let writing = Instant::now();
        if self.is_withheld(&frame.span.plan, frame.chunk) {
            // It is refused now, and not when all else is written.
            self.writer.target().check_placeable(raw_offset, chunk.bytes())?;
            self.withheld().push(chunk);
        } else {
            self.progress.first_write.get_or_init(Instant::now);
            self.writer.write(chunk)?;
            self.started(&frame.span.plan, frame.chunk..frame.chunk + 1);
        }
        add_time(&self.progress.write_wait, writing);
        self.queue.delivered(claim);
        Ok(())
    }

    /// Wrong bytes are fetched once more, elsewhere if there is an elsewhere; the source that sent them is named.
    fn fetch_again(&self, frame: &Frame, why: CorruptFrame) -> Result<()> {
        if matches!(why, CorruptFrame::Format(_)) {
            let source = self.plans.image().sources()[frame.source].name();
            return Err(why.into_error(&format!("{} from {source}", frame.span.plan.chunk_name(frame.chunk))));
        }
        if self.queue.corrupt(frame, why)? {
            self.progress.retries.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}
