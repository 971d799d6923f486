//! What is being measured now, for whoever draws it.

use std::sync::{Arc, Mutex, PoisonError};

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
    /// Bytes that one run of it moves.
    pub total: u64,
    progress: Arc<Progress>,
    done: fn(&Snapshot) -> u64,
}

impl Step {
    /// Bytes that the present run has moved.
    pub fn done(&self) -> u64 {
        (self.done)(&self.progress.snapshot()).min(self.total)
    }
}

impl Watch {
    /// Remarks go to `tell`.
    pub fn new(tell: Tell) -> Self {
        let step = Step { what: "preparing", total: 0, progress: Arc::default(), done: |_| 0 };
        Watch { now: Mutex::new(step), tell }
    }

    /// What is being measured now.
    pub fn now(&self) -> Step {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a run of `what`, which counts in what is returned.
    pub(super) fn begin(&self, what: &'static str, total: u64, done: fn(&Snapshot) -> u64) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        let step = Step { what, total, progress: Arc::clone(&progress), done };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = step;
        progress
    }

    /// Says something to people.
    pub(super) fn tell(&self, remark: &str) {
        (self.tell)(remark);
    }
}
