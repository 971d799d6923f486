//! What strangers can make happen as often as they like is said now and then, with how often it was.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing is said once something was.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts what is not said.
pub(super) struct Seldom(Mutex<(u64, Option<Instant>)>);

impl Seldom {
    pub(super) const fn new() -> Self {
        Seldom(Mutex::new((0, None)))
    }

    /// It has happened: how often since it was last said, where it may be said now.
    pub(super) fn happened(&self) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, said) = &mut *counted;
        *times += 1;
        if said.is_some_and(|said| said.elapsed() < PAUSE) {
            return None;
        }
        *said = Some(Instant::now());
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_times_a_second_are_a_line_a_second() {
        let seldom = Seldom::new();
        let mut said = Vec::new();
        for _ in 0..3000 {
            said.extend(seldom.happened());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(said, [1, 1000, 1000]);
    }
}
