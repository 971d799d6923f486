//! How long, and how often, a source is borne with.

use std::time::Duration;

/// A server's own wish to be left alone is honoured up to this, for chunks as for metadata.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Pauses and limits of fetching. Every wait for a source is bounded by one of them, or by the source's own timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// The first pause after a failure; doubled with each further one in a row.
    pub first_pause: Duration,
    /// No pause of ours is longer.
    pub longest_pause: Duration,
    /// A server's own wish to be left alone is honoured up to this.
    pub longest_retry_after: Duration,
    /// Failures in a row, without a single chunk, after which a source is not counted on: a request that nobody else may
    /// serve ends the run then. With progress in between, a request may fail four times as often, for each such source.
    pub max_tries: u32,
    /// How long no chunk may come from any source.
    pub give_up_after: Duration,
    /// The youngest age at which one of the last requests is made a second time, elsewhere.
    pub hedge_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            longest_retry_after: LONGEST_RETRY_AFTER,
            max_tries: 6,
            give_up_after: Duration::from_secs(120),
            hedge_after: Duration::from_millis(250),
        }
    }
}

impl Patience {
    /// How long a source is left after `failures` failures in a row; `asked` is its own wish. Half of a pause is random,
    /// so that many agents do not come back at once.
    pub(super) fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let half = doubled.min(self.longest_pause) / 2;
        let random = half * u32::from(random()) / 255;
        let least = asked.map_or(half, |asked| half.max(asked.min(self.longest_retry_after)));
        least + random
    }
}

fn random() -> u8 {
    let mut random = [0u8; 1];
    // Without randomness the pause is merely not jittered.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    random[0]
}
