//! A run as people and platforms see it: what they ask for, and what became of it.

use std::path::Component;

use serde::{Deserialize, Serialize};

use super::key::{KeyEvent, KeyState};
use crate::event::{Event, Failure, Paths, Phase, Progress, Stage, Step, Summary};
use crate::spec::{
    HandOver, ImageSpec, IpsecDemand, KeySource, MAX_TRUST, Options, Place, RunSpec, SpecError, TargetSpec, holds,
};
use crate::text::{Digest, Label, RunId, ServerName, Token};
use crate::words::words;

/// Largest request for a run, in bytes.
pub const MAX_NEW_RUN: usize = 256 << 10;
/// Least and most urgent.
pub const PRIORITY: std::ops::RangeInclusive<i32> = -100..=100;
/// Fewest and most attempts.
pub const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
/// Shortest and longest deadline, in seconds: up to 30 days.
pub const DEADLINE: std::ops::RangeInclusive<u64> = 1..=2_592_000;
/// Longest reason for calling a run off, in bytes.
pub const MAX_REASON: usize = 1024;
/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Longest word of a glance, in bytes.
pub const MAX_WORD: usize = 64;
/// Most runs of one page of a list.
pub const MAX_PAGE: u32 = 1000;

/// A run that is wanted: this image onto that target of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The server. It has one active run at a time.
    pub server: ServerName,
    /// Who starts the agent.
    #[serde(default)]
    pub launcher: LauncherKind,
    /// Which image. `trust` names keys by their id (64 hex digits); the agent knows keys of its own, and uses of these only those named.
    /// Where the service has a policy for images, what is left out of `trust`, `threshold` and `min_version` is what that says.
    pub image: ImageSpec,
    /// Where it goes. A target has one active run at a time.
    pub target: TargetSpec,
    /// Where the key of what the layout encrypts comes from; the service, where absent and there is anything to encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// How it goes there.
    #[serde(default)]
    pub options: Options,
    /// What protects the way from the sources.
    #[serde(default)]
    pub ipsec: IpsecDemand,
    /// What becomes of the machine afterwards.
    #[serde(default)]
    pub hand_over: HandOver,
    /// The storage fabric that it burdens; how many runs may do so at once is limited.
    #[serde(default)]
    pub fabric: Label,
    /// -100 to 100; the higher goes first.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(default = 0, minimum = -100, maximum = 100))]
    pub priority: i32,
    /// How often it is tried, 1 to 100.
    #[serde(default = "three")]
    #[cfg_attr(feature = "schema", schema(default = 3, minimum = 1, maximum = 100))]
    pub max_attempts: u32,
    /// Seconds from now until which it must have ended, or it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 2592000))]
    pub deadline: Option<u64>,
}

fn three() -> u32 {
    3
}

impl NewRun {
    /// Reads a request and checks it.
    ///
    /// # Errors
    /// Too large, not JSON, a key that is unknown, doubled or missing, or a value out of its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > MAX_NEW_RUN {
            return Err(SpecError::new(format!("it has {} bytes, at most {MAX_NEW_RUN} are read", bytes.len())));
        }
        let new: NewRun = serde_json::from_slice(bytes).map_err(|error| SpecError::new(error.to_string()))?;
        new.check()?;
        Ok(new)
    }

    /// Checks what the types alone do not say. Whom to trust may be left out: a policy may say it.
    ///
    /// # Errors
    /// The first value out of bounds, or the first two that contradict each other.
    pub fn check(&self) -> Result<(), SpecError> {
        holds(PRIORITY.contains(&self.priority), || "`priority` must be -100 to 100".into())?;
        holds(ATTEMPTS.contains(&self.max_attempts), || "`max_attempts` must be 1 to 100".into())?;
        holds(self.deadline.is_none_or(|deadline| DEADLINE.contains(&deadline)), || {
            format!("`deadline` must be {} to {} seconds", DEADLINE.start(), DEADLINE.end())
        })?;
        let digits = |id: &str| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let stranger = self.image.trust.iter().find(|key| !key.to_str().is_some_and(digits));
        if let Some(stranger) = stranger {
            return Err(SpecError::new(format!(
                "`image.trust`: {} is no key's id: give 64 hex digits, as `imgstream inspect` and `openssl pkey -pubin -outform DER | sha256sum` print them",
                stranger.display()
            )));
        }
        holds(self.key.is_none() || self.target.layout.encrypts(), || {
            "`key` is given, but `target.layout` is `plain`: nothing would be encrypted".into()
        })?;
        let run = RunId::try_from("run".to_owned()).map_err(|error| SpecError::new(error.to_string()))?;
        self.spec(run, 1).check_but_trust()?;
        if self.image.trust.is_empty() {
            let threshold = self.image.threshold();
            holds((1..=MAX_TRUST).contains(&threshold), || format!("`image.threshold` must be 1 to {MAX_TRUST}"))?;
        } else {
            self.image.check_trust()?;
        }
        if let Some(Place::Device(device)) = self.target.place() {
            let plain = device.is_absolute() && device.components().all(|part| part != Component::ParentDir);
            holds(plain, || "`target.device` must be an absolute path without `..`".into())?;
        }
        Ok(())
    }

    /// [`NewRun::check`], and that it says whom to trust.
    ///
    /// # Errors
    /// Those, and that it names no key.
    pub fn check_whole(&self) -> Result<(), SpecError> {
        self.check()?;
        self.image.check_trust()
    }

    /// Where the key of what the layout encrypts comes from; nothing where nothing is encrypted.
    pub fn key_source(&self) -> Option<KeySource> {
        self.target.layout.encrypts().then(|| self.key.unwrap_or(KeySource::Service))
    }

    /// The run spec of an attempt.
    pub fn spec(&self, run: RunId, epoch: u32) -> RunSpec {
        RunSpec {
            run,
            epoch,
            image: self.image.clone(),
            target: self.target.clone(),
            key: self.key_source().unwrap_or_default(),
            options: self.options.clone(),
            ipsec: self.ipsec,
            hand_over: self.hand_over,
        }
    }
}

