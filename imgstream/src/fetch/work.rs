//! What is to be fetched: spans with a mark per chunk, requests, and frames as they came.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::error::Retry;
use crate::manifest::ChunkRow;
use crate::plan::SpanPlan;

/// A span, and which of its chunks have been claimed for writing.
#[derive(Debug)]
pub struct SpanWork {
    /// The span.
    pub plan: Arc<SpanPlan>,
    claimed: Box<[AtomicBool]>,
}

impl SpanWork {
    /// Of a span of which nothing is claimed.
    pub fn new(plan: Arc<SpanPlan>) -> Arc<Self> {
        let claimed = plan.index.rows().iter().map(|_| AtomicBool::new(false)).collect();
        Arc::new(SpanWork { plan, claimed })
    }

    /// Cuts a run of adjacent data chunks into requests of at most `size` bytes, or of one chunk where that is larger.
    pub fn requests(self: &Arc<Self>, run: Range<usize>, size: u64) -> impl Iterator<Item = Request> + use<> {
        let (work, mut start) = (Arc::clone(self), run.start);
        std::iter::from_fn(move || {
            let rows = work.plan.index.rows().get(start..run.end).filter(|rows| !rows.is_empty())?;
            let end_of = |row: &ChunkRow| row.offset + u64::from(row.length);
            let fitting = rows.partition_point(|row| end_of(row) - rows[0].offset <= size).max(1);
            start += fitting;
            Some(Request::new(Arc::clone(&work), start - fitting..start))
        })
    }

    /// Whether a chunk needs nothing more: right bytes of it came and are, or are being, written.
    pub fn is_claimed(&self, chunk: usize) -> bool {
        self.claimed[chunk].load(Relaxed)
    }
}

/// The right to write a chunk, and to count it as delivered. There is one per chunk, however many copies of it come.
#[derive(Debug)]
#[must_use = "a claimed chunk that is never delivered is waited for for ever"]
pub struct Claim {
    pub(super) span: Arc<SpanWork>,
}

/// A run of adjacent data chunks of one span, still to be fetched.
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) span: Arc<SpanWork>,
    pub(super) chunks: Range<usize>,
    /// When a source was asked for it first.
    pub(super) since: Option<Instant>,
    /// How often it failed, with or without progress.
    pub(super) failures: u32,
    /// The source that failed last to serve it: it takes others first.
    pub(super) avoid: Option<usize>,
    /// The sources that cannot serve it, whenever they are asked.
    pub(super) refused: Vec<usize>,
    /// Whether it is for a chunk of which wrong bytes came before.
    pub(super) second_try: bool,
    /// The source that sent those, where there are others: asked again only when nobody else is left.
    pub(super) corrupt_at: Option<usize>,
}

impl Request {
    /// Of `chunks`, which must not be empty.
    pub fn new(span: Arc<SpanWork>, chunks: Range<usize>) -> Self {
        Request {
            span,
            chunks,
            since: None,
            failures: 0,
            avoid: None,
            refused: Vec::new(),
            second_try: false,
            corrupt_at: None,
        }
    }

    /// Its bytes in the data blob.
    pub fn bytes(&self) -> Range<u64> {
        let rows = self.span.plan.index.rows();
        let (first, last) = (&rows[self.chunks.start], &rows[self.chunks.end - 1]);
        first.offset..last.offset + u64::from(last.length)
    }

    /// Notes what a failure of `source` tells about it.
    pub(super) fn failed_at(&mut self, source: usize, retry: Retry) {
        self.failures += 1;
        // Waiting mends a lost connection; what a source does not have or does not do, only another one does.
        if retry == Retry::Temporary {
            self.avoid = Some(source);
        } else {
            self.refused.push(source);
        }
    }

    /// Leaves out what is claimed at its ends; `false` where nothing remains.
    pub(super) fn trim(&mut self) -> bool {
        while !self.chunks.is_empty() && self.span.is_claimed(self.chunks.start) {
            self.chunks.start += 1;
        }
        while !self.chunks.is_empty() && self.span.is_claimed(self.chunks.end - 1) {
            self.chunks.end -= 1;
        }
        !self.chunks.is_empty()
    }
}

/// A frame as it came, unverified.
pub struct Frame {
    /// The span it belongs to.
    pub span: Arc<SpanWork>,
    /// The chunk it is said to be.
    pub chunk: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which source sent it.
    pub source: usize,
    pub(super) second_try: bool,
    pub(super) _budget: OwnedSemaphorePermit,
    pub(super) _in_hand: InHand,
}

impl Frame {
    /// Whether another copy of its chunk was faster: this one is of no use.
    pub fn is_late(&self) -> bool {
        self.span.is_claimed(self.chunk)
    }

    /// Claims its chunk, whose bytes must have been verified. `None` where another copy was faster.
    pub fn claim(&self) -> Option<Claim> {
        let first = !self.span.claimed[self.chunk].swap(true, Relaxed);
        first.then(|| Claim { span: Arc::clone(&self.span) })
    }
}

/// Counts a frame for as long as it lives.
pub(super) struct InHand(Arc<AtomicUsize>);

impl InHand {
    pub(super) fn on(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Relaxed);
        InHand(Arc::clone(counter))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
