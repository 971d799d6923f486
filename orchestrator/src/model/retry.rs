//! How long is waited before a run is tried again.

use std::time::Duration;

/// Exponential, with jitter: what failed together must not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// Before the second attempt, at most.
    pub first: Duration,
    /// Before any attempt, at most.
    pub most: Duration,
}

impl BackOff {
    /// After `attempts` attempts have failed. `dice`, in 0 to 1, chooses between half of the time and all of it.
    pub fn after(&self, attempts: u32, dice: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32 << attempts.saturating_sub(1).min(20));
        doubled.min(self.most).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_bound_and_is_spread() {
        let back_off = BackOff { first: Duration::from_secs(10), most: Duration::from_secs(60) };
        let seconds = |attempts, dice| back_off.after(attempts, dice).as_secs_f64();
        assert_eq!([1, 2, 3, 4, 90].map(|attempts| seconds(attempts, 1.0)), [10.0, 20.0, 40.0, 60.0, 60.0]);
        assert_eq!((seconds(1, 0.0), seconds(4, 0.0), seconds(1, 0.5)), (5.0, 30.0, 7.5));
    }
}
