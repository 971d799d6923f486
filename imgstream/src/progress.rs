//! Counters of the data path, one per stage, and what they say: how far, how fast, and which stage limits.
//!
//! Writers add, readers take a [`Snapshot`]; nothing here blocks. Drawing is the commands' business.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What the data path is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Phase {
    /// Nothing yet.
    Starting = 0,
    /// Hashing what the media hold already.
    Comparing = 1,
    /// Zeroing the first and last extents, so that the old content cannot boot.
    Invalidating = 2,
    /// Fetching, verifying, writing.
    Writing = 3,
    /// Zeroing what lies beyond the image.
    ClearingTail = 4,
    /// Making the device write back its cache.
    Flushing = 5,
    /// Hashing what the media hold.
    ReadingBack = 6,
    /// Writing the withheld extents.
    Committing = 7,
    /// Finished.
    Done = 8,
}

const PHASES: [Phase; 9] = [
    Phase::Starting,
    Phase::Comparing,
    Phase::Invalidating,
    Phase::Writing,
    Phase::ClearingTail,
    Phase::Flushing,
    Phase::ReadingBack,
    Phase::Committing,
    Phase::Done,
];

/// A stage of the pipeline, as an answer to "what limits?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// No connection to any source.
    Network,
    /// The sources: workers wait for bytes.
    Source,
    /// Hashing and decoding: workers are busy.
    Decode,
    /// The device: workers wait for buffers that are still being written.
    Write,
}

impl Stage {
    /// The stage in words.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Network => "network",
            Stage::Source => "source",
            Stage::Decode => "decode",
            Stage::Write => "write",
        }
    }
}

/// The counters. Shared by everything that works on one image.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    entered: AtomicU16,
    /// Compressed bytes the plan will fetch; grows as indexes arrive.
    pub planned_fetch: AtomicU64,
    /// Raw bytes of the image.
    pub raw_total: AtomicU64,
    /// Compressed bytes received.
    pub fetched: AtomicU64,
    /// Raw bytes decoded and verified.
    pub decoded: AtomicU64,
    /// When the first data chunk went to the device.
    pub first_write: OnceLock<Instant>,
    /// Raw bytes of data chunks on the device.
    pub written: AtomicU64,
    /// Raw bytes zeroed or left as holes.
    pub zeroed: AtomicU64,
    /// Raw bytes read back and found right.
    pub read_back: AtomicU64,
    /// Raw bytes of the image looked at before anything was written.
    pub compared: AtomicU64,
    /// Of these, raw bytes that were right and are left alone.
    pub kept: AtomicU64,
    /// Bytes beyond the image that are to be cleared.
    pub tail_total: AtomicU64,
    /// Bytes beyond the image that have been cleared.
    pub tail_cleared: AtomicU64,
    /// Chunks fetched again: lost connections and wrong bytes.
    pub retries: AtomicU64,
    /// Nanoseconds workers waited for compressed bytes.
    pub source_wait: AtomicU64,
    /// Nanoseconds workers hashed and decoded.
    pub decode_busy: AtomicU64,
    /// Nanoseconds workers waited for a free buffer or a place in the device's queue.
    pub write_wait: AtomicU64,
    /// Nanoseconds in which all that was waited for was a connection.
    pub network_wait: AtomicU64,
    /// Chunks that are being verified and decoded now.
    pub decoding: AtomicUsize,
    /// Whether somebody is being asked if this run may write.
    pub asking: AtomicBool,
    /// Whether the run ended before the device had answered everything: it may still be written.
    pub given_up: AtomicBool,
}

