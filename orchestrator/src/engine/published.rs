//! What everybody may know: runs as they are stored, their leases and their progress.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use protocol::RunId;
use protocol::control::agent::Lease;
use protocol::control::agent::Orders;
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Glance, Run, Wait, WaitsFor};
use protocol::event::{Paths, Progress, Rates};
use tokio::time::Instant;

use super::gauge::{Gauge, Looks};
use super::settings::Settings;
use super::{Agent, Clock};
use crate::metrics::Tally;
use crate::model::schedule::Busy;
use crate::model::{PathCount, Record, State, view, waits};

/// A run that is not over.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) record: Arc<Record>,
    /// Since when it is in its state, for patience.
    pub(super) since: Instant,
    /// When its agent is taken for lost, unless it renews.
    pub(super) lease_ends: Option<Instant>,
    /// Whether that is being decided: it cannot be renewed any more.
    pub(super) expiring: bool,
    progress: Arc<Gauge>,
}

#[derive(Debug, Default)]
struct Runs {
    runs: HashMap<RunId, Live>,
    busy: Busy,
    running: u64,
    /// The engine has ended: nobody is granted anything any more.
    ended: bool,
}

/// All of it, shared.
#[derive(Debug, Default)]
pub(super) struct Published {
    runs: RwLock<Runs>,
    looks: Looks,
}

impl Published {
    /// Shows a record that is stored.
    pub(super) fn show(&self, record: &Record, settings: &Settings) {
        let mut inner = self.write();
        let before = inner.runs.remove(&record.run);
        if let Some(before) = &before {
            inner.busy.remove(&before.record);
            inner.running -= u64::from(before.record.state == State::Running);
        }
        if record.state.is_over() {
            return;
        }
        inner.busy.add(record);
        inner.running += u64::from(record.state == State::Running);
        let same =
            before.filter(|before| (before.record.state, before.record.attempt()) == (record.state, record.attempt()));
        let now = Instant::now();
        let live = match same {
            Some(same) => Live { record: Arc::new(record.clone()), ..same },
            None => Live {
                record: Arc::new(record.clone()),
                since: now,
                lease_ends: (record.state == State::Running).then(|| now + lease(settings)),
                expiring: false,
                progress: Arc::default(),
            },
        };
        inner.runs.insert(record.run.clone(), live);
    }

    /// Grants nothing any more.
    pub(super) fn end(&self) {
        self.write().ended = true;
    }

    /// Forgets runs that are none of these.
    pub(super) fn forget_others(&self, records: &[Record]) {
        let mut inner = self.write();
        let known: std::collections::HashSet<&RunId> = records.iter().map(|record| &record.run).collect();
        let gone: Vec<RunId> = inner.runs.keys().filter(|run| !known.contains(run)).cloned().collect();
        for live in gone.iter().filter_map(|run| inner.runs.remove(run)).collect::<Vec<_>>() {
            inner.busy.remove(&live.record);
            inner.running -= u64::from(live.record.state == State::Running);
        }
    }

    pub(super) fn get(&self, run: &RunId) -> Option<Arc<Record>> {
        self.read().runs.get(run).map(|live| Arc::clone(&live.record))
    }

    /// A record as people see it.
    pub(super) fn view(&self, record: &Record, settings: &Settings, clock: &Clock) -> Run {
        let inner = self.read();
        let progress = inner.runs.get(&record.run).and_then(|live| live.progress.get());
        let queued: Option<Wait> =
            if record.may_start() { inner.busy.why_not(record, &settings.limits, clock.now()) } else { None };
        view(record, queued, progress)
    }

    /// Shows how far an attempt is, where it is the current one.
    pub(super) fn set_progress(&self, agent: &Agent, progress: Progress) {
        let inner = self.read();
        if let Some(live) = inner.runs.get(&agent.run).filter(|live| live.record.attempt() == agent.attempt) {
            live.progress.set(progress, &self.looks);
        }
    }

    pub(super) fn progress(&self, run: &RunId) -> Option<Progress> {
        self.read().runs.get(run).and_then(|live| live.progress.get())
    }

    /// The runs that got on since this look, and the name of the next.
    pub(super) fn fleet(&self, since: u64) -> (u64, Vec<Glance>) {
        let look = self.looks.begin();
        let inner = self.read();
        let running = inner.runs.iter().filter(|(_, live)| live.record.state == State::Running);
        let glances = running.filter_map(|(run, live)| {
            let paths = live.record.paths().filter(|paths| paths.live < paths.total);
            let paths = paths.map(|PathCount { live, total, .. }| Paths { live, total });
            live.progress.since(since, |at| Glance { paths, ..Glance::of(run.clone(), at) })
        });
        (look, glances.collect())
    }

