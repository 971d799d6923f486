//! How far the agent of a run is. Each run has a lock of its own for that, for it is said ten thousand times a second, and is nobody
//! else's business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::event::Progress;

/// Counts looks at all runs: whoever has looked once can look again at those only that got on since.
#[derive(Debug)]
pub(super) struct Looks(AtomicU64);

impl Default for Looks {
    fn default() -> Self {
        Looks(AtomicU64::new(1))
    }
}

impl Looks {
    /// Begins a look, and names it. What is set from now on is newer.
    pub(super) fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The latest progress of one attempt.
#[derive(Debug, Default)]
pub(super) struct Gauge(Mutex<Option<Latest>>);

#[derive(Debug)]
struct Latest {
    progress: Progress,
    /// The look after which it was set.
    after: u64,
}

impl Gauge {
    /// Sets it. The look is read under the lock: a look that begins meanwhile either finds this here, or counts it for the next.
    pub(super) fn set(&self, progress: Progress, looks: &Looks) {
        let mut latest = self.lock();
        *latest = Some(Latest { progress, after: looks.0.load(Ordering::SeqCst) });
    }

    /// What was set last.
    pub(super) fn get(&self) -> Option<Progress> {
        self.lock().as_ref().map(|latest| latest.progress.clone())
    }

    /// What was set last, as far as `of` wants it, where that was after the look of this name; after 0 is all that was ever set.
    pub(super) fn since<T>(&self, look: u64, of: impl FnOnce(&Progress) -> T) -> Option<T> {
        self.lock().as_ref().filter(|latest| latest.after >= look).map(|latest| of(&latest.progress))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Latest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::{Phase, Rates, Step};

    use super::*;

    fn so_far(bytes: u64) -> Progress {
        Progress {
            phase: Phase::Stream,
            step: Step::Write,
            bytes,
            total_bytes: 100,
            chunks: 0,
            total_chunks: 0,
            rates: Rates::default(),
            limited_by: None,
            eta_seconds: None,
        }
    }

    #[test]
    fn each_look_finds_what_was_set_since_the_one_before() {
        let (looks, gauge) = (Looks::default(), Gauge::default());
        let bytes = |look| gauge.since(look, |progress| progress.bytes);
        assert_eq!(bytes(0), None);
        gauge.set(so_far(1), &looks);
        let first = looks.begin();
        assert_eq!((bytes(0), bytes(first)), (Some(1), None));
        gauge.set(so_far(2), &looks);
        let second = looks.begin();
        assert_eq!((bytes(first), bytes(second)), (Some(2), None));
        assert_eq!(gauge.get().unwrap().bytes, 2);
    }

    #[test]
    fn nothing_is_missed_while_others_look() {
        let (looks, gauge) = (Looks::default(), Gauge::default());
        const MOST: u64 = 100_000;
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=MOST).for_each(|bytes| gauge.set(so_far(bytes), &looks)));
            let (mut look, mut last) = (0, 0);
            while last < MOST {
                let next = looks.begin();
                last = gauge.since(look, |progress| progress.bytes).unwrap_or(last);
                look = next;
            }
        });
    }
}
