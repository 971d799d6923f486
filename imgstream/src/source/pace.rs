//! A least rate for whoever sends us bytes: without one, a byte now and then keeps a request alive for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second, averaged over the timeout, below which a sender counts as stalled. Far below any link that an image
/// is worth sending over, so that only servers that do not want to, or cannot, are given up.
const LEAST_RATE: u64 = 1024;

/// Watches how fast bytes come. Only the time spent waiting for them counts: a slow disk is not the sender's fault.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    least: u64,
    waited: Duration,
    got: u64,
}

impl Pace {
    /// At least [`LEAST_RATE`] over every `window` of waiting.
    pub(super) fn new(window: Duration) -> Self {
        let least = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).saturating_mul(LEAST_RATE) / 1000;
        Pace { window, least: least.max(1), waited: Duration::ZERO, got: 0 }
    }

    /// Waits for `more`; `None` once the window is over before its bytes have come.
    pub(super) async fn wait<T>(&mut self, more: impl Future<Output = T>) -> Option<T> {
        let since = Instant::now();
        let outcome = tokio::time::timeout(self.window.saturating_sub(self.waited), more).await.ok()?;
        self.waited += since.elapsed();
        Some(outcome)
    }

    /// Counts bytes that came; enough of them begin a new window.
    pub(super) fn count(&mut self, bytes: usize) {
        self.got += bytes as u64;
        if self.got >= self.least {
            (self.got, self.waited) = (0, Duration::ZERO);
        }
    }

    /// What to say when [`Pace::wait`] gave up.
    pub(super) fn told(&self) -> String {
        match self.got {
            0 => format!("nothing for {} s", self.window.as_secs_f32()),
            got => format!("only {got} bytes in {} s", self.window.as_secs_f32()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    fn on_a_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_drip_is_given_up_after_one_window() {
        on_a_runtime(async {
            let mut pace = Pace::new(WINDOW);
            let since = Instant::now();
            while pace.wait(sleep(WINDOW / 8)).await.is_some() {
                pace.count(1);
            }
            assert!(since.elapsed() >= WINDOW && pace.told().starts_with("only "), "{}", pace.told());
            assert!(pace.told().ends_with(" bytes in 0.2 s"), "{}", pace.told());
        });
    }

    #[test]
    fn who_sends_enough_may_take_any_time_in_all() {
        on_a_runtime(async {
            let mut pace = Pace::new(WINDOW);
            for _ in 0..12 {
                assert!(pace.wait(sleep(WINDOW / 4)).await.is_some(), "{}", pace.told());
                pace.count(LEAST_RATE as usize / 5 + 1);
            }
        });
    }

    #[test]
    fn time_that_we_take_ourselves_does_not_count() {
        on_a_runtime(async {
            let mut pace = Pace::new(WINDOW);
            for _ in 0..3 {
                sleep(WINDOW).await;
                assert!(pace.wait(std::future::ready(())).await.is_some(), "{}", pace.told());
                pace.count(1);
            }
        });
    }

    #[test]
    fn silence_is_told_as_such() {
        on_a_runtime(async {
            let mut pace = Pace::new(WINDOW);
            assert!(pace.wait(std::future::pending::<()>()).await.is_none());
            assert_eq!(pace.told(), "nothing for 0.2 s");
        });
    }
}
