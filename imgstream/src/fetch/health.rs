//! How a source stands: in service, left for a while after a failure, or left for good.
//!
//! A source that failed is left alone for a pause that doubles with every failure in a row; then one request tries whether
//! it is back. Requests that were in flight when it was left say nothing new, neither by failing nor by succeeding.

use std::time::Duration;

use tokio::time::Instant;

use super::patience::Patience;
use crate::error::{Error, Retry};

/// So many wrong chunks, and a source is left for good if there is another.
pub(super) const MAX_CORRUPTED: u32 = 3;

/// What a source may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Take a request.
    Now,
    /// Wait until then.
    At(Instant),
    /// Wait for what its one request shows.
    AfterProbe,
    /// Nothing any more.
    Never,
}

/// One source's standing.
#[derive(Debug)]
pub(super) struct Health {
    name: String,
    standing: Standing,
    /// Failures in a row.
    failures: u32,
    /// Grows whenever it is left: tells requests begun before from those begun after.
    epoch: u32,
    corrupted: u32,
    last_error: Option<(String, Retry)>,
    /// Bytes of frames it sent.
    pub(super) bytes: u64,
    timed_bytes: u64,
    time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    InService,
    Left { until: Instant, probing: bool },
    LeftForGood,
}

impl Health {
    pub(super) fn new(name: &str) -> Self {
        Health {
            name: name.to_owned(),
            standing: Standing::InService,
            failures: 0,
            epoch: 0,
            corrupted: 0,
            last_error: None,
            bytes: 0,
            timed_bytes: 0,
            time: Duration::ZERO,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_in_service(&self) -> bool {
        self.standing == Standing::InService
    }

    pub(super) fn is_left_for_good(&self) -> bool {
        self.standing == Standing::LeftForGood
    }

    pub(super) fn admits(&self, now: Instant) -> Admission {
        match self.standing {
            Standing::InService => Admission::Now,
            Standing::LeftForGood => Admission::Never,
            Standing::Left { probing: true, .. } => Admission::AfterProbe,
            Standing::Left { until, .. } if now < until => Admission::At(until),
            Standing::Left { .. } => Admission::Now,
        }
    }

    /// A request is sent to it; what is returned must be given back with what comes of it.
    pub(super) fn begin(&mut self) -> u32 {
        if let Standing::Left { probing, .. } = &mut self.standing {
            *probing = true;
        }
        self.epoch
    }

    /// A whole frame came. Whether this brought it back into service.
    pub(super) fn delivered(&mut self, epoch: u32, bytes: u64) -> bool {
        self.bytes += bytes;
        if epoch != self.epoch || self.is_left_for_good() {
            return false;
        }
        self.failures = 0;
        let back = !self.is_in_service();
        if back {
            self.standing = Standing::InService;
            tracing::info!(source = self.name, "is back in service");
        }
        back
    }

    /// A request was ended, not by it.
    pub(super) fn let_go(&mut self, epoch: u32) {
        if let Standing::Left { probing, .. } = &mut self.standing
            && epoch == self.epoch
        {
            *probing = false;
        }
    }

    /// A request failed.
    pub(super) fn failed(&mut self, epoch: u32, error: &Error, now: Instant, patience: &Patience) {
        self.last_error = Some((error.to_string(), error.retry()));
        if epoch != self.epoch || self.is_left_for_good() {
            tracing::debug!(source = self.name, %error, "failed as well");
            return;
        }
        self.failures += 1;
        let pause = patience.pause(self.failures, error.retry_after());
        if self.is_in_service() {
            tracing::warn!(source = self.name, %error, "left alone for {:.1} s", pause.as_secs_f64());
        } else {
            tracing::debug!(source = self.name, %error, "left alone for another {:.1} s", pause.as_secs_f64());
        }
        self.standing = Standing::Left { until: now + pause, probing: false };
        self.epoch += 1;
    }

    /// A wrong chunk came from it, as `why` says.
    pub(super) fn sent_corrupt(&mut self, why: &str) {
        self.corrupted += 1;
        self.last_error = Some((why.to_owned(), Retry::OtherSource));
    }

    /// Whether so much of what it sent was wrong that it is better done without.
    pub(super) fn is_untrustworthy(&self) -> bool {
        self.corrupted >= MAX_CORRUPTED && !self.is_left_for_good()
    }

    pub(super) fn leave_for_good(&mut self) {
        tracing::warn!(source = self.name, "left for good: {} chunks from it were corrupt", self.corrupted);
        self.standing = Standing::LeftForGood;
        self.epoch += 1;
    }

    /// A request of so many bytes took so long.
    pub(super) fn took(&mut self, bytes: u64, time: Duration) {
        self.timed_bytes += bytes;
        self.time += time;
    }

    /// How long one of its requests of `bytes` takes, from experience; nothing where there is none.
    pub(super) fn expected(&self, bytes: u64) -> Duration {
        if self.timed_bytes == 0 {
            return Duration::ZERO;
        }
        #[allow(clippy::cast_precision_loss)] // an estimate
        let share = bytes as f64 / self.timed_bytes as f64;
        Duration::try_from_secs_f64(self.time.as_secs_f64() * share).unwrap_or(Duration::MAX)
    }

    /// What it said last, with its name, and whether that may pass.
    pub(super) fn last_word(&self) -> (String, Option<Retry>) {
        match &self.last_error {
            Some((said, retry)) => (said_by(&self.name, said), Some(*retry)),
            None => (format!("{} has not failed, but sends nothing", self.name), None),
        }
    }
}

/// What a source said, with its name where that is not in it already.
pub(crate) fn said_by(source: &str, said: &str) -> String {
    if said.contains(source) { said.to_owned() } else { format!("{source}: {said}") }
}
