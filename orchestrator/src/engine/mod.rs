//! The engine: one task that takes what is asked, decides it against the runs in memory, commits all that waited together in one
//! transaction, and only then answers, launches, and tells watchers.

use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report};
use protocol::control::problem::Problem;
use protocol::control::run::{EnrolmentToken, NewRun, Run, RunPage};
use protocol::event::Progress;
use protocol::{RunId, Token};

use crate::store::{Filter, Told};

/// The engine's handle. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {}

/// Who an agent has proven to be, by its session token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
}

/// A subscription: says that there is something new, never what; whoever is slow misses nothing but progress in between.
pub struct Watch {}

impl Watch {
    /// Returns once something was told (read it with [`Engine::told`]) or progress was made since the last call. `None`: the service ends.
    pub async fn changed(&mut self) -> Option<()> {
        unreachable!()
    }
}

#[allow(unused_variables)]
impl Engine {
    /// Creates a run; `false` when the key has already made this very one.
    pub async fn create(&self, new: NewRun, key: Option<String>) -> Result<(Run, bool), Problem> {
        unreachable!()
    }
    /// A run, with its order and its progress.
    pub async fn run(&self, run: &RunId) -> Result<Run, Problem> {
        unreachable!()
    }
    /// Runs, the latest first. `page`: what `RunPage::next` named.
    pub async fn list(&self, filter: &Filter, page: Option<&str>, limit: u32) -> Result<RunPage, Problem> {
        unreachable!()
    }
    /// Calls a run off. On one that is over: a conflict; on one that is being called off already: nothing new.
    pub async fn cancel(&self, run: &RunId, reason: &str) -> Result<Run, Problem> {
        unreachable!()
    }
    /// Queues a failed or cancelled run again, with a new budget.
    pub async fn retry(&self, run: &RunId) -> Result<Run, Problem> {
        unreachable!()
    }
    /// A person vouches that the silent agent of a lost run is dead. `attempt` guards against vouching for another one.
    pub async fn confirm_death(&self, run: &RunId, attempt: u32) -> Result<Run, Problem> {
        unreachable!()
    }
    /// A new enrolment token for the attempt of an external run that is launching, or the next one of one that is queued. Those before it are void.
    pub async fn token(&self, run: &RunId) -> Result<EnrolmentToken, Problem> {
        unreachable!()
    }
    /// An agent's enrolment.
    pub async fn enrol(&self, token: &Token, enrol: Enrol) -> Result<Enrolled, Problem> {
        unreachable!()
    }
    /// Whose session token this is. A pure computation for a token that is none.
    pub async fn agent(&self, run: &RunId, attempt: u32, session: &Token) -> Result<Agent, Problem> {
        unreachable!()
    }
    /// An agent's events.
    pub async fn report(&self, agent: &Agent, report: Report) -> Result<Orders, Problem> {
        unreachable!()
    }
    /// Renews an agent's lease.
    pub async fn renew(&self, agent: &Agent) -> Result<Lease, Problem> {
        unreachable!()
    }
    /// What was told after `after`, in order.
    pub async fn told(&self, after: i64, run: Option<&RunId>, limit: u32) -> Result<Vec<Told>, Problem> {
        unreachable!()
    }
    /// The place of what was told last.
    pub async fn last_told(&self) -> Result<i64, Problem> {
        unreachable!()
    }
    /// The latest progress of a run, of memory.
    pub fn progress(&self, run: &RunId) -> Option<Progress> {
        unreachable!()
    }
    /// The latest progress of all running runs.
    pub fn all_progress(&self) -> Vec<(RunId, Progress)> {
        unreachable!()
    }
    /// Subscribes to one run or to all.
    pub fn watch(&self, run: Option<&RunId>) -> Watch {
        unreachable!()
    }
    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), Problem> {
        unreachable!()
    }
}
