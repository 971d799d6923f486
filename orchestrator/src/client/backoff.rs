//! How long to stay away from a service that did not answer: longer each time, and not as long as the others.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const FIRST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(15);

/// Counts failures.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub(super) fn new() -> Self {
        Backoff { next: FIRST }
    }

    /// How long to wait after one more failure: half of the time for sure, the rest by chance.
    pub(super) fn next_wait(&mut self) -> Duration {
        let mut byte = [0; 1];
        // Without random numbers all of it is waited.
        let share = SystemRandom::new().fill(&mut byte).map_or(255, |()| byte[0]);
        let wait = self.next / 2 + self.next / 2 * u32::from(share) / 255;
        self.next = (self.next * 2).min(MOST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        assert!(waits[8..].iter().all(|wait| *wait >= MOST / 2 && *wait <= MOST), "{waits:?}");
        assert!(waits[8..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
    }
}
