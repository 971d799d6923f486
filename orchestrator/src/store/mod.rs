//! Where runs are kept: one trait, SQLite by default and PostgreSQL by URL.
//!
//! A [`Change`] is a run's new record and what is told of it; all changes of one [`Store::commit`] are one transaction. There is one
//! writer: a service that takes over makes the commits of the one before it fail.

mod batch;
mod database;
mod dialect;
mod founding;
mod link;
mod location;
mod prune;
mod readers;
mod statement;
mod writer;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use protocol::RunId;
use protocol::control::key::KeyAction;
use protocol::control::run::{Happening, What};

use crate::model::{Record, Sealed, State};

pub use database::open;
pub use location::{BadLocation, Location};

/// A run's new record, with what is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The record, its version already raised. Version 1 is a new run.
    pub record: Record,
    /// What is told, in order.
    pub told: Vec<Happening>,
}

impl Change {
    /// The places elsewhere that it takes from the list of those that no run has (`false`), or puts there (`true`): a key that was made is
    /// the run's, and one that was destroyed is nobody's.
    pub fn places(&self) -> Vec<(&Sealed, bool)> {
        let tells = |action: &KeyAction| {
            self.told.iter().any(|told| matches!(&told.what, What::Key(event) if event.action == *action))
        };
        let made =
            self.record.sealed().filter(|key| key.is_elsewhere() && tells(&KeyAction::Made)).map(|key| (key, false));
        let remains = if tells(&KeyAction::Destroyed) { &self.record.remains[..] } else { &[] };
        made.into_iter().chain(remains.iter().map(|key| (key, true))).collect()
    }
}

/// What was told, with its place among everything ever told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// From 1, growing, without regard to the run.
    pub seq: i64,
    /// What.
    pub happening: Happening,
}

/// Which runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In any of these states; in any at all where there are none.
    pub states: Vec<State>,
    /// Of this server.
    pub server: Option<String>,
    /// Of this fabric.
    pub fabric: Option<String>,
    /// Of this image.
    pub image: Option<String>,
}

/// Which service writes. Grows each time that one takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub i64);

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, is full, or the like: later it may. Whether a commit happened is not known; whatever is read next says
    /// so, and is final.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another service has taken over: this one must end.
    #[error("another service has taken over this store")]
    Superseded,
    /// The record was changed by another, or a second run would be active on a server or target, or a key would be used twice.
    #[error("the store refuses the change: {0}")]
    Conflict(String),
    /// What it holds makes no sense.
    #[error("the store holds something that this version does not understand: {0}")]
    Corrupt(String),
}

/// What a store does.
pub trait Store: Send + Sync + 'static {
    /// Takes over as the one that writes. What the one before had under way has ended when this returns, so that what is read
    /// afterwards is final.
    fn take_over(&self) -> BoxFuture<'_, Result<Generation, StoreError>>;

    /// All runs that are not over, the oldest first.
    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;

    /// The highest place given to a run; 0 when there is none.
    fn last_seq(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// A run.
    fn run<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// The run that was created with this key.
    fn by_key<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Runs, the latest first, that have a lower place than `before`.
    fn list<'a>(
        &'a self,
        filter: &'a Filter,
        before: Option<i64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>>;

    /// All of these changes, or none. Each record's version must be one higher than the stored one's; of several changes of one run,
    /// one higher than that of the change before. Runs that give up their server and target may hand them over to others.
    fn commit<'a>(&'a self, by: Generation, changes: &'a [Change]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Puts a place elsewhere on the list of those that no run has, before a key is made there. The commit by which a run gets that key takes
    /// it off; the one by which a run forgets it puts it there again ([`Change::places`]).
    fn reserve<'a>(
        &'a self,
        by: Generation,
        run: &'a RunId,
        place: &'a Sealed,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// That list: places where a key may lie that is nobody's, and the runs that they were meant for.
    fn reserved(&self) -> BoxFuture<'_, Result<Vec<(RunId, Sealed)>, StoreError>>;

    /// Takes a place off the list: nothing is there any more.
    fn release<'a>(&'a self, by: Generation, place: &'a Sealed) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Removes runs that are over, and all that was told of them; each must have this version. Where that is very much the answer is `false`:
    /// of several nothing is removed then, so ask for fewer; of one alone some of what was told, so go on.
    fn prune<'a>(&'a self, by: Generation, runs: &'a [(RunId, i64)]) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// What was told after `after`, of all runs or of one, in order.
    fn told<'a>(
        &'a self,
        after: i64,
        run: Option<&'a RunId>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Told>, StoreError>>;

    /// The place of what was told last; 0 when nothing was.
    fn last_told(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// Whether it answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A store as it is shared.
pub type Shared = Arc<dyn Store>;
