//! What the task is asked, what it answers, and what it has decided and not stored yet.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::control::problem::Problem;
use protocol::{Digest, RunId};
use tokio::sync::oneshot;

use super::draft::Draft;
use super::ending;
use crate::model::{Answer, Effect, Input, Record};
use crate::store::{Change, StoreError};

/// What an input is answered with.
pub(super) type Replied = Result<(Arc<Record>, Answer), Problem>;
/// Whether they are gone; else there is more of them to be removed.
pub(super) type Pruned = Result<bool, StoreError>;
pub(super) type Created = Result<(Arc<Record>, bool), Problem>;

/// What the task is asked.
pub(super) enum Ask {
    /// Create a run.
    Create { draft: Box<Draft>, reply: oneshot::Sender<Created> },
    /// Decide an input. Without a reply, it is the service's own: it is not lost when the store is away.
    Input { run: RunId, input: Box<Input>, reply: Option<oneshot::Sender<Replied>> },
    /// Which run an enrolment token is for.
    Find { token: Digest, reply: oneshot::Sender<Option<RunId>> },
    /// Remove runs.
    Prune(Prune),
}

/// Runs of these versions, which are over, are to be removed.
pub(super) struct Prune {
    pub(super) runs: Vec<(RunId, i64)>,
    pub(super) reply: oneshot::Sender<Pruned>,
}

impl Ask {
    /// How many events it brings.
    pub(super) fn events(&self) -> usize {
        match self {
            Ask::Input { input, .. } => match &**input {
                Input::Report { events, .. } => events.len(),
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// An answer that waits until what it says, or rests on, is stored.
pub(super) enum Reply {
    Created(oneshot::Sender<Created>, Result<(RunId, bool), Problem>),
    Input(oneshot::Sender<Replied>, RunId, Result<Answer, Problem>),
    Found(oneshot::Sender<Option<RunId>>, Option<RunId>),
}

/// What is decided and not stored yet.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// Records as they were before, in order; nothing for what was not there.
    pub(super) undo: Vec<(RunId, Option<Record>)>,
    /// Runs that were over when they were decided about.
    pub(super) over: HashMap<RunId, Arc<Record>>,
    pub(super) replies: Vec<Reply>,
    pub(super) effects: Vec<(RunId, Effect)>,
    /// The service's own inputs, to be decided again when this one is not stored.
    pub(super) own: Vec<(RunId, Input)>,
}

impl Reply {
    /// Whoever has gone away need not be told.
    pub(super) fn send(self, find: impl Fn(&RunId) -> Option<Arc<Record>>) {
        let found = |run: &RunId| find(run).ok_or_else(ending);
        match self {
            Reply::Created(reply, created) => {
                drop(reply.send(created.and_then(|(run, is_new)| Ok((found(&run)?, is_new)))));
            }
            Reply::Input(reply, run, answer) => {
                drop(reply.send(answer.and_then(|answer| Ok((found(&run)?, answer)))));
            }
            Reply::Found(reply, found) => drop(reply.send(found)),
        }
    }

    pub(super) fn send_problem(self, problem: Problem) {
        match self {
            Reply::Created(reply, _) => drop(reply.send(Err(problem))),
            Reply::Input(reply, ..) => drop(reply.send(Err(problem))),
            // Without an answer he is told that the service cannot do it now.
            Reply::Found(..) => {}
        }
    }
}
