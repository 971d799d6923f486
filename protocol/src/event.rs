//! What happens in a run, as typed events. The terminal, `--json`, the orchestrator, its page and its metrics all read these.
//!
//! Each event carries run, attempt and an index that grows by one per event of that attempt, so a reader can order them and
//! see a gap. Gaps are allowed where [`Body::priority`] is [`Priority::Low`]; an event of high priority is never dropped.
//! A reader survives kinds, phases, steps, stages and error kinds it does not know: they are kept as they came.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::text::RunId;

mod outcome;
#[cfg(feature = "schema")]
mod schema;
mod words;

pub use outcome::{
    Container, Failure, ImageFacts, IplFacts, Paths, PhaseTime, Proof, ReservationFacts, Summary, Tail, TargetFacts,
    TornDown,
};
pub use words::{ErrorKind, PathState, Phase, Stage, Step, TailTreatment, TargetState};

/// One event in its envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// Position in the attempt's sequence, from 0.
    pub index: u64,
    /// Seconds since the attempt started, on a clock that never jumps.
    pub at: f64,
    /// The agent's wall clock, RFC 3339 in UTC. For people; order by `index`.
    pub time: String,
    /// What happened.
    pub event: Body,
}

/// Whether an event may be thinned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// A later one replaces it.
    Low,
    /// Must arrive.
    High,
}

/// What happened. On the wire an object with a `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", remote = "Self")]
pub enum Body {
    /// The first event of an attempt.
    RunStarted(RunStarted),
    /// A phase began.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// A step within a phase began; the one before has ended.
    StepStarted {
        /// The phase.
        phase: Phase,
        /// The step.
        step: Step,
    },
    /// How far a step is.
    Progress(Progress),
    /// Something had to be fetched again.
    Retry {
        /// The source that failed or sent wrong bytes.
        source: String,
        /// What went wrong.
        message: String,
    },
    /// Something a person should know; the run goes on.
    Warning {
        /// What.
        message: String,
    },
    /// A path to the target came, went, failed or came back.
    PathChanged(PathChanged),
    /// A phase ended well.
    PhaseFinished {
        /// Which.
        phase: Phase,
        /// How long it took.
        seconds: f64,
        /// What came of it, in one line.
        detail: String,
    },
    /// The last event of an attempt that reached its goal.
    RunFinished(Box<Summary>),
    /// The last event of an attempt that did not.
    RunFailed(Box<Failure>),
    /// A kind this reader does not know, as it came, `kind` included.
    #[serde(skip)]
    Unknown(Map<String, Value>),
}

/// Every kind of [`Body`] but `Unknown`.
pub const KINDS: [&str; 10] = [
    "run-started",
    "phase-started",
    "step-started",
    "progress",
    "retry",
    "warning",
    "path-changed",
    "phase-finished",
    "run-finished",
    "run-failed",
];

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Body::Unknown(fields) => fields.serialize(serializer),
            known => Body::serialize(known, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    /// A known kind must be well formed; an unknown one is kept.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyBody)
    }
}

/// Reads a body. Progress, which comes all the time, is read as it stands there, where its kind stands first; all else is kept until
/// its kind is known.
struct AnyBody;

impl<'de> Visitor<'de> for AnyBody {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event's body, an object with a `kind`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value: Value = map.next_value()?;
            if fields.is_empty() && key == "kind" && value == "progress" {
                return Progress::deserialize(MapAccessDeserializer::new(map)).map(Body::Progress);
            }
            fields.insert(key, value);
        }
        let kind = fields.get("kind").and_then(Value::as_str);
        let kind = kind.ok_or_else(|| serde::de::Error::custom("an event without a `kind`"))?;
        if !KINDS.contains(&kind) {
            return Ok(Body::Unknown(fields));
        }
        Body::deserialize(Value::Object(fields)).map_err(serde::de::Error::custom)
    }
}

impl Body {
    /// Whether it may be thinned out. What is unknown may not.
    pub fn priority(&self) -> Priority {
        match self {
            Body::Progress(_) => Priority::Low,
            _ => Priority::High,
        }
    }

    /// Whether it is the last event of its attempt.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Body::RunFinished(_) | Body::RunFailed(_))
    }
}

/// What a run sets out to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunStarted {
    /// Program and version.
    pub agent: String,
    /// Name of the image asked for.
    pub image: String,
    /// The target.
    pub target: String,
}

/// What happened to one path, and how many are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PathChanged {
    /// The SCSI device, such as `sda`. It may be another one after the next start.
    pub path: String,
    /// How it is reached: `0.0.1900 0x5005… 0x4010…` on zFCP, else SCSI host, channel, target and LUN.
    pub way: String,
    /// What it is now.
    pub state: PathState,
    /// Live paths now.
    pub live: u32,
    /// All paths now.
    pub total: u32,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// The step.
    pub step: Step,
    /// Raw bytes this step has dealt with.
    pub bytes: u64,
    /// Raw bytes it will deal with.
    pub total_bytes: u64,
    /// Chunks dealt with.
    pub chunks: u64,
    /// Chunks to deal with.
    pub total_chunks: u64,
    /// Speed of each stage over the last seconds.
    pub rates: Rates,
    /// The stage that limited over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<Stage>,
    /// Seconds left at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// Bytes per second of each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Rates {
    /// Compressed bytes that arrived.
    pub source: u64,
    /// Raw bytes verified and decoded.
    pub decode: u64,
    /// Raw bytes that landed on the target, zeros included.
    pub write: u64,
    /// Raw bytes read back and found right.
    pub read_back: u64,
}
