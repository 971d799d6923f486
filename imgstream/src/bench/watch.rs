//! What is being measured now, for whoever draws it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::{Progress, Snapshot};

/// Told of a remark that people should read.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// Looked at by a display while a benchmark runs.
pub struct Watch {
    now: Mutex<Step>,
    tell: Tell,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What is being measured.
#[derive(Debug, Clone)]
pub struct Step {
    /// In words.
    pub what: &'static str,
    bytes: u64,
    limit: Duration,
    since: Instant,
    progress: Arc<Progress>,
    done: fn(&Snapshot) -> u64,
}

impl Step {
    fn new(what: &'static str, bytes: u64, limit: Duration, done: fn(&Snapshot) -> u64) -> Self {
        Step { what, bytes, limit, since: Instant::now(), progress: Arc::default(), done }
    }

    /// Bytes that the present run has moved.
    pub fn done(&self) -> u64 {
        (self.done)(&self.progress.snapshot()).min(self.bytes)
    }

    /// Bytes that it will have moved at its end: all there are, or, at its present pace, what its time allows.
    pub fn total(&self) -> u64 {
        if self.limit == Duration::MAX {
            return self.bytes;
        }
        let passed = self.since.elapsed().as_secs_f64().max(1e-3);
        let paced = self.done() as f64 * (self.limit.as_secs_f64() / passed).max(1.0);
        self.bytes.min(paced as u64)
    }
}

impl Watch {
    /// Remarks go to `tell`.
    pub fn new(tell: Tell) -> Self {
        let step = Step::new("preparing", 0, Duration::MAX, |_| 0);
        Watch { now: Mutex::new(step), tell }
    }

    /// What is being measured now.
    pub fn now(&self) -> Step {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a run of `what`, of so many bytes or so long, which counts in what is returned.
    pub(super) fn begin(
        &self,
        what: &'static str,
        bytes: u64,
        limit: Duration,
        done: fn(&Snapshot) -> u64,
    ) -> Arc<Progress> {
        let step = Step::new(what, bytes, limit, done);
        let progress = Arc::clone(&step.progress);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = step;
        progress
    }

    /// Says something to people.
    pub(super) fn tell(&self, remark: &str) {
        (self.tell)(remark);
    }
}