    /// Renews a lease, in memory alone: a service that starts anew grants all of them in full.
    pub(super) fn renew(&self, agent: &Agent, settings: &Settings, clock: &Clock) -> Result<Lease, Problem> {
        let over = |why: &str| {
            Problem::new(Code::AttemptOver, format!("attempt {} of run {}: {why}", agent.attempt, agent.run))
                .with_hint("write nothing more")
        };
        let mut inner = self.write();
        if inner.ended {
            return Err(super::ending());
        }
        let running = inner.running;
        let Some(live) = inner.runs.get_mut(&agent.run) else { return Err(over("the run is over")) };
        if live.record.attempt() != agent.attempt || live.record.state != State::Running {
            return Err(over(&format!(
                "the run is {}, in attempt {}",
                live.record.state.name(),
                live.record.attempt()
            )));
        }
        if live.expiring {
            return Err(over("its lease is over"));
        }
        let disobeys = |since| clock.now() > crate::model::Moment::after(since, settings.cancel_within);
        if live.record.cancel.as_ref().is_some_and(|cancel| disobeys(cancel.since)) {
            return Err(over("it was to end long ago"));
        }
        live.lease_ends = Some(Instant::now() + lease(settings));
        Ok(Lease { lease: settings.lease, orders: orders(&live.record, agent.attempt, running), certificate: None })
    }

    /// What the service wants of an agent.
    pub(super) fn orders(&self, record: &Record, attempt: u32) -> Orders {
        orders(record, attempt, self.read().running)
    }

    /// Runs for which time has run out: leases that are over, which from now on cannot be renewed, and agents that did not enrol.
    pub(super) fn overdue(&self, settings: &Settings) -> (Vec<Agent>, Vec<Agent>) {
        let now = Instant::now();
        let mut inner = self.write();
        let (mut expired, mut unenrolled) = (Vec::new(), Vec::new());
        for (run, live) in &mut inner.runs {
            let agent = || Agent { run: run.clone(), attempt: live.record.attempt() };
            match live.record.state {
                State::Running if !live.expiring && live.lease_ends.is_some_and(|ends| ends <= now) => {
                    expired.push(agent());
                    live.expiring = true;
                }
                State::Launching
                    if live.record.order.launcher.starts_agents()
                        && now.duration_since(live.since) > settings.enrol_within =>
                {
                    unenrolled.push(agent());
                }
                _ => {}
            }
        }
        (expired, unenrolled)
    }

    /// Runs whose deadline has passed.
    pub(super) fn late(&self, clock: &Clock) -> Vec<RunId> {
        let now = clock.now();
        let inner = self.read();
        let is_late =
            |live: &&Live| live.record.cancel.is_none() && live.record.deadline.is_some_and(|deadline| deadline <= now);
        inner.runs.values().filter(is_late).map(|live| live.record.run.clone()).collect()
    }

    /// How many runs are where, what they wait for, and what their agents move.
    pub(super) fn tally(&self, settings: &Settings, clock: &Clock) -> Tally {
        let (inner, now) = (self.read(), clock.now());
        let mut states: Vec<(State, u64)> =
            State::ALL.into_iter().filter(|state| !state.is_over()).map(|state| (state, 0)).collect();
        let mut waiting: Vec<(String, u64)> = WaitsFor::ALL.iter().map(|what| (what.name().to_owned(), 0)).collect();
        let mut rates = Rates::default();
        for live in inner.runs.values() {
            let record = &live.record;
            one_more(&mut states, &record.state);
            let queued = if record.may_start() { inner.busy.why_not(record, &settings.limits, now) } else { None };
            if let Some(wait) = waits(record, queued) {
                one_more(&mut waiting, &wait.what.name().to_owned());
            }
            let moves = live.progress.since(0, |progress| progress.rates).filter(|_| record.state == State::Running);
            if let Some(moves) = moves {
                rates.source = rates.source.saturating_add(moves.source);
                rates.decode = rates.decode.saturating_add(moves.decode);
                rates.write = rates.write.saturating_add(moves.write);
                rates.read_back = rates.read_back.saturating_add(moves.read_back);
            }
        }
        Tally { states, waits: waiting, rates }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Runs> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Runs> {
        self.runs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_more<K: PartialEq>(counts: &mut [(K, u64)], key: &K) {
    if let Some((_, count)) = counts.iter_mut().find(|(known, _)| known == key) {
        *count += 1;
    }
}

fn lease(settings: &Settings) -> Duration {
    Duration::from_secs(settings.lease.seconds) + settings.grace
}

/// Progress is thinned where many agents report.
fn orders(record: &Record, attempt: u32, running: u64) -> Orders {
    let of = record.attempts.iter().find(|of| of.number == attempt);
    Orders {
        next: of.map_or(0, |of| of.next_index),
        cancel: record.cancel.is_some() && record.attempt() == attempt,
        progress_every: Some(running.max(1000)),
    }
}
