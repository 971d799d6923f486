//! Pauses between tries, and waits that a person hears of.

use std::time::Duration;

use tokio::time::Instant;

use super::random;

/// A service's own wish to be left alone is honoured up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// After how long a wait is told of, and then each time that has doubled.
const TELL: Duration = Duration::from_secs(5);

/// Pauses that grow while tries fail.
#[derive(Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Pauses { first, longest, failures: 0 }
    }

    /// Begins anew, after a try that did not fail.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure; `asked` is the service's own wish. Half of a pause is random.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let half = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest) / 2;
        self.failures = self.failures.saturating_add(1);
        let least = asked.map_or(half, |asked| half.max(asked.min(LONGEST_RETRY_AFTER)));
        least + jitter(half)
    }
}

/// Something between nothing and `most`.
pub(super) fn jitter(most: Duration) -> Duration {
    most * u32::from(random::byte()) / 255
}

/// Waits for `work`, and tells of it now and then when that takes long.
pub(super) async fn told<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let (since, mut after) = (Instant::now(), TELL);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(since + after) => tell(),
        }
        after *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_half_random() {
        let mut pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(4));
        for whole in [1, 2, 4, 4] {
            let (whole, pause) = (Duration::from_secs(whole), pauses.next(None));
            assert!((whole / 2..=whole).contains(&pause), "{pause:?} of {whole:?}");
        }
        let asked = pauses.next(Some(Duration::from_secs(10)));
        assert!((10..=12).contains(&asked.as_secs()), "{asked:?}");
        assert!(pauses.next(Some(Duration::from_secs(99_999))) <= Duration::from_secs(62));
        pauses.reset();
        assert!(pauses.next(None) <= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_told_of_less_and_less() {
        let (since, mut at) = (Instant::now(), Vec::new());
        told(tokio::time::sleep(Duration::from_secs(50)), || at.push(since.elapsed().as_secs())).await;
        assert_eq!(at, [5, 10, 20, 40]);
    }
}
