//! Subscriptions: they say that there is something new, and never what. Whoever is slow is told once, however much it was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::RunId;
use tokio::sync::watch;

/// Runs that are watched, or were, from which on those that nobody watches any more are forgotten.
const FORGET: usize = 1024;

/// All subscriptions.
#[derive(Debug)]
pub(super) struct Watchers {
    all: watch::Sender<u64>,
    runs: Mutex<HashMap<RunId, watch::Sender<u64>>>,
}

/// A subscription.
#[derive(Debug)]
pub struct Watch(watch::Receiver<u64>);

impl Watch {
    /// Returns once something was told (read it with [`super::Engine::told`]) or progress was made since the last call. `None`: the
    /// service ends.
    pub async fn changed(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Watchers { all: watch::Sender::new(0), runs: Mutex::default() }
    }
}

impl Watchers {
    pub(super) fn subscribe(&self, run: Option<&RunId>) -> Watch {
        let Some(run) = run else { return Watch(self.all.subscribe()) };
        let mut runs = self.lock();
        if runs.len() >= FORGET {
            runs.retain(|_, sender| sender.receiver_count() > 0);
        }
        Watch(runs.entry(run.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe())
    }

    /// Something is new about a run.
    pub(super) fn tell(&self, run: &RunId) {
        let mut runs = self.lock();
        if let Some(sender) = runs.get(run) {
            if sender.receiver_count() == 0 {
                runs.remove(run);
            } else {
                sender.send_modify(|count| *count += 1);
            }
        }
        drop(runs);
        self.all.send_modify(|count| *count += 1);
    }

    /// Ends all subscriptions.
    pub(super) fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
