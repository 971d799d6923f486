//! What was done, how long it took, and what was learnt on the way: the summary's facts.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Run;
use super::tail::Tail;
use super::withheld::Placement;
use crate::fetch::Share;
use crate::progress::Stage;

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
    /// Raw bytes that the media held already; `None` unless the run was to compare first.
    pub kept_bytes: Option<u64>,
    /// What became of the device beyond the image; `None` when it is not larger.
    pub tail: Option<Tail>,
    /// What became of the image's GPT, where the device is larger and the image has one: `moved`, or why not.
    pub gpt: Option<String>,
    /// Whether the kernel shows the new partitions: `shown`, or why not. `None` for what shows none.
    pub partitions: Option<String>,
    /// What came from each source.
    pub sources: Vec<Share>,
    /// Requests that had to be repeated.
    pub retries: u64,
    /// The write engine.
    pub engine: String,
    /// What the automatic choice could not have.
    pub fallback: Option<String>,
    /// The stage that limited writing.
    pub limited_by: Option<Stage>,
    /// Seconds spent comparing first; `None` unless the run was to.
    pub compare_seconds: Option<f64>,
    /// Seconds from the start of the run, when the descriptor had just been verified, until the first data chunk went to the
    /// device; `None` when none did. A run that compares first has done that in this time.
    pub first_write_seconds: Option<f64>,
    /// Seconds spent fetching, verifying and writing, and reading back meanwhile.
    pub write_seconds: f64,
    /// Seconds spent afterwards on reading back the rest and on committing.
    pub read_back_seconds: f64,
    /// Seconds in all.
    pub total_seconds: f64,
}

/// What is learnt on the way and told at the end.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) shares: Vec<Share>,
    pub(super) tail: Option<Tail>,
    pub(super) partitions: Option<String>,
}

impl Outcome {
    /// Adds what came from each source in one flow.
    pub(super) fn add(&mut self, shares: Vec<Share>) {
        for share in shares {
            match self.shares.iter_mut().find(|known| known.source == share.source) {
                Some(known) => known.bytes += share.bytes,
                None => self.shares.push(share),
            }
        }
    }
}

/// How long the parts took.
pub(super) struct Times {
    start: Instant,
    last: Instant,
    comparing: Duration,
    writing: Duration,
}

impl Times {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Times { start: now, last: now, comparing: Duration::ZERO, writing: Duration::ZERO }
    }

    pub(super) fn compared(&mut self) {
        self.comparing = self.last.elapsed();
        self.last = Instant::now();
    }

    pub(super) fn written(&mut self) {
        self.writing = self.last.elapsed();
        self.last = Instant::now();
    }

    /// From the end of writing to now; nothing when nothing was written.
    fn reading_back(&self) -> Duration {
        if self.writing.is_zero() { Duration::ZERO } else { self.last.elapsed() }
    }
}

impl Run {
    pub(super) fn report(&self, times: &Times, limited_by: Option<Stage>) -> Report {
        let now = self.progress.snapshot();
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            raw_bytes: now.raw_total,
            data_bytes: now.raw_total - now.zeroed - now.kept,
            zero_bytes: now.zeroed,
            fetched_bytes: now.fetched,
            read_back_bytes: self.options.read_back.then_some(now.read_back),
            kept_bytes: self.options.resume.then_some(now.kept),
            tail: outcome.tail.take(),
            gpt: self.placement.get().and_then(Placement::gpt),
            partitions: outcome.partitions.take(),
            sources: std::mem::take(&mut outcome.shares),
            retries: now.retries,
            engine: self.writer.engine().to_string(),
            fallback: self.writer.fallback().map(str::to_owned),
            limited_by,
            compare_seconds: self.options.resume.then_some(times.comparing.as_secs_f64()),
            first_write_seconds: self.progress.first_write.get().map(|at| (*at - times.start).as_secs_f64()),
            write_seconds: times.writing.as_secs_f64(),
            read_back_seconds: times.reading_back().as_secs_f64(),
            total_seconds: times.start.elapsed().as_secs_f64(),
        }
    }
}
