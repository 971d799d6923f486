//! Findings → words: which stage limits, how far the whole is from it, and what the others could still take.

use serde::{Deserialize, Serialize};

/// What limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What limits: `source`, `cpu`, `write`, `read-back` or `latency`.
    pub limited_by: String,
    /// Bytes of the raw image per second that the stages allow together.
    pub limit_rate: f64,
    /// The whole's rate as a share of that, 0 to 1 (above 1 where noise says so).
    pub reached: f64,
    /// The verdict in sentences, the most important first.
    pub sentences: Vec<String>,
}
