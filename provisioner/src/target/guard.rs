//! Whether this run may still write: its lease lasts, its reservation is its own, its paths lead to its LUN. The storage is asked by
//! time and before what matters, the lease before each write. What is lost once stays lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use imgstream::error::{Error, Kind, Result, Retry};
use imgstream::pipeline::Permit;
use tokio_util::sync::CancellationToken;

use super::identity;
use super::multipath::Map;
use super::reservation;
use crate::control::Lease;

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
    lease: Option<Arc<Lease>>,
    reservation: Option<reservation::Held>,
    map: Option<Map>,
    lost: Mutex<Option<Loss>>,
}

impl Guard {
    /// For a target with this reservation and these paths, where it has any.
    pub fn new(reservation: Option<reservation::Held>, map: Option<Map>) -> Self {
        Guard { lease: None, reservation, map, lost: Mutex::default() }
    }

    /// Of a run that has this lease, where it has one.
    #[must_use]
    pub fn with_lease(mut self, lease: Option<Arc<Lease>>) -> Self {
        self.lease = lease;
        self
    }

    /// The run's lease, where it has one.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// Why this run may not write any more, where that is known already.
    pub fn lost(&self) -> Option<Error> {
        let over = self.lease.as_ref().and_then(|lease| lease.over());
        over.or_else(|| self.lock().as_ref().map(Loss::error))
    }

    /// Asks by time, until the right to write is lost; then ends the run by `cancel`. Storage that does not answer has not
    /// said no: if it is gone, the writes themselves say so.
    pub async fn keep(self: &Arc<Self>, cancel: &CancellationToken) {
        let asks = self.map.is_some() || self.reservation.is_some();
        if !asks && self.lease.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                () = self.lease_ended() => {}
                () = tokio::time::sleep(PERIOD) => if asks { self.ask_once().await },
            }
            if self.lost().is_some() {
                return cancel.cancel();
            }
        }
    }

    async fn lease_ended(&self) {
        match &self.lease {
            Some(lease) => lease.ended().await,
            None => std::future::pending().await,
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
        if let Some(over) = self.lease.as_ref().and_then(|lease| lease.over()) {
            return Err(over);
        }
        // In this order: on another LUN the reservation is not ours either, and that would say less.
        if let Some(map) = &self.map {
            identity::check(map)?;
        }
        self.reservation.as_ref().map_or(Ok(()), reservation::Held::check_now)?;
        // The storage may have taken its time to answer.
        self.lease.as_ref().and_then(|lease| lease.over()).map_or(Ok(()), Err)
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

    fn is_over(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_over()) || self.lock().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_anything_to_guard_everything_is_allowed() {
        assert!(Guard::default().may_write().is_ok() && Guard::default().lost().is_none());
    }

    fn lease(seconds: u64) -> Arc<Lease> {
        let terms = protocol::control::agent::Terms { seconds, renew_after: 1 };
        Arc::new(Lease::of_this_moment(terms))
    }

    #[tokio::test]
    async fn a_lease_that_is_over_ends_the_run_and_is_why() {
        let guard = Arc::new(Guard::default().with_lease(Some(lease(2))));
        assert!(guard.may_write().is_ok() && !guard.is_over());
        let cancel = CancellationToken::new();
        tokio::time::timeout(Duration::from_secs(2), guard.keep(&cancel)).await.unwrap();
        assert!(cancel.is_cancelled() && guard.is_over());
        for error in [guard.may_write().unwrap_err(), guard.explain(Error::cancelled("streaming")).await] {
            assert!(error.to_string().starts_with("the lease of "), "{error}");
            assert_eq!((error.kind(), error.retry()), (Kind::Target, Retry::Temporary));
        }
        let explained = guard.explain(Error::device("no answer")).await.to_string();
        assert!(explained.ends_with("; noticed by: no answer"), "{explained}");
    }

    #[tokio::test]
    async fn while_the_lease_lasts_a_run_that_was_cancelled_was_cancelled() {
        let guard = Arc::new(Guard::default().with_lease(Some(lease(60))));
        assert_eq!(guard.explain(Error::cancelled("streaming")).await.kind(), Kind::Cancelled);
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
        assert!(guard.is_over());
    }
}
