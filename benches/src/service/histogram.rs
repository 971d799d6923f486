//! Latencies, counted in buckets that grow with the value: within one percent from a microsecond to an hour, in a few kilobytes.

use std::time::Duration;

use serde::Serialize;

/// Buckets of each doubling: a value is known within a 128th.
const STEPS: u64 = 128;
/// Doublings above those values that have a bucket each.
const DOUBLINGS: usize = 26;

/// Counts of latencies.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// What is said of them, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are quicker.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS as usize * (DOUBLINGS + 1)], total: 0, max: 0 }
    }
}

/// The bucket of so many microseconds.
fn bucket(value: u64) -> usize {
    // Values below twice the steps have a bucket each; each further doubling has as many buckets as there are steps.
    let doubling = value.checked_ilog2().map_or(0, |bits| u64::from(bits).saturating_sub(u64::from(STEPS.ilog2())));
    usize::try_from(doubling * STEPS + (value >> doubling)).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doubling = (bucket / STEPS).saturating_sub(1);
    ((bucket - doubling * STEPS + 1) << doubling) - 1
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let value = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[bucket(value).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        found.map_or(0.0, |found| largest(found).min(self.max) as f64 / 1000.0)
    }

    /// What is said of them.
    pub fn quantiles(&self) -> Quantiles {
        let (p50, p90, p99) = (self.quantile(0.5), self.quantile(0.9), self.quantile(0.99));
        Quantiles { p50, p90, p99, p999: self.quantile(0.999), max: self.max as f64 / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_one_percent() {
        let values = (0..1000).chain((10..32).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 12345]));
        for value in values {
            let (at, most) = (bucket(value), largest(bucket(value)));
            assert!(value <= most && (most - value) as f64 <= value as f64 / 100.0, "{value} counts as {most}");
            assert!(at == 0 || largest(at - 1) < value, "{value} belongs into an earlier bucket");
        }
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        (1..=1000).for_each(|value| histogram.record(Duration::from_millis(value)));
        let Quantiles { p50, p90, p99, p999, max } = histogram.quantiles();
        for (is, should) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (p999, 999.0)] {
            assert!(is >= should && is <= should * 1.01, "{is} for {should}");
        }
        assert_eq!((max, histogram.total), (1000.0, 1000));
    }
}
