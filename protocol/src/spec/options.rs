//! How to write: engine, proof, resuming, connections, patience. Every one has a default that suits.

use serde::{Deserialize, Serialize};

use super::{SpecError, holds};

/// Most requests in flight per source.
pub const MAX_CONNECTIONS: u32 = 64;
/// Smallest and largest size of a request, in bytes.
pub const REQUEST_SIZE: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Shortest and longest time in which nothing moves, in seconds.
pub const STALL_LIMIT: std::ops::RangeInclusive<u64> = 1..=86_400;

/// How to write. Every one has a default that suits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The write engine.
    pub engine: Engine,
    /// Whether to read the media back and compare. Without it the result says that nothing is proven.
    pub read_back: bool,
    /// Whether to compare first, and fetch and write only what the target does not hold already.
    pub resume: bool,
    /// Requests in flight per source; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 64))]
    pub connections: Option<u32>,
    /// Bytes per request; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 65536, maximum = 1073741824))]
    pub request_size: Option<u64>,
    /// Seconds in which nothing moves after which the run fails; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 86400))]
    pub stall_limit: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            engine: Engine::Auto,
            read_back: true,
            resume: false,
            connections: None,
            request_size: None,
            stall_limit: None,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        holds(self.connections.is_none_or(|count| (1..=MAX_CONNECTIONS).contains(&count)), || {
            format!("`options.connections` must be 1 to {MAX_CONNECTIONS}")
        })?;
        holds(self.request_size.is_none_or(|size| REQUEST_SIZE.contains(&size)), || {
            format!("`options.request_size` must be {} to {} bytes", REQUEST_SIZE.start(), REQUEST_SIZE.end())
        })?;
        holds(self.stall_limit.is_none_or(|seconds| STALL_LIMIT.contains(&seconds)), || {
            format!("`options.stall_limit` must be {} to {} seconds", STALL_LIMIT.start(), STALL_LIMIT.end())
        })
    }
}

/// A write engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The best that works; a fall-back is said aloud.
    #[default]
    Auto,
    /// `io_uring`, or an error.
    Uring,
    /// `pwrite` threads with O_DIRECT, or an error.
    Direct,
    /// Through the page cache.
    Buffered,
}

impl Engine {
    /// The word in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Uring => "uring",
            Engine::Direct => "direct",
            Engine::Buffered => "buffered",
        }
    }
}
