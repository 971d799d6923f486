//! The lease: how long this attempt may write without hearing from the service.
//!
//! It counts from before it was asked for, on a clock that goes on while the machine sleeps, and ends for this agent a margin before it
//! ends for the service, so that writes in flight have landed by then. Once over, it stays over, whatever the service says later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use imgstream::error::{Error, Retry};
use nix::time::ClockId;
use protocol::control::agent::Terms;
use tokio_util::sync::CancellationToken;

/// The shortest margin.
const LEAST_MARGIN: Duration = Duration::from_secs(1);
/// No lease is believed to last longer, in seconds.
const LONGEST: u64 = 86_400;
/// How often whoever waits for the end looks at the clock: timers stand still while the machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// The time on the clock of leases, since the machine started.
pub(super) fn now() -> Duration {
    // Who cannot tell the time cannot know that a lease is not over.
    ClockId::CLOCK_BOOTTIME.now().map_or(Duration::MAX, Duration::from)
}

/// A lease. It is asked before each write.
#[derive(Debug)]
pub struct Lease {
    /// Attempt and run, in words.
    whose: String,
    state: Mutex<State>,
    /// Cancelled when somebody finds that it is over.
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// When it is over for this agent.
    until: Duration,
    /// What is left of it when it has just been renewed.
    usable: Duration,
    /// When that was asked which the service answered last.
    heard: Duration,
    /// Why the last try to renew it had no answer.
    trouble: Option<String>,
    /// Why it is over, once it is.
    over: Option<String>,
}

impl State {
    fn new(terms: Terms, asked: Duration) -> Self {
        let usable = usable(terms);
        State { until: asked.saturating_add(usable), usable, heard: asked, trouble: None, over: None }
    }

    /// Finds out whether it is over. What is found stays.
    fn is_over(&mut self, now: Duration) -> bool {
        if self.over.is_none() && now >= self.until {
            let silent = now.saturating_sub(self.heard).as_secs();
            let trouble = self.trouble.as_ref().map_or_else(String::new, |why| format!("; {why}"));
            self.over = Some(format!("the service was last heard {silent} s ago{trouble}"));
        }
        self.over.is_some()
    }

    fn renew(&mut self, terms: Terms, asked: Duration, now: Duration) -> bool {
        if self.is_over(now) {
            return false;
        }
        self.usable = usable(terms);
        // An answer that was overtaken takes nothing back.
        self.until = self.until.max(asked.saturating_add(self.usable));
        self.heard = self.heard.max(asked);
        self.trouble = None;
        true
    }
}

/// What is left of a lease without its margin.
fn usable(terms: Terms) -> Duration {
    let whole = Duration::from_secs(terms.seconds.min(LONGEST));
    whole.saturating_sub(LEAST_MARGIN.max(whole / 6))
}

impl Lease {
    /// The lease of an attempt, in words such as `attempt 2 of run r-1`, that was asked for at `asked`.
    pub(super) fn new(whose: String, terms: Terms, asked: Duration) -> Self {
        Lease { whose, state: Mutex::new(State::new(terms, asked)), ended: CancellationToken::new() }
    }

    /// One that was asked for just now.
    #[cfg(test)]
    pub(crate) fn of_this_moment(terms: Terms) -> Self {
        Self::new("a test".into(), terms, now())
    }

    /// Whether it is over. Costs a look at a clock.
    pub fn is_over(&self) -> bool {
        let is_over = self.lock().is_over(now());
        if is_over && !self.ended.is_cancelled() {
            self.ended.cancel();
        }
        is_over
    }

    /// Why nothing may be written any more, once it is over: an error of the target, which a later attempt may not meet.
    pub fn over(&self) -> Option<Error> {
        if !self.is_over() {
            return None;
        }
        let why = self.lock().over.clone().unwrap_or_default();
        let error = Error::target(format!("the lease of {} is over: {why}", self.whose));
        Some(error.with_retry(Retry::Temporary).with_hint(
            "the service may give the target to another attempt, so this one writes nothing more. See that the service is up and can be reached from here, and what it says of the run; it starts the next attempt",
        ))
    }

