//! Subscriptions: they say that there is something new, and never what. Whoever is slow is told once, however much it was.
//!
//! What was told stands in the store, and whoever hears of it reads it there. Progress does not, and is made a thousand times as often:
//! it is counted apart, so that it makes nobody ask the store. Whoever watches all runs hears of no progress at all, but looks at all of
//! them now and then ([`super::Engine::fleet`]).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::RunId;
use tokio::sync::watch;
use tokio::time::Instant;

/// Runs that are watched, or were, from which on those that nobody watches any more are forgotten.
const FORGET: usize = 1024;

/// How often there was something new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    told: u64,
    /// When something was told last.
    told_at: Option<Instant>,
    progress: u64,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: watch::Sender<Counts>,
    runs: Mutex<HashMap<RunId, watch::Sender<Counts>>>,
}

/// A subscription.
#[derive(Debug)]
pub struct Watch {
    counts: watch::Receiver<Counts>,
    seen: Counts,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// Something was told, the latest of it then: read it with [`super::Engine::told`].
    pub told: Option<Instant>,
    /// The run that is watched got on: look at it with [`super::Engine::progress`].
    pub progress: bool,
}

impl Watch {
    fn of(sender: &watch::Sender<Counts>) -> Self {
        let mut counts = sender.subscribe();
        let seen = *counts.borrow_and_update();
        Watch { counts, seen }
    }

    /// Returns once there is something new since the last call. `None`: the service ends, or keeps the run no longer.
    pub async fn changed(&mut self) -> Option<Fresh> {
        self.counts.changed().await.ok()?;
        let now = *self.counts.borrow_and_update();
        let told = now.told_at.filter(|_| now.told != self.seen.told);
        let fresh = Fresh { told, progress: now.progress != self.seen.progress };
        self.seen = now;
        Some(fresh)
    }
}

impl Watchers {
    pub(super) fn subscribe(&self, run: Option<&RunId>) -> Watch {
        let Some(run) = run else { return Watch::of(&self.all) };
        let mut runs = self.lock();
        if runs.len() >= FORGET {
            runs.retain(|_, sender| sender.receiver_count() > 0);
        }
        Watch::of(runs.entry(run.clone()).or_default())
    }

    /// Something was told about a run.
    pub(super) fn tell(&self, run: &RunId) {
        let at = Instant::now();
        let count = |counts: &mut Counts| (counts.told, counts.told_at) = (counts.told + 1, Some(at));
        self.count(run, count);
        self.all.send_modify(count);
    }

    /// A run got on.
    pub(super) fn advance(&self, run: &RunId) {
        self.count(run, |counts| counts.progress += 1);
    }

    fn count(&self, run: &RunId, count: impl FnOnce(&mut Counts)) {
        let mut runs = self.lock();
        if let Some(sender) = runs.get(run) {
            if sender.receiver_count() == 0 {
                runs.remove(run);
            } else {
                sender.send_modify(count);
            }
        }
    }

    /// A run is not kept any longer: whoever watches it hears the end of it.
    pub(super) fn forget(&self, run: &RunId) {
        self.lock().remove(run);
    }

    /// Ends all subscriptions.
    pub(super) fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, watch::Sender<Counts>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_was_told_and_progress_are_heard_apart_and_each_once() {
        let watchers = Watchers::default();
        let run: RunId = "r-1".to_owned().try_into().unwrap();
        let mut one = watchers.subscribe(Some(&run));
        let mut all = watchers.subscribe(None);
        watchers.advance(&run);
        watchers.advance(&run);
        let heard = |fresh: Option<Option<Fresh>>| fresh.flatten().map(|fresh| (fresh.told.is_some(), fresh.progress));
        assert_eq!(heard(one.changed().now_or_never()), Some((false, true)));
        assert_eq!(one.changed().now_or_never(), None);
        assert_eq!(all.changed().now_or_never(), None, "progress of one wakes nobody who watches all");
        watchers.tell(&run);
        watchers.advance(&run);
        assert_eq!(heard(one.changed().now_or_never()), Some((true, true)));
        assert_eq!(heard(all.changed().now_or_never()), Some((true, false)));
        let mut late = watchers.subscribe(Some(&run));
        assert_eq!(late.changed().now_or_never(), None, "what was before is not new");
    }
}
