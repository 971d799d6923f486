//! The key of a run that the service has made: what is told of it, and the two answers that hold it.

use serde::{Deserialize, Serialize};

use crate::spec::KeySource;
use crate::text::{RunId, UnlockKey};
use crate::words::words;

/// A run's key, for the attempt that it is released to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReleasedKey {
    /// What LUKS is given.
    pub key: UnlockKey,
}

/// A run's key, for the owner of its disk. It is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ShownKey {
    /// The run.
    pub run: RunId,
    /// What unlocks its disk.
    pub key: UnlockKey,
}

words! {
    /// What was done with a key.
    KeyAction {
        /// The service has made it.
        Made = "made",
        /// An attempt was given it.
        Released = "released",
        /// The owner was shown it.
        Shown = "shown",
        /// The service has forgotten it, and gives it to nobody any more.
        Destroyed = "destroyed",
        /// One that was kept elsewhere is destroyed there as well.
        Erased = "erased",
    }
}

/// What was done with the key of a run. Of the key itself it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeyEvent {
    /// What.
    pub action: KeyAction,
    /// The attempt that was given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Who did it, or was given it.
    pub by: String,
    /// Why, where somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where the key of a run comes from, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeyState {
    /// Who has made it. Of an agent's the service knows nothing else.
    pub source: KeySource,
    /// When the service made it (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// The attempts that were given it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<u32>,
    /// That its owner was shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<KeyDeed>,
    /// That it is gone: from the service, not from the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<KeyDeed>,
    /// How many of the run's keys the service has forgotten, and has not heard yet that they are destroyed where they were kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub remains: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Something that somebody has done with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeyDeed {
    /// When (RFC 3339, UTC).
    pub at: String,
    /// Who.
    pub by: String,
    /// Why, where somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
