//! Who is next: a pure function of the queue, of what is active, and of the limits.

use std::collections::{BTreeMap, HashMap};

use protocol::control::run::{Wait, WaitsFor};
use protocol::{Label, RunId, ServerName};

use super::Moment;
use super::record::{Record, State};

/// How many runs may be active at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub runs: u32,
    /// Of one host of sources.
    pub per_source: u32,
    /// Of each fabric that is named.
    pub fabrics: BTreeMap<Label, u32>,
    /// Of any other fabric.
    pub per_fabric: u32,
}

impl Limits {
    fn of_fabric(&self, fabric: &Label) -> u32 {
        self.fabrics.get(fabric).copied().unwrap_or(self.per_fabric)
    }
}

/// What is taken by active runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Busy {
    runs: u32,
    servers: HashMap<ServerName, RunId>,
    targets: HashMap<String, RunId>,
    sources: HashMap<String, u32>,
    fabrics: HashMap<Label, u32>,
}

impl Busy {
    /// Takes what a run takes, where it is active.
    pub fn add(&mut self, record: &Record) {
        if record.state.is_active() {
            self.take(record);
        }
    }

    /// Takes what a run takes once it is active.
    fn take(&mut self, record: &Record) {
        self.runs += 1;
        self.servers.insert(record.server().clone(), record.run.clone());
        self.targets.insert(record.target_key(), record.run.clone());
        for host in record.source_hosts() {
            *self.sources.entry(host).or_default() += 1;
        }
        *self.fabrics.entry(record.fabric().clone()).or_default() += 1;
    }

    /// Gives back what [`Busy::add`] took for the same record.
    pub fn remove(&mut self, record: &Record) {
        if !record.state.is_active() {
            return;
        }
        self.runs -= 1;
        self.servers.remove(record.server());
        self.targets.remove(&record.target_key());
        for host in record.source_hosts() {
            one_less(&mut self.sources, &host);
        }
        one_less(&mut self.fabrics, record.fabric());
    }

    /// What keeps a run from being started now. `None`: nothing.
    pub fn why_not(&self, record: &Record, limits: &Limits, now: Moment) -> Option<Wait> {
        Both { is: self, will: &Busy::default() }.why_not(record, limits, now)
    }
}

/// What is taken, and what will be by those that were picked just now: the one may be large, and is looked at for each batch.
#[derive(Clone, Copy)]
struct Both<'a> {
    is: &'a Busy,
    will: &'a Busy,
}

impl Both<'_> {
    fn runs(self) -> u32 {
        self.is.runs + self.will.runs
    }

    fn is_full(self, limits: &Limits) -> bool {
        self.runs() >= limits.runs
    }

    /// See [`Busy::why_not`].
    fn why_not(self, record: &Record, limits: &Limits, now: Moment) -> Option<Wait> {
        let wait = |what, detail| Some(Wait { what, detail });
        if record.not_before > now {
            return wait(WaitsFor::BackOff, format!("it is tried again at {}", record.not_before));
        }
        // It holds already what it needs.
        if record.state == State::Lost {
            return None;
        }
        let both = [self.is, self.will];
        let target = record.target_key();
        if let Some(run) = both.into_iter().find_map(|busy| busy.servers.get(record.server())) {
            return wait(WaitsFor::Server, format!("run {run} is active on server {}", record.server()));
        }
        if let Some(run) = both.into_iter().find_map(|busy| busy.targets.get(&target)) {
            return wait(WaitsFor::Target, format!("run {run} is active on the same target"));
        }
        if self.is_full(limits) {
            return wait(WaitsFor::Limit, format!("{} runs are active, and no more may be", self.runs()));
        }
        let fabric = record.fabric();
        let busy: u32 = both.into_iter().filter_map(|busy| busy.fabrics.get(fabric)).sum();
        if busy >= limits.of_fabric(fabric) {
            return wait(WaitsFor::Fabric, format!("{busy} runs are active on fabric {fabric}, and no more may be"));
        }
        let full = |host: &String| {
            both.into_iter().filter_map(|busy| busy.sources.get(host)).sum::<u32>() >= limits.per_source
        };
        match record.source_hosts().into_iter().find(full) {
            Some(host) => {
                wait(WaitsFor::Source, format!("{} runs use source {host}, and no more may", limits.per_source))
            }
            None => None,
        }
    }
}

fn one_less<K: std::hash::Hash + Eq + Clone>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Runs that may be started some time, the next first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue(BTreeMap<(std::cmp::Reverse<i32>, i64), RunId>);

impl Queue {
    fn place(record: &Record) -> (std::cmp::Reverse<i32>, i64) {
        (std::cmp::Reverse(record.order.priority), record.seq)
    }

    /// Puts a run in, where it may be started.
    pub fn add(&mut self, record: &Record) {
        if record.may_start() {
            self.0.insert(Self::place(record), record.run.clone());
        }
    }

    /// Takes a run out.
    pub fn remove(&mut self, record: &Record) {
        self.0.remove(&Self::place(record));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &RunId> {
        self.0.values()
    }
}

/// Up to `most` runs to start now, in the order of the queue. A run that has to wait lets those behind it pass.
pub fn pick<'a>(
    queue: &Queue,
    find: impl Fn(&RunId) -> Option<&'a Record>,
    busy: &Busy,
    limits: &Limits,
    now: Moment,
    most: usize,
) -> Vec<RunId> {
    let mut will = Busy::default();
    let mut picked = Vec::new();
    for run in queue.iter() {
        if picked.len() == most {
            break;
        }
        let Some(record) = find(run) else { continue };
        let is_lost = record.state == State::Lost;
        let both = Both { is: busy, will: &will };
        if (both.is_full(limits) && !is_lost) || both.why_not(record, limits, now).is_some() {
            continue;
        }
        if !is_lost {
            will.take(record);
        }
        picked.push(run.clone());
    }
    picked
}
