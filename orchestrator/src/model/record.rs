//! A run as it is stored. What is not here does not survive a restart, and must not matter then.

use std::path::{Path, PathBuf};

use protocol::control::NewRun;
use protocol::control::run::{LauncherKind, Outcome, RunState};
use protocol::event::{Failure, Phase, Step, Summary};
use protocol::spec::{Place, Reservation};
use protocol::{Digest, Label, RunId, ServerName};
use serde::{Deserialize, Serialize};

use super::{Moment, PathCount, Sealed};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// An attempt has begun; its agent has not enrolled yet, and can write nothing before it has.
    Launching,
    /// An agent has enrolled and holds the lease.
    Running,
    /// An agent that may hold the target has gone silent.
    Lost,
    /// The target holds the image.
    Succeeded,
    /// It does not, and nobody tries again.
    Failed,
    /// It was called off.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [State; 7] = [
        State::Queued,
        State::Launching,
        State::Running,
        State::Lost,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];

    /// Whether its server and its target are its own: nobody else is started on them.
    pub fn is_active(self) -> bool {
        matches!(self, State::Launching | State::Running | State::Lost)
    }

    /// Whether nothing follows by itself.
    pub fn is_over(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }

    /// As it is stored and told.
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Launching => "launching",
            State::Running => "running",
            State::Lost => "lost",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

impl From<State> for RunState {
    fn from(state: State) -> Self {
        state.name().to_owned().into()
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub run: RunId,
    /// Its place among all runs ever created, from 1. Given by the engine.
    pub seq: i64,
    /// Grows by one with each change: two services cannot both change one run.
    pub version: i64,
    /// What was asked for.
    pub order: NewRun,
    /// The key it was created with, and the digest of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
    /// The key of its disk, where the service has made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub luks_key: Option<KeyRecord>,
    /// Keys that it has forgotten, and that whoever keeps them elsewhere is not known to have destroyed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<Sealed>,
    /// The rule for its image, where there was a policy for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyPin>,
    /// When it was created.
    pub created: Moment,
    /// When it must have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Moment>,
    /// Where it is.
    pub state: State,
    /// Since when.
    pub since: Moment,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// While queued: not to be started before.
    pub not_before: Moment,
    /// The attempts whose agents went silent, and are neither known to be dead nor shut out, in order. As long as there is one the run
    /// is active: server and target stay its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u32>,
    /// Whether it is to end, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelOrder>,
    /// Digest of the enrolment token for the next attempt, where a person was given one before its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<Digest>,
    /// How many attempts may have been made before it fails. A person who retries raises it.
    pub budget: u32,
    /// The attempts, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
    /// The phase of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The step of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<Summary>>,
    /// Why the last attempt failed, where its agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<Failure>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
}

/// How a run was made idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub request: Digest,
}

/// The key of a run's disk, which the service has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key. Gone once it is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// When it was made.
    pub made: Moment,
    /// The last attempt that had another key before this one; 0 where there was none.
    #[serde(default)]
    pub after: u32,
    /// That its owner was shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Deed>,
    /// That it was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<Deed>,
}

impl KeyRecord {
    /// A new one, for the attempts after this one.
    pub fn new(sealed: Sealed, made: Moment, after: u32) -> Self {
        KeyRecord { sealed: Some(sealed), made, after, shown: None, destroyed: None }
    }
}

/// Something that somebody has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub at: Moment,
    /// Who.
    pub by: String,
    /// Why, where somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The rule for images that a run was created under. What it says stands in the order; this is for those who ask later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPin {
    /// SHA-256 of the rule's text.
    pub digest: Digest,
    /// The rule, with the name that it has in the policy.
    pub rule: String,
}

/// That a run is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// Since when.
    pub since: Moment,
    /// Why, in words.
    pub reason: String,
    /// What the run is then.
    pub ending: Ending,
}

/// What a run is that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Somebody called it off.
    Cancelled,
    /// Its deadline has passed.
    Failed,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 1; the fencing epoch.
    pub number: u32,
    /// When it began.
    pub started: Moment,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
    /// Digest of its enrolment token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Digest>,
    /// Digest of the nonce of the process that has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Digest>,
    /// Digest of that process's client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<Digest>,
    /// When it enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<Moment>,
    /// When a person revoked it: nothing that its agent shows counts from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Moment>,
    /// Program and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// When it was given the key of the run's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_released: Option<Moment>,
    /// What its launcher knows it by, also after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The lowest index of its events that has not been reported.
    #[serde(default)]
    pub next_index: u64,
    /// How many bytes of its events were stored.
    #[serde(default)]
    pub stored_bytes: u64,
    /// The paths to the target, where its agent has told of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathCount>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Default for AttemptRecord {
    fn default() -> Self {
        AttemptRecord {
            number: 0,
            started: Moment(0),
            ended: None,
            token: None,
            nonce: None,
            client_key: None,
            enrolled: None,
            revoked: None,
            agent: None,
            key_released: None,
            handle: None,
            next_index: 0,
            stored_bytes: 0,
            paths: None,
            outcome: None,
            reason: None,
        }
    }
}

impl Record {
    /// The number of the latest attempt, 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }

    /// The latest attempt.
    pub fn current(&self) -> Option<&AttemptRecord> {
        self.attempts.last()
    }

    /// The key of its disk, sealed, where the service has made one and has not forgotten it.
    pub fn sealed(&self) -> Option<&Sealed> {
        self.luks_key.as_ref().and_then(|key| key.sealed.as_ref())
    }

    /// What no two active runs may have in common, besides the server: the LUN, or a device of the machine that the agent runs on.
    pub fn target_key(&self) -> String {
        target_key(&self.order)
    }

    /// Whether the next attempt shuts out this one by itself: its reservation preempts this one's key, and it writes only once it has
    /// read back that this key is gone.
    pub fn is_fenced_by_reservation(&self) -> bool {
        self.order.target.lun.is_some() && self.order.target.reservation() == Reservation::Require
    }

    /// Whether the scheduler may begin its next attempt, once its time has come.
    pub fn may_start(&self) -> bool {
        match self.state {
            State::Queued => true,
            // The silent one is shut out by the reservation of its successor.
            State::Lost => {
                self.order.launcher != LauncherKind::Process
                    && self.is_fenced_by_reservation()
                    && self.cancel.is_none()
                    && self.attempt() < self.budget
            }
            _ => false,
        }
    }

    /// The server.
    pub fn server(&self) -> &ServerName {
        &self.order.server
    }

    /// The fabric.
    pub fn fabric(&self) -> &Label {
        &self.order.fabric
    }

    /// The hosts of its sources, each once.
    pub fn source_hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.order.image.sources.iter().map(|source| host(source)).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// See [`Record::target_key`].
pub fn target_key(order: &NewRun) -> String {
    match (order.target.place(), order.launcher) {
        (Some(Place::Lun(lun)), _) => format!("lun {}", lun.wwid),
        (Some(Place::Device(device)), LauncherKind::Process) => format!("here {}", plain(device)),
        (Some(Place::Device(device)), LauncherKind::Kubernetes | LauncherKind::External) => {
            format!("on {} {}", order.server, plain(device))
        }
        (None, _) => "nothing".into(),
    }
}

/// A path without what means nothing in it.
fn plain(path: &Path) -> String {
    path.components().collect::<PathBuf>().display().to_string()
}

/// `host[:port]` of a source; a folder is one of this machine.
fn host(source: &str) -> String {
    let rest = source.split_once("://").map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('/').next()).filter(|host| !host.is_empty()).unwrap_or("files").to_owned()
}
