//! Whether this run may still write: its reservation is its own, its paths lead to its LUN. Asked of the storage, by time and
//! before what matters. What is lost once stays lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use imgstream::error::{Error, Kind, Result, Retry};
use imgstream::pipeline::Permit;
use tokio_util::sync::CancellationToken;

use super::identity;
use super::multipath::Map;
use super::reservation;

/// How often is asked while nothing else asks.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a permit waits for a path that brings an answer, as writes wait for one (`no_path_retry` in multipath.conf).
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Why the permission to write is gone, as often as it is asked for.
#[derive(Debug, Clone)]
struct Loss {
    message: String,
    hint: Option<String>,
}

impl Loss {
    fn error(&self) -> Error {
        let error = Error::target(self.message.clone());
        match &self.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        }
    }
}

/// Guards a run's right to write.
#[derive(Debug, Default)]
pub struct Guard {
    reservation: Option<reservation::Held>,
    map: Option<Map>,
    lost: Mutex<Option<Loss>>,
}

impl Guard {
    /// For a target with this reservation and these paths, where it has any.
    pub fn new(reservation: Option<reservation::Held>, map: Option<Map>) -> Self {
        Guard { reservation, map, lost: Mutex::default() }
    }

    /// Why this run may not write any more, where that is known already.
    pub fn lost(&self) -> Option<Error> {
        self.lock().as_ref().map(Loss::error)
    }

    /// Asks by time, until the right to write is lost; then ends the run by `cancel`. Storage that does not answer has not
    /// said no: if it is gone, the writes themselves say so.
    pub async fn keep(self: &Arc<Self>, cancel: &CancellationToken) {
        if self.map.is_none() && self.reservation.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(PERIOD).await;
            self.ask_once().await;
            if self.lost().is_some() {
                return cancel.cancel();
            }
        }
    }

    /// What counts is what is noted of the answer: that it could not be asked says nothing.
    async fn ask_once(self: &Arc<Self>) {
        let guard = Arc::clone(self);
        let asking = tokio::task::spawn_blocking(move || guard.ask().map_err(|error| guard.note(&error)));
        let _ = asking.await;
    }

    /// Remembers a loss, where the error is one.
    fn note(&self, error: &Error) {
        if error.kind() == Kind::Target {
            let loss = Loss { message: error.to_string(), hint: error.hint().map(str::to_owned) };
            self.lock().get_or_insert(loss);
        }
    }

    /// What is behind an error of a run: that it lost the right to write, or that its last path is gone. Else the error itself.
    pub async fn explain(self: &Arc<Self>, error: Error) -> Error {
        let is_open = self.lost().is_none() && matches!(error.kind(), Kind::Device | Kind::Proof);
        if is_open {
            self.ask_once().await;
        }
        if let Some(lost) = self.lost() {
            return match error.kind() {
                // The permit's own refusal, with what the target may hold.
                Kind::Target => error,
                Kind::Cancelled => lost,
                _ => lost.in_addition(&format!("noticed by: {error}")),
            };
        }
        match &self.map {
            Some(map) if is_open && !map.has_live_path().await => error
                .in_addition(&format!("no path to LUN {} is live", map.wwid))
                .with_retry(Retry::Temporary)
                .with_hint("bring its paths back (multipath -ll, lszfcp -D), then run again with `options.resume: true` and the next epoch"),
            _ => error,
        }
    }

    fn ask(&self) -> Result<()> {
        // In this order: on another LUN the reservation is not ours either, and that would say less.
        if let Some(map) = &self.map {
            identity::check(map)?;
        }
        self.reservation.as_ref().map_or(Ok(()), reservation::Held::check_now)
    }

    // One value is put in once, so a poisoned lock is used as it is.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Loss>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit for Guard {
    fn may_write(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            if let Some(lost) = self.lost() {
                return Err(lost);
            }
            match self.ask() {
                // No path has brought an answer. Writes wait as well until one is back.
                Err(error) if error.kind() == Kind::Device && since.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                answer => return answer.inspect_err(|error| self.note(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_anything_to_guard_everything_is_allowed() {
        assert!(Guard::default().may_write().is_ok() && Guard::default().lost().is_none());
    }

    #[test]
    fn what_is_lost_stays_lost_and_silence_is_no_loss() {
        let guard = Guard::default();
        guard.note(&Error::device("no answer"));
        assert!(guard.may_write().is_ok());
        guard.note(&Error::target("the reservation is lost").with_hint("look"));
        guard.note(&Error::target("another reason, later"));
        let error = guard.may_write().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), ("the reservation is lost", Some("look")));
    }
}
