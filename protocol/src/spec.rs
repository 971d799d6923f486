//! The run spec, version 1: which image goes onto which target, and how. JSON; unknown and doubled keys are errors.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::{Digest, RunId};

/// Largest run spec that is read, in bytes.
pub const MAX_SPEC: usize = 1 << 20;
/// Most sources of one image.
pub const MAX_SOURCES: usize = 16;
/// Most trusted keys.
pub const MAX_TRUST: usize = 64;
/// Most requests in flight per source.
pub const MAX_CONNECTIONS: u32 = 64;
/// Smallest and largest size of a request, in bytes.
pub const REQUEST_SIZE: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Shortest and longest time in which nothing moves, in seconds.
pub const STALL_LIMIT: std::ops::RangeInclusive<u64> = 1..=86_400;

/// One run: put this image onto this target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Names the run in every event.
    pub run: RunId,
    /// Which image, from where, signed by whom.
    pub image: ImageSpec,
    /// Where it goes.
    pub target: TargetSpec,
    /// How it goes there.
    #[serde(default)]
    pub options: Options,
}

/// Which image. A signed image that does not match all of this is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// The image's name. Also chooses among the images of a layout.
    pub name: String,
    /// The architecture, as `uname -m` says it.
    #[serde(default = "s390x")]
    pub architecture: String,
    /// The image's digest, where only exactly this one will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The lowest image version allowed: the defence against being given an old, vulnerable image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<u64>,
    /// Where to get it: directories, `http(s)://…` or `oci://…`. All are used at once.
    pub sources: Vec<String>,
    /// Files with the trusted public keys, one PEM (SPKI) each.
    pub trust: Vec<PathBuf>,
    /// How many distinct trusted keys must have signed.
    #[serde(default = "one")]
    pub threshold: usize,
}

/// Where the image goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// A whole block device, or a regular file that exists and is large enough. It is overwritten.
    pub device: PathBuf,
    /// What becomes of the device beyond the image.
    #[serde(default)]
    pub tail: Tail,
}

/// What becomes of a device beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tail {
    /// It reads as zeros.
    #[default]
    Zero,
    /// It keeps what it has, be that a previous tenant's data.
    Keep,
    /// The device is told that nobody needs it; what it reads as is the device's choice.
    Discard,
}

impl Tail {
    /// The word in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Tail::Zero => "zero",
            Tail::Keep => "keep",
            Tail::Discard => "discard",
        }
    }
}

/// How to write. Every one has a default that suits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub connections: Option<u32>,
    /// Bytes per request; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_size: Option<u64>,
    /// Seconds in which nothing moves after which the run fails; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// A write engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

fn s390x() -> String {
    "s390x".into()
}

fn one() -> usize {
    1
}

/// Why bytes are not a run spec. The text names the key, and the line where that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

impl RunSpec {
    /// Reads a run spec and checks it.
    ///
    /// # Errors
    /// Too large, not JSON, a key that is unknown, doubled or missing, or a value out of its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > MAX_SPEC {
            return Err(SpecError(format!("it has {} bytes, at most {MAX_SPEC} are read", bytes.len())));
        }
        let spec: RunSpec = serde_json::from_slice(bytes).map_err(|error| SpecError(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The first value out of bounds.
    pub fn check(&self) -> Result<(), SpecError> {
        let image = &self.image;
        let sources = image.sources.len();
        let trust = image.trust.len();
        let rules = [
            (!image.name.is_empty(), "`image.name` is empty".to_owned()),
            (!image.architecture.is_empty(), "`image.architecture` is empty".to_owned()),
            (
                (1..=MAX_SOURCES).contains(&sources),
                format!("`image.sources` names {sources} sources; give 1 to {MAX_SOURCES}"),
            ),
            ((1..=MAX_TRUST).contains(&trust), format!("`image.trust` names {trust} keys; give 1 to {MAX_TRUST}")),
            (
                (1..=trust.max(1)).contains(&image.threshold),
                format!("`image.threshold` is {}, with {trust} trusted keys; give 1 to {trust}", image.threshold),
            ),
            (!self.target.device.as_os_str().is_empty(), "`target.device` is empty".to_owned()),
            (
                self.options.connections.is_none_or(|count| (1..=MAX_CONNECTIONS).contains(&count)),
                format!("`options.connections` must be 1 to {MAX_CONNECTIONS}"),
            ),
            (
                self.options.request_size.is_none_or(|size| REQUEST_SIZE.contains(&size)),
                format!("`options.request_size` must be {} to {} bytes", REQUEST_SIZE.start(), REQUEST_SIZE.end()),
            ),
            (
                self.options.stall_limit.is_none_or(|seconds| STALL_LIMIT.contains(&seconds)),
                format!("`options.stall_limit` must be {} to {} seconds", STALL_LIMIT.start(), STALL_LIMIT.end()),
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(SpecError(broken)),
            None => Ok(()),
        }
    }
}
