//! What is drawn by lot: names of runs, and how long is waited.

use protocol::RunId;

/// A name that nobody can guess or mistype into another: `r-` and 16 lower-case letters and digits.
pub(super) fn run_id(random: &str) -> Result<RunId, String> {
    let letters = random.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(16);
    RunId::try_from(format!("r-{}", letters.collect::<String>())).map_err(|error| error.to_string())
}

/// Spreads retries. Nobody gains by guessing it.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Dice(std::collections::hash_map::RandomState::new().build_hasher().finish() | 1)
    }
}

impl Dice {
    /// 0 to 1 (xorshift64).
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn throw(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
