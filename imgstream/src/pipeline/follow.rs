//! The proof that follows the writing: what has been written is flushed and read back, stretch by stretch, while what comes
//! next is still on its way. Reading then takes no time of its own where cores and device have some to spare.
//!
//! A chunk proven early could still be hit by a later write that the device lets land in the wrong place. Where that write
//! belonged it is then missing, which its own proof finds; only a device that stores it in both places, as one does that is
//! smaller than it says, would pass. So one block of every chunk proven early is looked at again when all is written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Run;
use crate::error::Result;
use crate::plan::SpanPlan;
use crate::readback::{self, Glimpse, Readback};
use crate::sink::Mark;

/// Raw bytes that are flushed and read back together.
const STRETCH: u64 = 128 << 20;
/// Stretches that wait for their flush, and for their proof. What comes when so many do is proven when all is written.
const WAITING: usize = 32;
/// Stretches that are proven at once: while the last chunks of one are read, the device has something else to do.
pub(super) const PROVERS: usize = 3;

/// Counts what is written, and hands whole stretches to the thread that proves them.
pub(super) struct Follower {
    spans: Mutex<BTreeMap<usize, Arc<Stretches>>>,
    /// Gone when nothing more is followed.
    written: Mutex<Option<Sender<Stretch>>>,
    closed: Arc<AtomicBool>,
}

/// How many chunks of each stretch of a span are still to be written.
struct Stretches {
    plan: Arc<SpanPlan>,
    chunks: usize,
    left: Vec<AtomicUsize>,
    open: AtomicUsize,
}

/// Chunks of which every one that is to be written has been started by `mark`.
pub(super) struct Stretch {
    plan: Arc<SpanPlan>,
    chunks: Range<usize>,
    mark: Mark,
}

/// Where a thread that flushes or proves stretches takes them from.
#[derive(Clone)]
pub(super) struct Written {
    stretches: Receiver<Stretch>,
    closed: Arc<AtomicBool>,
}

impl Follower {
    pub(super) fn new() -> (Self, Written) {
        let (written, stretches) = bounded(WAITING);
        let closed = Arc::new(AtomicBool::new(false));
        let follower =
            Follower { spans: Mutex::default(), written: Mutex::new(Some(written)), closed: Arc::clone(&closed) };
        (follower, Written { stretches, closed })
    }

    /// Announces the chunks of a span that will be written.
    pub(super) fn expect(&self, plan: &Arc<SpanPlan>, is_written: impl Fn(usize) -> bool) {
        let (count, chunk_size) = (plan.index.rows().len(), u64::from(plan.index.chunk_size()));
        let chunks = (STRETCH / chunk_size).max(1) as usize;
        let expected = |start: usize| (start..(start + chunks).min(count)).filter(|chunk| is_written(*chunk)).count();
        let left: Vec<usize> = (0..count).step_by(chunks).map(expected).collect();
        let open = left.iter().filter(|left| **left > 0).count();
        if open > 0 {
            let left = left.into_iter().map(AtomicUsize::new).collect();
            let stretches = Stretches { plan: Arc::clone(plan), chunks, left, open: AtomicUsize::new(open) };
            self.lock().insert(plan.number, Arc::new(stretches));
        }
    }

    /// Says that writing these chunks has been started; `mark` tells the moment.
    pub(super) fn started(&self, span: usize, chunks: Range<usize>, mark: impl Fn() -> Mark) {
        let Some(stretches) = self.lock().get(&span).cloned() else { return };
        let mut start = chunks.start;
        while start < chunks.end {
            let number = start / stretches.chunks;
            let end = ((number + 1) * stretches.chunks).min(chunks.end);
            if stretches.left[number].fetch_sub(end - start, AcqRel) == end - start {
                let whole =
                    number * stretches.chunks..((number + 1) * stretches.chunks).min(stretches.plan.index.rows().len());
                let stretch = Stretch { plan: Arc::clone(&stretches.plan), chunks: whole, mark: mark() };
                // Refused when too many wait: then it is proven later.
                if let Some(written) = &*self.written.lock().unwrap_or_else(PoisonError::into_inner) {
                    let _ = written.try_send(stretch);
                }
                if stretches.open.fetch_sub(1, AcqRel) == 1 {
                    self.lock().remove(&span);
                }
            }
            start = end;
        }
    }

