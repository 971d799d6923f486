//! A run as people and platforms see it: what they ask for (`order.rs`), what became of it, and what they are told meanwhile (`told.rs`).

mod order;
mod told;

use serde::{Deserialize, Serialize};

pub use order::{ATTEMPTS, DEADLINE, LauncherKind, MAX_NEW_RUN, NewRun, PRIORITY};
pub use told::{Fleet, Glance, Happening, MAX_WORD, RunProgress, StateChanged, What};

use super::key::KeyState;
use crate::event::{Failure, Phase, Progress, Step, Summary};
use crate::text::{Digest, Label, RunId, ServerName, Token};
use crate::words::words;

/// Longest reason for calling a run off, in bytes.
pub const MAX_REASON: usize = 1024;
/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Most runs of one page of a list.
pub const MAX_PAGE: u32 = 1000;

words! {
    /// Where a run is.
    RunState {
        /// It waits for its turn.
        Queued = "queued",
        /// An attempt has begun; its agent has not enrolled yet.
        Launching = "launching",
        /// An agent has enrolled and holds the lease.
        Running = "running",
        /// An agent that holds, or may hold, the target has gone silent. Nobody else may have it until that agent is known to be dead.
        Lost = "lost",
        /// The target holds the image.
        Succeeded = "succeeded",
        /// It does not, and nobody tries again.
        Failed = "failed",
        /// It was called off.
        Cancelled = "cancelled",
    }
}

impl RunState {
    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        matches!(self, RunState::Succeeded | RunState::Failed | RunState::Cancelled)
    }
}

words! {
    /// What a run waits for.
    WaitsFor {
        /// Another run of its server.
        Server = "server",
        /// Another run of its target.
        Target = "target",
        /// Fewer runs at once.
        Limit = "limit",
        /// Fewer runs of one of its sources.
        Source = "source",
        /// Fewer runs of its fabric.
        Fabric = "fabric",
        /// The time after which it is tried again.
        BackOff = "back-off",
        /// An agent that enrols.
        Agent = "agent",
        /// A path to its target: none is live.
        Path = "path",
        /// The launcher, to confirm that an agent is dead.
        Death = "death",
        /// A person, to confirm that an agent is dead.
        Person = "person",
    }
}

words! {
    /// How an attempt ended.
    Outcome {
        /// The target holds the image.
        Succeeded = "succeeded",
        /// The agent said that it failed.
        Failed = "failed",
        /// The agent stopped because it was told to, or never began.
        Cancelled = "cancelled",
        /// The agent could not be started, or did not enrol in time.
        NotLaunched = "not-launched",
        /// The agent went silent, and is dead or shut out.
        Lost = "lost",
    }
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Wait {
    /// What.
    #[serde(rename = "for")]
    pub what: WaitsFor,
    /// In words, with what a person can do.
    pub detail: String,
}

/// The paths to the target of a run, as its agent told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunPaths {
    /// Those that are live.
    pub live: u32,
    /// All of them, those included that have gone since the attempt began.
    pub total: u32,
    /// Since when it is these many (RFC 3339, UTC).
    pub since: String,
}

/// One attempt at a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// Its number, from 1, which is also its fencing epoch.
    pub attempt: u32,
    /// When it began (RFC 3339, UTC).
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Program and version of the agent, once it has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the launcher knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its name.
    pub run: RunId,
    /// Where it is.
    pub state: RunState,
    /// Why it is there.
    #[serde(default)]
    pub reason: String,
    /// Since when it is in that state (RFC 3339, UTC). Empty from services that did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// The server.
    pub server: ServerName,
    /// Who starts its agents.
    pub launcher: LauncherKind,
    /// The image's name.
    pub image: String,
    /// The target, in words.
    pub target: String,
    /// The fabric.
    pub fabric: Label,
    /// The higher goes first.
    pub priority: i32,
    /// When it was created (RFC 3339, UTC).
    pub created: String,
    /// When it must have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Whether somebody has called it off.
    #[serde(default)]
    pub cancel: bool,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Wait>,
    /// How often it is tried at most.
    pub max_attempts: u32,
    /// Its attempts, the latest last.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// The attempts whose agents went silent and are neither known to be dead nor shut out, in order; whatever their outcome. Where a
    /// person is waited for, the last is the one whose death is to be confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u32>,
    /// The phase that its agent is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The step that its agent is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// The paths to its target, while it is running or lost, once its agent has told of one that is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<RunPaths>,
    /// How far that is. It lives in memory: after a restart of the service it is not known until the agent reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<Summary>>,
    /// Why the last attempt failed, where its agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<Failure>>,
    /// The key of its disk, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyState>,
    /// SHA-256 of the rule for its image, where the service had a policy for images when the run was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Digest>,
    /// What was asked for. Left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Box<NewRun>>,
}

impl Run {
    /// Since when it waits for what it waits for. Empty where nobody has said.
    pub fn waits_since(&self) -> &str {
        let path = self.waits.as_ref().filter(|wait| wait.what == WaitsFor::Path);
        path.and(self.paths.as_ref()).map_or(&self.since, |paths| &paths.since)
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunPage {
    /// The runs, the latest first.
    pub runs: Vec<Run>,
    /// Names the page after this one (`page=…`); absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// That a run is to be called off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Why, in words, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(max_length = 1024))]
    pub reason: Option<String>,
}

/// That a person vouches for the death of a silent agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmDeath {
    /// The attempt whose agent is dead. It guards against vouching for another one.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub attempt: u32,
}

/// That an attempt is to be shut out at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The attempt. It guards against revoking another one.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub attempt: u32,
    /// Why, in words, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(max_length = 1024))]
    pub reason: Option<String>,
}

/// Nothing but the request itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An enrolment token. It is shown once; the service keeps its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EnrolmentToken {
    /// The run.
    pub run: RunId,
    /// The attempt that it is for.
    pub attempt: u32,
    /// The token.
    pub token: Token,
}
