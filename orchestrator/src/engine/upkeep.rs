//! What is done now and then with all runs that are stored: keys that are sealed otherwise than new ones are sealed anew, and runs that
//! were over long ago are removed.
//!
//! The runs are read a page at a time, the latest first, beside what else is asked; and what comes of it is asked of the task that decides,
//! a few at a time, so that nobody else waits for long. It begins with the service, which serves meanwhile: a walk that did not end, or a
//! service that was killed, begins anew and finds done what was done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use protocol::control::problem::{Code, Problem};
use protocol::{RunId, ServerName};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::asks::{Ask, Prune};
use super::{Engine, ending, problem};
use crate::model::{Input, Moment, Record, Sealed};
use crate::store::{Filter, StoreError};

/// Runs that are read at once.
const PAGE: u32 = 256;
/// Keys that are stored in one transaction: for each run that is over the task reads its record first.
const AT_ONCE: usize = 32;
/// Runs that are removed in one transaction. With a quarter of that others wait hardly less, and all of it takes three times as long.
const LOT: usize = 64;
/// From one walk to the next, at most.
const EVERY: Duration = Duration::from_secs(3600);
/// After one that did not come to its end.
const SOON: Duration = Duration::from_secs(10);

/// Walks for as long as the engine decides.
pub(super) async fn go_on(engine: Engine) {
    let walking = async {
        // Runs are not kept for much longer than they are to be.
        let every = engine.0.settings.retention.map_or(EVERY, |kept| EVERY.min(kept / 24));
        let mut upkeep = Upkeep { engine: engine.clone(), shut: 0 };
        loop {
            let pause = match upkeep.walk().await {
                Ok(()) => every,
                Err(problem) => {
                    tracing::warn!("looking through the runs: {}; it is tried again", problem.detail);
                    SOON
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = engine.0.asks.closed() => {}
        () = walking => {}
    }
}

struct Upkeep {
    engine: Engine,
    /// How many keys did not open when it was looked last.
    shut: u64,
}

/// What a walk has seen of keys.
#[derive(Default)]
struct Keys {
    renewed: u64,
    /// Those that are to be sealed anew by the next walk.
    left: u64,
    /// Those that do not open.
    shut: u64,
}

/// What a walk has seen of runs that were over long ago.
#[derive(Default)]
struct Old {
    /// Servers that a later run than those that follow was of.
    servers: HashSet<ServerName>,
    pruned: usize,
    kept_for_key: u64,
}

impl Upkeep {
    async fn walk(&mut self) -> Result<(), Problem> {
        let (mut keys, mut old) = (Keys::default(), Old::default());
        let walked = self.look_at_all(&mut keys, &mut old).await;
        // What does not open waits for nothing that would be taken away.
        let left = walked.is_ok().then_some(keys.left);
        let settings = &self.engine.0.settings;
        settings.keeper.renewed(keys.renewed, left);
        if old.pruned > 0 {
            tracing::info!(
                runs = old.pruned,
                "runs that were over long ago were removed, with all that was told of them"
            );
        }
        walked?;
        settings.metrics.keys_looked_at(keys.left, keys.shut);
        settings.metrics.kept_for_key(old.kept_for_key);
        self.shut = keys.shut;
        self.forget().await
    }

    async fn look_at_all(&self, keys: &mut Keys, old: &mut Old) -> Result<(), Problem> {
        let mut before = None;
        loop {
            let page = self.engine.0.store.list(&Filter::default(), before, PAGE).await;
            let page = page.map_err(|error| problem(&error))?;
            self.renew(&page, keys).await?;
            self.prune(&page, old).await?;
            match page.last().filter(|_| page.len() == PAGE as usize) {
                Some(last) => before = Some(last.seq),
                None => return Ok(()),
            }
        }
    }

    /// Removes those whose time is over. The latest run of each server is kept, for whoever asks what was done to it last, and so the latest
    /// of all, whose place among all is never given again; and one whose key the service has: there may be no other.
    async fn prune(&self, page: &[Record], old: &mut Old) -> Result<(), Problem> {
        let Some(kept) = self.engine.0.settings.retention else { return Ok(()) };
        let now = self.engine.0.clock.now();
        let mut gone = Vec::new();
        for record in page {
            let is_latest = old.servers.insert(record.server().clone());
            if is_latest || !is_old(record, now, kept) {
                continue;
            }
            match record.sealed() {
                Some(_) => old.kept_for_key += 1,
                None => gone.push((record.run.clone(), record.version)),
            }
        }
        for lot in gone.chunks(LOT) {
            old.pruned += self.prune_lot(lot).await?;
        }
        Ok(())
    }

    /// Removes some, in as many transactions as that takes, and leaves the store to others for as long after each. Returns how many.
    async fn prune_lot(&self, runs: &[(RunId, i64)]) -> Result<usize, Problem> {
        let (mut lots, mut pruned) = (vec![runs], 0);
        while let Some(lot) = lots.pop() {
            let began = Instant::now();
            let (reply, replied) = oneshot::channel();
            self.engine.ask(Ask::Prune(Prune { runs: lot.to_vec(), reply })).await?;
            let answer = replied.await.map_err(|_| ending())?;
            tokio::time::sleep(began.elapsed()).await;
            match answer {
                Ok(true) => {
                    self.engine.0.settings.metrics.pruned(lot.len());
                    pruned += lot.len();
                }
                Ok(false) => {
                    let (some, others) = lot.split_at(lot.len().div_ceil(2));
                    lots.extend([others, some].into_iter().filter(|lot| !lot.is_empty()));
                }
                // One of them was changed meanwhile, as by a person who tries it again: the next walk sees what it is then.
                Err(StoreError::Conflict(why)) => tracing::debug!(why, "some runs are not removed now"),
                Err(error) => return Err(problem(&error)),
            }
        }
        Ok(pruned)
    }

    /// What launchers keep of runs is removed once there is no such run any more, and it is as old.
    async fn forget(&self) -> Result<(), Problem> {
        let inner = &self.engine.0;
        let Some(kept) = inner.settings.retention else { return Ok(()) };
        let now = Duration::from_millis(u64::try_from(inner.clock.now().0).unwrap_or(0));
        let time = SystemTime::UNIX_EPOCH + now.saturating_sub(kept);
        for launcher in inner.settings.launchers.values() {
            let of = Arc::clone(launcher);
            // Folders may be large, and disks slow.
            let runs = spawn_blocking(move || of.kept_since_before(time)).await.unwrap_or_default();
            let mut gone = HashSet::new();
            for run in runs {
                if inner.store.run(&run).await.map_err(|error| problem(&error))?.is_none() {
                    gone.insert(run);
                }
            }
            if !gone.is_empty() {
                let of = Arc::clone(launcher);
                drop(spawn_blocking(move || of.forget(&gone)).await);
            }
        }
        Ok(())
    }

    /// Has those sealed anew that are not sealed as new ones are. Those of runs that are created meanwhile are.
    async fn renew(&self, page: &[Record], keys: &mut Keys) -> Result<(), Problem> {
        let mut found: Vec<(RunId, Sealed, Sealed)> = Vec::new();
        for record in page {
            let Some(from) = record.sealed() else { continue };
            match self.engine.0.settings.keeper.renew(&record.run, from).await {
                Ok(None) => {}
                Ok(Some(to)) => found.push((record.run.clone(), from.clone(), to)),
                Err(error) if error.may_pass => keys.left += 1,
                Err(error) => {
                    // One is enough to know what to do, and of thousands each would be too much.
                    if keys.shut == 0 && self.shut == 0 {
                        tracing::error!(%error, hint = error.hint, "a key that is stored does not open, and perhaps others");
                    }
                    keys.shut += 1;
                }
            }
        }
        for some in found.chunks(AT_ONCE) {
            let asked = some
                .iter()
                .map(|(run, from, to)| self.engine.input(run, Input::Reseal { from: from.clone(), to: to.clone() }));
            for (answer, (.., to)) in join_all(asked).await.into_iter().zip(some) {
                match answer {
                    // One that was destroyed or replaced meanwhile is not.
                    Ok((record, _)) => keys.renewed += u64::from(record.sealed() == Some(to)),
                    Err(problem) if problem.code == Code::NotFound => {}
                    Err(problem) if problem.code == Code::Unavailable => return Err(problem),
                    Err(_) => keys.left += 1,
                }
            }
        }
        Ok(())
    }
}

/// Whether a run has been over for so long. None that may still have an agent somewhere is over, and none whose key is still to be destroyed.
fn is_old(record: &Record, now: Moment, kept: Duration) -> bool {
    let is_settled = record.state.is_over() && record.silent.is_empty() && record.remains.is_empty();
    is_settled && record.ended.unwrap_or(record.since).after(kept) <= now
}
