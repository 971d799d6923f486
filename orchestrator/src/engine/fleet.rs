//! The runs that are not over, as the engine decides about them: each change is made here first, and taken back when the store did not
//! take it.

use std::collections::HashMap;

use protocol::{Digest, RunId};

use crate::model::schedule::{Busy, Queue};
use crate::model::{Record, State};

/// The runs that are not over.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    records: HashMap<RunId, Record>,
    /// Which run an enrolment token is for.
    tokens: HashMap<Digest, RunId>,
    /// Which run was created with a key.
    keys: HashMap<String, RunId>,
    pub(super) queue: Queue,
    pub(super) busy: Busy,
}

impl Fleet {
    pub(super) fn new(records: Vec<Record>) -> Self {
        let mut fleet = Fleet::default();
        for record in records {
            fleet.put(record);
        }
        fleet
    }

    pub(super) fn get(&self, run: &RunId) -> Option<&Record> {
        self.records.get(run)
    }

    pub(super) fn by_key(&self, key: &str) -> Option<&Record> {
        self.keys.get(key).and_then(|run| self.get(run))
    }

    /// The run that an enrolment token is for.
    pub(super) fn by_token(&self, token: &Digest) -> Option<&RunId> {
        self.tokens.get(token)
    }

    /// Puts a record in, in place of the one before it; one that is over is taken out. Returns the one before.
    pub(super) fn put(&mut self, record: Record) -> Option<Record> {
        let before = self.remove(&record.run);
        if !record.state.is_over() {
            self.queue.add(&record);
            self.busy.add(&record);
            for token in tokens(&record) {
                self.tokens.insert(token.clone(), record.run.clone());
            }
            if let Some(key) = &record.key {
                self.keys.insert(key.key.clone(), record.run.clone());
            }
            self.records.insert(record.run.clone(), record);
        }
        before
    }

    pub(super) fn remove(&mut self, run: &RunId) -> Option<Record> {
        let record = self.records.remove(run)?;
        self.queue.remove(&record);
        self.busy.remove(&record);
        for token in tokens(&record) {
            self.tokens.remove(token);
        }
        if let Some(key) = &record.key {
            self.keys.remove(&key.key);
        }
        Some(record)
    }
}

/// Tokens that may enrol, or have; and those of which it is to be said that they were revoked.
fn tokens(record: &Record) -> impl Iterator<Item = &Digest> {
    let is_open = matches!(record.state, State::Launching | State::Running);
    let current = record.current().filter(|_| is_open).and_then(|current| current.token.as_ref());
    let revoked = record.attempts.iter().filter(|of| of.revoked.is_some()).filter_map(|of| of.token.as_ref());
    let revoked = revoked.filter(move |token| Some(*token) != current);
    current.into_iter().chain(&record.next_token).chain(revoked)
}