/// Who starts an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LauncherKind {
    /// The service itself, on its own machine.
    #[default]
    Process,
    /// A Kubernetes cluster: a Job for each attempt.
    Kubernetes,
    /// Somebody else: a machine that boots the medium and enrols by itself.
    External,
}

impl LauncherKind {
    /// All of them.
    pub const ALL: [LauncherKind; 3] = [LauncherKind::Process, LauncherKind::Kubernetes, LauncherKind::External];

    /// Whether the service starts the agent, and can say that it is dead.
    pub fn starts_agents(self) -> bool {
        matches!(self, LauncherKind::Process | LauncherKind::Kubernetes)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            LauncherKind::Process => "process",
            LauncherKind::Kubernetes => "kubernetes",
            LauncherKind::External => "external",
        }
    }
}

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

/// What happened to a run, as its watchers are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Happening {
    /// The run.
    pub run: RunId,
    /// When the service took note of it (RFC 3339, UTC).
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// How far a run is, as its watchers are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunProgress {
    /// The run.
    pub run: RunId,
    /// How far.
    pub progress: Progress,
}

/// How far runs are, as watchers of all are told: those that got on since the last time, and the first time all that are running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Fleet {
    /// The runs.
    pub runs: Vec<Glance>,
}

/// How far a run is, as far as a glance at many shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Glance {
    /// The run.
    pub run: RunId,
    /// The phase of its agent.
    pub phase: Phase,
    /// The step.
    pub step: Step,
    /// Raw bytes this step has dealt with.
    pub bytes: u64,
    /// Raw bytes it will deal with.
    pub total_bytes: u64,
    /// Bytes per second of the stage that this step is about: what is read back while reading back, else what is written.
    pub rate: u64,
    /// The stage that limited over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<Stage>,
    /// Seconds left at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// The paths to its target, where some are not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Paths>,
}

impl Glance {
    /// A glance at a run that is so far.
    pub fn of(run: RunId, progress: &Progress) -> Self {
        let rates = &progress.rates;
        Glance {
            run,
            phase: brief(&progress.phase, progress.phase.name()),
            step: brief(&progress.step, progress.step.name()),
            bytes: progress.bytes,
            total_bytes: progress.total_bytes,
            rate: if progress.step == Step::ReadBack { rates.read_back } else { rates.write },
            limited_by: progress.limited_by.as_ref().map(|stage| brief(stage, stage.name())),
            eta_seconds: progress.eta_seconds,
            paths: None,
        }
    }
}

/// A word as it is, or its beginning, where an agent has made up a long one: there are thousands of glances in one event.
fn brief<W: Clone + From<String>>(word: &W, name: &str) -> W {
    if name.len() <= MAX_WORD { word.clone() } else { name.chars().take(MAX_WORD / 4).collect::<String>().into() }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The run is in another state, or waits for something else in the same.
    State(StateChanged),
    /// Its agent said so.
    Agent(Event),
    /// Something was done with its key.
    Key(KeyEvent),
}

/// A run's new state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StateChanged {
    /// Where the run is now.
    pub state: RunState,
    /// The attempt, 0 before the first.
    pub attempt: u32,
    /// Why.
    pub reason: String,
}
