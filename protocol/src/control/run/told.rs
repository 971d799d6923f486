//! What watchers are told: what happens to runs, and how far they are.

use serde::{Deserialize, Serialize};

use super::RunState;
use crate::control::key::KeyEvent;
use crate::event::{Event, Paths, Phase, Progress, Stage, Step};
use crate::text::RunId;

/// Longest word of a glance, in bytes.
pub const MAX_WORD: usize = 64;

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
