//! The paths to a target, as an attempt's agent told last. They stand in the record, which is stored together with what was told: so a
//! service that starts anew knows them as well, whatever has been left out of the events since.

use protocol::control::run::RunPaths;
use protocol::event::{PathChanged, PathState};
use serde::{Deserialize, Serialize};

use super::{Moment, Record, State};

/// How many paths carry reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCount {
    /// Those that do.
    pub live: u32,
    /// All of them, those included that have gone since.
    pub total: u32,
    /// Since when it is these many of these many.
    pub since: Moment,
}

impl PathCount {
    /// What it is after a change. A path that fails and is back before anybody has looked changes nothing.
    ///
    /// The agent counts the paths that there are. The kernel takes one away that has been down for a minute (`dev_loss_tmo`), and what is
    /// lost must not be called whole then: the most that there ever were are remembered.
    pub fn after(before: Option<Self>, changed: &PathChanged, now: Moment) -> Self {
        let live = changed.live;
        // Whatever was the first to be told of, it was there before.
        let unseen = u32::from(before.is_none() && changed.state == PathState::Gone);
        let total = before.map_or(0, |before| before.total).max(changed.total.saturating_add(unseen));
        let same = before.filter(|before| (before.live, before.total) == (live, total));
        same.unwrap_or(PathCount { live, total, since: now })
    }

    /// As people see it.
    pub fn view(self) -> RunPaths {
        RunPaths { live: self.live, total: self.total, since: self.since.to_string() }
    }
}

impl Record {
    /// The paths to the target, as the agent that has it told last. A run without one has none.
    pub fn paths(&self) -> Option<PathCount> {
        let has_agent = matches!(self.state, State::Running | State::Lost);
        self.current().filter(|_| has_agent).and_then(|current| current.paths)
    }
}