impl Progress {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        tracing::debug!(?phase, "phase");
        self.phase.store(phase as u8, Relaxed);
        self.entered.fetch_or(1 << phase as u16, Relaxed);
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(Phase::Done)
    }

    /// The counters at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Snapshot {
            at: Instant::now(),
            phase: self.phase(),
            entered: self.entered.load(Relaxed),
            planned_fetch: get(&self.planned_fetch),
            raw_total: get(&self.raw_total),
            fetched: get(&self.fetched),
            decoded: get(&self.decoded),
            written: get(&self.written),
            zeroed: get(&self.zeroed),
            read_back: get(&self.read_back),
            compared: get(&self.compared),
            kept: get(&self.kept),
            tail_total: get(&self.tail_total),
            tail_cleared: get(&self.tail_cleared),
            retries: get(&self.retries),
            source_wait: Duration::from_nanos(get(&self.source_wait)),
            decode_busy: Duration::from_nanos(get(&self.decode_busy)),
            write_wait: Duration::from_nanos(get(&self.write_wait)),
            network_wait: Duration::from_nanos(get(&self.network_wait)),
        }
    }
}

/// Adds the time since `since` to a counter of nanoseconds.
pub fn add_time(counter: &AtomicU64, since: Instant) {
    counter.fetch_add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
}

/// The counters at one moment. Bytes and durations as in [`Progress`].
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub at: Instant,
    pub phase: Phase,
    pub entered: u16,
    pub planned_fetch: u64,
    pub raw_total: u64,
    pub fetched: u64,
    pub decoded: u64,
    pub written: u64,
    pub zeroed: u64,
    pub read_back: u64,
    pub compared: u64,
    pub kept: u64,
    pub tail_total: u64,
    pub tail_cleared: u64,
    pub retries: u64,
    pub source_wait: Duration,
    pub decode_busy: Duration,
    pub write_wait: Duration,
    pub network_wait: Duration,
}

impl Snapshot {
    /// Whether a phase has begun, be it over by now or not. A run that compares first may pass over several.
    pub fn has_entered(&self, phase: Phase) -> bool {
        self.entered >> phase as u16 & 1 == 1
    }

    /// Whether the run may have changed anything on the target.
    pub fn has_touched_target(&self) -> bool {
        self.has_entered(Phase::Invalidating) || self.has_entered(Phase::ClearingTail)
    }

    /// Raw bytes of the image that are on the target: data and zeros that have reached it, and what was there already.
    pub fn landed(&self) -> u64 {
        (self.written + self.zeroed + self.kept).min(self.raw_total)
    }

    /// The stage that limited since `earlier`: where the workers' time went. `None` when nothing happened.
    pub fn limiting_stage(&self, earlier: &Snapshot) -> Option<Stage> {
        let since = |now: Duration, then: Duration| now.saturating_sub(then);
        let shares = [
            (since(self.source_wait, earlier.source_wait), Stage::Source),
            (since(self.decode_busy, earlier.decode_busy), Stage::Decode),
            (since(self.write_wait, earlier.write_wait), Stage::Write),
        ];
        let (_, stage) = shares.into_iter().filter(|(time, _)| !time.is_zero()).max_by_key(|(time, _)| *time)?;
        // Workers cannot tell a source that is silent from one that cannot be reached; whoever watches it can.
        let unreachable = since(self.network_wait, earlier.network_wait) * 2 > self.at.duration_since(earlier.at);
        Some(if stage == Stage::Source && unreachable { Stage::Network } else { stage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_cannot_be_reached_limits_as_network() {
        let progress = Progress::default();
        let earlier = progress.snapshot();
        progress.source_wait.store(2_000_000_000, Relaxed);
        progress.decode_busy.store(1_000_000_000, Relaxed);
        let later = Snapshot { at: earlier.at + Duration::from_secs(2), ..progress.snapshot() };
        assert_eq!(later.limiting_stage(&earlier), Some(Stage::Source));
        let unreachable = Snapshot { network_wait: Duration::from_millis(1100), ..later };
        assert_eq!(unreachable.limiting_stage(&earlier), Some(Stage::Network));
        assert_eq!(earlier.limiting_stage(&earlier), None);
    }
}
