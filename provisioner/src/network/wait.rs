//! Waiting with a bound and a name, and several pieces of work side by side.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use imgstream::error::Result;
use tokio::time::Instant;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);
/// When what is waited for is told first; then each time that has doubled.
const TELL: Duration = Duration::from_secs(5);

/// How long is waited in all, and who is told for what.
pub(super) struct Patience<'a> {
    start: Instant,
    limit: Duration,
    tell: &'a dyn Fn(String),
}

impl<'a> Patience<'a> {
    /// From now on for `limit`.
    pub(super) fn new(limit: Duration, tell: &'a dyn Fn(String)) -> Self {
        Patience { start: Instant::now(), limit, tell }
    }

    /// How long was waited.
    pub(super) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// How long may be waited yet.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited())
    }

    /// The limit in whole seconds, for messages.
    pub(super) fn seconds(&self) -> u64 {
        self.limit.as_secs()
    }

    /// Says something.
    pub(super) fn tell(&self, what: String) {
        (self.tell)(what);
    }

    /// What `work` comes to, if it does so in time; `what` is being waited for.
    pub(super) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let started = Instant::now();
        let mut next = TELL;
        loop {
            let pause = next.saturating_sub(started.elapsed()).min(self.left());
            if let Ok(done) = tokio::time::timeout(pause, &mut work).await {
                return Some(done);
            }
            if self.left().is_zero() {
                return None;
            }
            self.tell(format!("waiting for {what} for {} s", started.elapsed().as_secs()));
            next *= 2;
        }
    }

    /// What `look` finds, if it does so in time.
    pub(super) async fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Option<T> {
        let looking = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        self.during(what, looking).await
    }
}

/// A piece of work, or what it came to.
enum Piece<F, T> {
    Running(Pin<Box<F>>),
    Done(T),
}

/// Does all `work` side by side. Returns what it came to, in its order, or the first error; the rest is dropped then.
pub(super) async fn all<T, F: Future<Output = Result<T>>>(work: impl IntoIterator<Item = F>) -> Result<Vec<T>> {
    let mut pieces: Vec<Piece<F, T>> = work.into_iter().map(|work| Piece::Running(Box::pin(work))).collect();
    poll_fn(|context| {
        let mut are_done = true;
        for piece in &mut pieces {
            let Piece::Running(work) = piece else { continue };
            match work.as_mut().poll(context) {
                Poll::Pending => are_done = false,
                Poll::Ready(Ok(value)) => *piece = Piece::Done(value),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if are_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    let done = |piece| match piece {
        Piece::Done(value) => Some(value),
        Piece::Running(_) => None,
    };
    Ok(pieces.into_iter().filter_map(done).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use imgstream::error::Error;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_told_and_the_wait_ends() {
        let told = Mutex::new(Vec::new());
        let tell = |what| told.lock().unwrap().push(what);
        let patience = Patience::new(Duration::from_secs(30), &tell);
        assert_eq!(patience.until("a carrier", || None::<()>).await, None);
        assert_eq!(patience.waited().as_secs(), 30);
        let expected = [5, 10, 20].map(|seconds| format!("waiting for a carrier for {seconds} s"));
        assert_eq!(*told.lock().unwrap(), expected);
        assert_eq!(Patience::new(Duration::ZERO, &|_| {}).until("it", || Some(7)).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_side_by_side_and_the_first_error_ends_it() {
        let start = Instant::now();
        let after = async |seconds: u64| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if seconds == 4 { Err(Error::source_failed("four")) } else { Ok(seconds) }
        };
        assert_eq!(all([3, 1, 2].map(after)).await.unwrap(), [3, 1, 2]);
        assert_eq!(start.elapsed().as_secs(), 3);
        assert!(all([9, 4].map(after)).await.unwrap_err().to_string().contains("four"));
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}