    /// Nothing more is followed: what waits is proven later.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Arc<Stretches>>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// The next stretch; `None` when nothing more is followed.
    fn next(&self) -> Option<Stretch> {
        self.stretches.recv().ok().filter(|_| !self.closed.load(Relaxed))
    }

    /// Where what comes from here goes next.
    pub(super) fn onward(&self) -> (Sender<Stretch>, Written) {
        let (sender, stretches) = bounded(WAITING);
        (sender, Written { stretches, closed: Arc::clone(&self.closed) })
    }
}

/// One block of every chunk of a span that was proven early, by the first chunk of each stretch.
type OfSpan = BTreeMap<usize, Vec<Option<Glimpse>>>;

/// One block of every chunk that was proven early, by span.
#[derive(Debug, Default)]
pub(super) struct Glimpses(Mutex<BTreeMap<usize, OfSpan>>);

impl Run {
    /// Flushes stretches as they are written, and hands them on, until nobody writes any more.
    pub(super) fn flush_stretches(&self, written: &Written, flushed: &Sender<Stretch>) -> Result<()> {
        while let Some(first) = written.next() {
            let stretches: Vec<Stretch> = [first].into_iter().chain(written.stretches.try_iter()).collect();
            if let Some(last) = stretches.last() {
                self.writer.flush_up_to(last.mark)?;
            }
            // Refused when nobody proves any more.
            if stretches.into_iter().try_for_each(|stretch| flushed.send(stretch)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Proves flushed stretches until no more come.
    pub(super) fn prove_stretches(&self, flushed: &Written) -> Result<()> {
        while let Some(stretch) = flushed.next() {
            self.prove_stretch(&stretch)?;
        }
        Ok(())
    }

    fn prove_stretch(&self, stretch: &Stretch) -> Result<()> {
        let (plan, first) = (&stretch.plan, stretch.chunks.start);
        let glimpses = Mutex::new(vec![None; stretch.chunks.len()]);
        let tell = |found: readback::Found| {
            self.count_read_back(plan, &found);
            glimpses.lock().unwrap_or_else(PoisonError::into_inner)[found.chunk - first] = found.glimpse;
        };
        let is_to_prove =
            |chunk| stretch.chunks.contains(&chunk) && !self.is_withheld(plan, chunk) && !self.is_kept(plan, chunk);
        let readback =
            Readback { threads: readback::threads().div_ceil(PROVERS), glimpses: true, ..self.readback(&tell) };
        let differing = readback.compare(plan, &is_to_prove)?;
        if let Some(first) = differing.first() {
            return Err(self.chunks_wrong(differing.len(), &plan.chunk_name(*first)));
        }
        self.proven.set(plan.number, stretch.chunks.clone(), &[]);
        let glimpses = glimpses.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.glimpses.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(plan.number).or_default().insert(first, glimpses);
        Ok(())
    }

    /// Looks again at what was proven while other chunks were still being written.
    pub(super) async fn look_again(self: &Arc<Self>) -> Result<()> {
        self.blocking(|run| {
            let glimpses = std::mem::take(&mut *run.glimpses.0.lock().unwrap_or_else(PoisonError::into_inner));
            for (span, stretches) in glimpses {
                run.look_again_at(span, stretches)?;
            }
            Ok(())
        })
        .await
    }

    fn look_again_at(&self, span: usize, stretches: OfSpan) -> Result<()> {
        let descriptor = self.plans.image().descriptor();
        let (span_offset, chunk_size) = (descriptor.spans[span].raw_offset, u64::from(descriptor.chunk_size));
        let seen: Vec<(u64, Glimpse)> = stretches
            .into_iter()
            .flat_map(|(first, glimpses)| (first..).zip(glimpses))
            .filter_map(|(chunk, glimpse)| Some((span_offset + chunk as u64 * chunk_size, glimpse?)))
            .collect();
        let changed = self.readback(&|_| ()).changed(&seen)?;
        match changed.first() {
            None => Ok(()),
            Some(raw_offset) => Err(self.read_back_wrong(&format!(
                "{} chunks changed after they had been proven; the first: raw offset {raw_offset} of span {span}",
                changed.len()
            ))),
        }
    }
}
