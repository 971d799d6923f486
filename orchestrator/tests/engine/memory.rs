//! A store in memory that outlives the engine, and fails as a real one may: before a commit, or after it without saying so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, ready};
use orchestrator::model::{Record, Sealed};
use orchestrator::store::{Change, Filter, Generation, Store, StoreError, Told};
use protocol::RunId;

/// What happens to the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Before,
    /// It is done, and nobody is told.
    After,
    /// It is done.
    None,
}

#[derive(Debug, Default)]
pub struct Kept {
    pub generation: i64,
    pub runs: BTreeMap<RunId, Record>,
    pub told: Vec<Told>,
    /// Places elsewhere that no run has.
    pub elsewhere: BTreeMap<String, RunId>,
    last_told: i64,
    pub faults: Vec<Fault>,
}

#[derive(Debug, Default, Clone)]
pub struct Memory(pub Arc<Mutex<Kept>>);

fn away() -> StoreError {
    StoreError::Unavailable("a fault of the test".into())
}

impl Memory {
    fn read<T: Send + 'static>(&self, of: impl FnOnce(&Kept) -> T) -> BoxFuture<'static, Result<T, StoreError>> {
        let mut kept = self.0.lock().unwrap();
        let is_away = kept.faults.pop().is_some_and(|fault| fault != Fault::None);
        let answer = if is_away { Err(away()) } else { Ok(of(&kept)) };
        Box::pin(ready(answer))
    }

    fn change(&self, by: Option<Generation>, of: impl FnOnce(&mut Kept)) -> Result<Generation, StoreError> {
        let mut kept = self.0.lock().unwrap();
        let fault = kept.faults.pop().filter(|fault| *fault != Fault::None);
        if fault == Some(Fault::Before) {
            return Err(away());
        }
        if by.is_some_and(|by| by.0 != kept.generation) {
            return Err(StoreError::Superseded);
        }
        of(&mut kept);
        if fault == Some(Fault::After) { Err(away()) } else { Ok(Generation(kept.generation)) }
    }
}

impl Kept {
    fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            let record = &change.record;
            for (place, on) in change.places() {
                match on {
                    true => self.elsewhere.insert(place.text().to_owned(), record.run.clone()),
                    false => self.elsewhere.remove(place.text()),
                };
            }
            let before = self.runs.insert(record.run.clone(), record.clone());
            assert_eq!(before.map_or(0, |before| before.version) + 1, record.version, "versions grow by one");
            for happening in &change.told {
                self.last_told += 1;
                let seq = self.last_told;
                self.told.push(Told { seq, happening: happening.clone() });
            }
        }
        let active: Vec<&Record> = self.runs.values().filter(|record| record.state.is_active()).collect();
        for (number, one) in active.iter().enumerate() {
            for other in &active[number + 1..] {
                assert_ne!(one.server(), other.server(), "two active runs of one server");
                assert_ne!(one.target_key(), other.target_key(), "two active runs of one target");
            }
        }
    }
}

impl Store for Memory {
    fn take_over(&self) -> BoxFuture<'_, Result<Generation, StoreError>> {
        Box::pin(ready(self.change(None, |kept| kept.generation += 1)))
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.read(|kept| {
            let mut open: Vec<Record> = kept.runs.values().filter(|run| !run.state.is_over()).cloned().collect();
            open.sort_by_key(|record| record.seq);
            open
        })
    }

    fn last_seq(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.read(|kept| kept.runs.values().map(|record| record.seq).max().unwrap_or(0))
    }

    fn run<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let run = run.clone();
        self.read(move |kept| kept.runs.get(&run).cloned())
    }

    fn by_key<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let key = key.to_owned();
        self.read(move |kept| {
            kept.runs.values().find(|record| record.key.as_ref().is_some_and(|of| of.key == key)).cloned()
        })
    }

    fn list<'a>(
        &'a self,
        _: &'a Filter,
        before: Option<i64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.read(move |kept| {
            let mut runs: Vec<Record> = kept.runs.values().cloned().collect();
            runs.sort_by_key(|record| -record.seq);
            runs.retain(|record| before.is_none_or(|before| record.seq < before));
            runs.truncate(limit as usize);
            runs
        })
    }

    fn commit<'a>(&'a self, by: Generation, changes: &'a [Change]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(self.change(Some(by), |kept| kept.commit(changes)).map(drop)))
    }

    fn reserve<'a>(
        &'a self,
        by: Generation,
        run: &'a RunId,
        place: &'a Sealed,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let change = self.change(Some(by), |kept| {
            kept.elsewhere.insert(place.text().to_owned(), run.clone());
        });
        Box::pin(ready(change.map(drop)))
    }

    fn reserved(&self) -> BoxFuture<'_, Result<Vec<(RunId, Sealed)>, StoreError>> {
        self.read(|kept| kept.elsewhere.iter().map(|(place, run)| (run.clone(), Sealed::at(place))).collect())
    }

    fn release<'a>(&'a self, by: Generation, place: &'a Sealed) -> BoxFuture<'a, Result<(), StoreError>> {
        let change = self.change(Some(by), |kept| drop(kept.elsewhere.remove(place.text())));
        Box::pin(ready(change.map(drop)))
    }

    fn prune<'a>(&'a self, by: Generation, runs: &'a [(RunId, i64)]) -> BoxFuture<'a, Result<bool, StoreError>> {
        let is_there = |kept: &Kept, (run, version): &(RunId, i64)| {
            kept.runs.get(run).is_some_and(|record| record.version == *version && record.state.is_over())
        };
        let refused = runs.iter().any(|run| !is_there(&self.0.lock().unwrap(), run));
        if refused {
            return Box::pin(ready(Err(StoreError::Conflict("another version".into()))));
        }
        let mut is_done = true;
        let done = self.change(Some(by), |kept| {
            // So much of what was told at once, as the real ones.
            let of = |run: &RunId| runs.iter().any(|(of, _)| of == run);
            let told = kept.told.iter().filter(|told| of(&told.happening.run)).map(|told| told.seq);
            let mut told: Vec<i64> = told.collect();
            if runs.len() > 1 && told.len() >= 10 {
                is_done = false;
                return;
            }
            told.truncate(10);
            kept.told.retain(|of| !told.contains(&of.seq));
            is_done = told.len() < 10;
            kept.runs.retain(|run, _| !is_done || !of(run));
        });
        Box::pin(ready(done.map(|_| is_done)))
    }

    fn told<'a>(
        &'a self,
        after: i64,
        run: Option<&'a RunId>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Told>, StoreError>> {
        let run = run.cloned();
        self.read(move |kept| {
            let of = kept.told.iter().filter(|told| told.seq > after);
            let of = of.filter(|told| run.as_ref().is_none_or(|run| told.happening.run == *run));
            of.take(limit as usize).cloned().collect()
        })
    }

    fn last_told(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.read(|kept| kept.last_told)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.read(|_| ())
    }
}
