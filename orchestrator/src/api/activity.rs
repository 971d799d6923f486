//! What a connection is doing, and how long it may go on so: one that asks nothing must end, and one that does not take what it asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::limits::Limits;
use super::shares::Held;

/// Bytes that must be taken of an answer for each second of [`Limits::stall`]. Whoever takes less takes nothing: else a byte now and then
/// would keep all the rest of it here.
const LEAST_RATE: u64 = 1 << 10;

/// What a connection is doing.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Doing>>);

struct Doing {
    requests: usize,
    served: bool,
    idle_since: Instant,
    /// How much of an answer must be taken each time, in bytes.
    least: usize,
    /// Answers that are made, by the number of their request. None of them is here for longer than it is sent.
    answers: HashMap<u64, Answer>,
    /// The number of the next request.
    next: u64,
}

/// How an answer is taken.
struct Answer {
    /// Bytes that were handed to the connection, and are not on their way yet.
    waiting: usize,
    /// Whether there is more that the connection has not asked for.
    has_more: bool,
    /// Since when what there is waits.
    since: Instant,
    /// How much was taken since then.
    taken: usize,
}

impl Answer {
    fn waits(&self) -> bool {
        self.waiting > 0 || self.has_more
    }

    fn begins_to_wait(&mut self) {
        (self.since, self.taken) = (Instant::now(), 0);
    }
}

impl Doing {
    /// When the connection must end unless something happens before: what it asked for waits, or nobody asks anything.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.requests == 0 {
            let limit = if self.served { limits.idle } else { limits.head };
            return Some(self.idle_since + limit);
        }
        self.answers.values().filter(|answer| answer.waits()).map(|answer| answer.since + limits.stall).min()
    }
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody asks anything.
    Idle,
    /// What was asked for is not taken.
    NotTaken,
}

impl Activity {
    pub(super) fn new(limits: &Limits) -> Self {
        let least = limits.stall.as_millis().saturating_mul(LEAST_RATE.into()) / 1000;
        Activity(Arc::new(Mutex::new(Doing {
            requests: 0,
            served: false,
            idle_since: Instant::now(),
            least: usize::try_from(least).unwrap_or(usize::MAX).max(1),
            answers: HashMap::new(),
            next: 0,
        })))
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) -> UnderWay {
        let mut doing = self.doing();
        doing.requests += 1;
        doing.next += 1;
        UnderWay { of: self.clone(), number: doing.next, held: OnceLock::new() }
    }

    /// Waits until the connection must end. It looks again when something may have changed, and not each time that something does.
    pub(super) async fn over(&self, limits: &Limits) -> Over {
        loop {
            // Nothing that begins only now is over before.
            let soon = Instant::now() + limits.idle.min(limits.stall).max(Duration::from_millis(1));
            let deadline = self.doing().deadline(limits);
            sleep_until(deadline.map_or(soon, |deadline| deadline.min(soon))).await;
            let doing = self.doing();
            if doing.deadline(limits).is_some_and(|deadline| deadline <= Instant::now()) {
                return if doing.requests == 0 { Over::Idle } else { Over::NotTaken };
            }
        }
    }
}

/// A request that is under way, until its answer has been sent, to the last byte, or given up.
pub(super) struct UnderWay {
    of: Activity,
    number: u64,
    /// What its answer holds of what its caller may hold.
    held: OnceLock<Held>,
}

impl UnderWay {
    /// It is answered, with something to take.
    pub(super) fn answered(&self, held: Option<Held>, has_more: bool) {
        if let Some(held) = held {
            let _ = self.held.set(held);
        }
        let answer = Answer { waiting: 0, has_more, since: Instant::now(), taken: 0 };
        self.of.doing().answers.insert(self.number, answer);
    }

    /// The connection asks for more of the answer. Whether there is any is found out now.
    pub(super) fn asked_for(&self) {
        self.change(|answer, _| answer.has_more = false);
    }

    /// It was given so many bytes, after which there may be more.
    pub(super) fn handed(&self, bytes: usize, has_more: bool) {
        self.change(|answer, _| {
            if answer.waiting == 0 {
                answer.begins_to_wait();
            }
            answer.waiting += bytes;
            answer.has_more = has_more;
        });
    }

    /// There is more, which it can ask for.
    pub(super) fn has_more(&self) {
        self.change(|answer, _| {
            if !answer.waits() {
                answer.begins_to_wait();
            }
            answer.has_more = true;
        });
    }

    /// So many bytes were taken.
    pub(super) fn taken(&self, bytes: usize) {
        self.change(|answer, least| {
            answer.waiting = answer.waiting.saturating_sub(bytes);
            answer.taken = answer.taken.saturating_add(bytes);
            if answer.waiting == 0 || answer.taken >= least {
                answer.begins_to_wait();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Answer, usize)) {
        let mut doing = self.of.doing();
        let least = doing.least;
        if let Some(answer) = doing.answers.get_mut(&self.number) {
            change(answer, least);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut doing = self.of.doing();
        doing.answers.remove(&self.number);
        doing.requests -= 1;
        doing.served = true;
        doing.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// After how many seconds this connection must end.
    async fn seconds(activity: &Activity, limits: &Limits) -> u64 {
        let began = Instant::now();
        assert_eq!(activity.over(limits).await, Over::NotTaken);
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_and_not_taken_ends_it_and_what_is_not_there_does_not() {
        let limits = Limits::default();
        let activity = Activity::new(&limits);
        let silent = activity.begin();
        silent.answered(None, true);
        silent.asked_for();
        assert!(tokio::time::timeout(Duration::from_secs(3600), activity.over(&limits)).await.is_err());
        silent.has_more();
        assert_eq!(seconds(&activity, &limits).await, 30);
        silent.asked_for();
        silent.handed(100, false);
        assert_eq!(seconds(&activity, &limits).await, 30);
        silent.taken(100);
        assert!(tokio::time::timeout(Duration::from_secs(3600), activity.over(&limits)).await.is_err());
        drop(silent);
        assert_eq!(activity.over(&limits).await, Over::Idle);
        assert!(activity.doing().answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_nothing() {
        let limits = Limits::default();
        let activity = Activity::new(&limits);
        let answer = activity.begin();
        answer.answered(None, true);
        answer.handed(1 << 20, false);
        for (each, ends) in [(1000, true), (20_000, false)] {
            answer.taken(40_000);
            let drips = async {
                for _ in 0..30 {
                    sleep(Duration::from_secs(10)).await;
                    answer.taken(each);
                }
            };
            let over = tokio::select! {
                over = activity.over(&limits) => Some(over),
                () = drips => None,
            };
            assert_eq!(over.is_some(), ends, "{each} bytes each ten seconds");
        }
    }
}
