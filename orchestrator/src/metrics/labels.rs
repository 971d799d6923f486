//! The labels, whose values are all known beforehand.

use prometheus_client::encoding::EncodeLabelSet;
use protocol::control::key::KeyAction;

/// A state of runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct In {
    pub(super) state: &'static str,
}

/// What runs wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct For {
    pub(super) what: String,
}

/// A stage of the agents' pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Stage {
    pub(super) stage: &'static str,
}

/// What was done with a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Action {
    action: String,
}

impl Action {
    /// One of the protocol's words; none where it is not known.
    pub(super) fn of(action: &KeyAction) -> Option<Self> {
        KeyAction::ALL.contains(action).then(|| Action { action: action.name().to_owned() })
    }
}

/// An agent's event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Event {
    priority: &'static str,
}

impl Event {
    /// It is stored, and told to every watcher.
    pub(super) const HIGH: Self = Event { priority: "high" };
    /// It may be thinned.
    pub(super) const PROGRESS: Self = Event { priority: "progress" };
    pub(super) const ALL: [Self; 2] = [Self::HIGH, Self::PROGRESS];
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    outcome: &'static str,
}

impl Outcome {
    pub(super) const STORED: Self = Outcome { outcome: "stored" };
    /// Refused, or not known.
    pub(super) const NOT_STORED: Self = Outcome { outcome: "not-stored" };
    pub(super) const ALL: [Self; 2] = [Self::STORED, Self::NOT_STORED];
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

impl Answered {
    /// A method that nothing here is served with could be any word.
    pub(super) fn new(method: &str, route: &str, status: u16) -> Self {
        let known = ["GET", "POST", "DELETE", "HEAD"].into_iter().find(|known| *known == method);
        Answered { method: known.unwrap_or("other"), route: route.to_owned(), status }
    }
}
