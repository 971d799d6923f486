//! How an attempt ended: the summary of one that reached its goal, and why one did not.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorKind, Phase, Stage, TailTreatment, TargetState};
use crate::text::Digest;

/// The result of a run that reached its goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Summary {
    /// What was written.
    pub image: ImageFacts,
    /// Where to.
    pub target: TargetFacts,
    /// Raw bytes of the image.
    pub raw_bytes: u64,
    /// Of these, bytes of data chunks written.
    pub data_bytes: u64,
    /// Of these, bytes zeroed or left as holes.
    pub zero_bytes: u64,
    /// Compressed bytes received.
    pub fetched_bytes: u64,
    /// Raw bytes that were on the target already, where the run was to compare first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_bytes: Option<u64>,
    /// What became of the target beyond the image, where it is larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
    /// What became of the image's GPT, where the target is larger: `moved`, or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpt: Option<String>,
    /// Whether the kernel shows the new partitions: `shown`, or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<String>,
    /// What is known about the media.
    pub proof: Proof,
    /// What protected the way from the sources. Empty from agents that did not look.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipsec: String,
    /// The write engine.
    pub engine: String,
    /// What the automatic choice of engine could not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The stage that limited writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<Stage>,
    /// Requests that had to be repeated.
    pub retries: u64,
    /// How long each phase took.
    pub phases: Vec<PhaseTime>,
    /// Seconds of fetching, verifying, writing and flushing.
    pub write_seconds: f64,
    /// Seconds of reading back.
    pub read_back_seconds: f64,
    /// Seconds from start to end.
    pub total_seconds: f64,
    /// What was closed again.
    #[serde(default, skip_serializing_if = "TornDown::is_empty")]
    pub torn_down: TornDown,
    /// What will be started, where the machine is to start what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipl: Option<IplFacts>,
}

/// What firmware finds on the target, and where it was told to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IplFacts {
    /// What the boot record leads to.
    pub record: String,
    /// The path that firmware will take.
    pub from: String,
}

/// What a run opened, and what became of that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TornDown {
    /// Undone, in the order it happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<String>,
    /// Left as it is, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

impl TornDown {
    /// This, and after it something more.
    #[must_use]
    pub fn and(mut self, more: TornDown) -> Self {
        self.undone.extend(more.undone);
        self.left.extend(more.left);
        self
    }

    /// Whether there was nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.undone.is_empty() && self.left.is_empty()
    }
}

/// What became of a target beyond the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Tail {
    /// Its length in bytes.
    pub bytes: u64,
    /// How it was treated.
    pub how: TailTreatment,
    /// Bytes of it read back and found zero.
    pub proven_bytes: u64,
}

/// The image that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ImageFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its architecture.
    pub architecture: String,
    /// Its digest.
    pub digest: Digest,
    /// Ids of the trusted keys whose signatures were found.
    pub signers: Vec<String>,
}

/// The target that was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TargetFacts {
    /// Its path, or `LUN` and its WWID.
    pub device: String,
    /// Its size in bytes.
    pub size: u64,
    /// How the image lies on it: `plain`, `whole` or `split`. Empty from agents that knew no other than `plain`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub layout: String,
    /// Its paths, where it is multipathed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Paths>,
    /// The reservation that guarded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationFacts>,
    /// The LUKS2 containers on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// What was found on it and destroyed because that was allowed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wiped: Vec<String>,
}

/// The paths of a multipathed target when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Paths {
    /// Those that were live.
    pub live: u32,
    /// All of them.
    pub total: u32,
}

/// What guards a target against other writers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationFacts {
    /// A SCSI-3 persistent reservation, write exclusive for registrants only.
    Held {
        /// Its key, `0x` and 16 hex digits.
        key: String,
        /// Keys of earlier epochs and, where that was allowed, of others that were preempted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        preempted: Vec<String>,
    },
    /// Nothing: the storage cannot, and the run did without.
    Unsupported,
    /// One this reader does not know.
    #[serde(untagged)]
    Unknown(Value),
}

/// A LUKS2 container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Container {
    /// The image's region in it; `disk` where it holds the whole image.
    pub region: String,
    /// Its UUID.
    pub uuid: String,
    /// Its cipher.
    pub cipher: String,
    /// Bytes of its sectors.
    pub sector_size: u32,
    /// Whether it was there already and this run's key opened it.
    pub kept: bool,
}

/// What is known about the media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Read back from the media and found equal.
    ReadBack {
        /// Raw bytes compared: all but holes.
        bytes: u64,
    },
    /// Nothing.
    NotProven {
        /// Why not.
        reason: String,
    },
    /// A proof this reader does not know.
    #[serde(untagged)]
    Unknown(Value),
}

/// How long a phase took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PhaseTime {
    /// The phase.
    pub phase: Phase,
    /// Its length.
    pub seconds: f64,
}

/// Why a run did not reach its goal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Where it was.
    pub phase: Phase,
    /// Whose problem it is.
    pub error: ErrorKind,
    /// The exit code that says the same.
    pub exit_code: u8,
    /// What was tried, on what, and what happened.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Whether the same run can succeed later without anybody changing anything.
    pub retryable: bool,
    /// What is on the target now.
    pub target: TargetState,
    /// What was closed again.
    #[serde(default, skip_serializing_if = "TornDown::is_empty")]
    pub torn_down: TornDown,
}