    /// Returns when it is over.
    pub async fn ended(&self) {
        while !self.is_over() {
            let left = self.lock().until.saturating_sub(now());
            tokio::select! {
                () = self.ended.cancelled() => {}
                // Timers count whole milliseconds, and not too many of them.
                () = tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)) => {}
            }
        }
    }

    /// The service has renewed what was asked for at `asked`. `false` when that comes too late.
    pub(super) fn renewed(&self, terms: Terms, asked: Duration) -> bool {
        self.lock().renew(terms, asked, now())
    }

    /// A try to renew it had no answer.
    pub(super) fn failed(&self, why: &str) {
        self.lock().trouble = Some(why.to_owned());
    }

    /// The service has ended it.
    pub(super) fn lose(&self, why: &str) {
        self.lock().over.get_or_insert_with(|| why.to_owned());
        self.ended.cancel();
    }

    /// When it was last asked for with success, and what was left of it then.
    pub(super) fn heard(&self) -> (Duration, Duration) {
        let state = self.lock();
        (state.heard, state.usable)
    }

    // It is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use imgstream::error::Kind;

    use super::*;

    fn terms(seconds: u64) -> Terms {
        Terms { seconds, renew_after: 1 }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_ends_a_margin_before_the_service_says() {
        for (seconds, usable_ms) in [(60, 50_000), (6, 5_000), (3, 2_000), (1, 0), (0, 0), (u64::MAX, 72_000_000)] {
            assert_eq!(usable(terms(seconds)), Duration::from_millis(usable_ms), "{seconds}");
        }
        let mut state = State::new(terms(60), at(100));
        assert!(!state.is_over(at(149)) && state.is_over(at(150)));
    }

    #[test]
    fn an_answer_counts_from_when_it_was_asked_for() {
        let mut state = State::new(terms(60), at(100));
        assert!(state.renew(terms(60), at(120), at(140)));
        assert!(!state.is_over(at(169)));
        assert!(state.renew(terms(60), at(110), at(169)), "overtaken");
        assert!(!state.is_over(at(169)) && state.is_over(at(170)));
    }

    #[test]
    fn once_over_it_stays_over() {
        let mut state = State::new(terms(60), at(100));
        state.trouble = Some("nobody listens".into());
        assert!(!state.renew(terms(60), at(149), at(151)), "asked in time, answered too late");
        assert!(state.is_over(at(100)));
        assert_eq!(state.over.as_deref(), Some("the service was last heard 51 s ago; nobody listens"));
        let mut asleep = State::new(terms(60), at(100));
        assert!(asleep.is_over(Duration::MAX), "a clock that says nothing");
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told_in_time() {
        let lease = Lease::new("attempt 2 of run r".into(), terms(2), now());
        assert!(lease.over().is_none());
        tokio::time::timeout(Duration::from_millis(1500), lease.ended()).await.unwrap();
        let error = lease.over().unwrap();
        assert_eq!((error.kind(), error.retry()), (Kind::Target, Retry::Temporary));
        assert!(
            error.to_string().starts_with("the lease of attempt 2 of run r is over: the service was last heard 1 s")
        );
        assert!(!lease.renewed(terms(60), now()) && lease.is_over());
    }

    #[tokio::test]
    async fn what_the_service_ends_is_over_at_once() {
        let lease = std::sync::Arc::new(Lease::new("attempt 1 of run r".into(), terms(60), now()));
        let waiting = tokio::spawn({
            let lease = std::sync::Arc::clone(&lease);
            async move { lease.ended().await }
        });
        tokio::task::yield_now().await;
        lease.lose("the service has ended the attempt");
        tokio::time::timeout(Duration::from_millis(500), waiting).await.unwrap().unwrap();
        assert!(lease.over().unwrap().to_string().ends_with("is over: the service has ended the attempt"));
    }
}
