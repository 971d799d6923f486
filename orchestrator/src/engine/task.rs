//! The one task that decides. Everything that changes a run goes through here, in batches: decided in order, stored in one transaction,
//! and only then answered and carried out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Happening, LauncherKind, What};
use protocol::{Digest, RunId, Token};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::asks::{Ask, Batch, Prune, Replied, Reply};
use super::chance::Dice;
use super::draft::{Draft, Plan};
use super::effects::Launching;
use super::fleet::Fleet;
use crate::model::schedule::pick;
use crate::model::{Answer, Ending, IdempotencyKey, Input, KeyRecord, Record, Rules, State, created, decide};
use crate::store::{Change, Generation, StoreError};

/// Most changes of one transaction.
const MOST: usize = 256;
/// From how many events on nothing more is taken into a transaction: each may have 64 KiB, and most have a few hundred bytes.
const MANY_EVENTS: usize = 128;
/// How often time itself is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The task.
pub(super) struct Task {
    pub(super) engine: Engine,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) generation: Generation,
    pub(super) seq: i64,
    pub(super) fleet: Fleet,
    /// The service's own inputs that the store did not take.
    pub(super) owed: Vec<(RunId, Input)>,
    pub(super) launching: Launching,
    pub(super) dice: Dice,
    /// Whether the last batch had no room for all whose turn it is.
    pub(super) more: bool,
    /// When the store was last found to be this service's, or asked.
    pub(super) stored: tokio::time::Instant,
    /// Runs to be removed, after what else was decided.
    prunes: Vec<Prune>,
}

impl Task {
    pub(super) fn new(
        engine: Engine,
        asked: mpsc::Receiver<Ask>,
        generation: Generation,
        seq: i64,
        records: Vec<Record>,
    ) -> Self {
        let mut launching = Launching::new(&engine);
        let mut owed = Vec::new();
        for record in &records {
            engine.0.published.show(record, &engine.0.settings);
            owed.extend(launching.go_on(record).map(|input| (record.run.clone(), input)));
        }
        launching.end_leftovers();
        let fleet = Fleet::new(records);
        let stored = tokio::time::Instant::now();
        let (dice, more, prunes) = (Dice::default(), false, Vec::new());
        Task { engine, asked, generation, seq, fleet, owed, launching, dice, more, stored, prunes }
    }

    /// Until it is cancelled, or another service has taken over.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            let mut asks = Vec::new();
            let mut is_time = false;
            tokio::select! {
                () = cancel.cancelled() => break Ok(()),
                ask = self.asked.recv() => asks.extend(ask),
                _ = ticks.tick() => is_time = true,
                // There was no room for all whose turn it is.
                () = std::future::ready(()), if self.more => is_time = true,
            }
            let mut events: usize = asks.iter().map(Ask::events).sum();
            while asks.len() < MOST && events < MANY_EVENTS {
                let Ok(ask) = self.asked.try_recv() else { break };
                events += ask.events();
                asks.push(ask);
            }
            if is_time {
                self.look_at_time();
            }
            let mut batch = Batch::default();
            let rest = self.owed.split_off(self.owed.len().min(MOST));
            for (run, input) in std::mem::replace(&mut self.owed, rest) {
                self.decide(&mut batch, run, input, None).await;
            }
            for ask in asks {
                self.take(&mut batch, ask).await;
            }
            if is_time || !batch.changes.is_empty() {
                self.schedule(&mut batch);
            }
            if let Err(error) = self.commit(batch, &cancel).await {
                break Err(error);
            }
            if let Err(error) = self.prune().await {
                break Err(error);
            }
        };
        self.engine.0.published.end();
        self.engine.0.watchers.end();
        ended
    }

    /// What time brings.
    fn look_at_time(&mut self) {
        let inner = &self.engine.0;
        let (expired, unenrolled) = inner.published.overdue(&inner.settings);
        self.owed.extend(expired.into_iter().map(|of| (of.run, Input::Expired { attempt: of.attempt })));
        let patience = inner.settings.enrol_within.as_secs();
        self.owed.extend(unenrolled.into_iter().map(|of| {
            let found = inner.published.get(&of.run).filter(|of| of.order.launcher == LauncherKind::Kubernetes);
            let saw = found.as_ref().map(|record| format!(": {}", record.reason)).unwrap_or_default();
            let reason = format!("its agent did not enrol within {patience} s{saw}");
            // A cluster that has taken no Job has tried nothing.
            let counts = found.is_none_or(|record| record.current().is_some_and(|current| current.handle.is_some()));
            (of.run, Input::NotLaunched { attempt: of.attempt, reason, retryable: true, counts })
        }));
        let late = inner.published.late(&inner.clock).into_iter();
        self.owed.extend(
            late.map(|run| (run, Input::Cancel { reason: "its deadline has passed".into(), ending: Ending::Failed })),
        );
    }

    async fn take(&mut self, batch: &mut Batch, ask: Ask) {
        match ask {
            Ask::Input { run, input, reply } => self.decide(batch, run, *input, reply).await,
            Ask::Create { draft, reply } => {
                let created = self.create(batch, *draft).await;
                batch.replies.push(Reply::Created(reply, created));
            }
            Ask::Find { token, reply } => {
                batch.replies.push(Reply::Found(reply, self.fleet.by_token(&token).cloned()));
            }
            Ask::Prune(prune) => self.prunes.push(prune),
        }
    }

    async fn create(&mut self, batch: &mut Batch, draft: Draft) -> Result<(RunId, bool), Problem> {
        let Draft { run, key, request, plan } = draft;
        if let Some(key) = &key {
            let known = match self.fleet.by_key(key) {
                Some(record) => Some(record.clone()),
                None => self.engine.0.store.by_key(key).await.map_err(|error| super::problem(&error))?,
            };
            if let Some(known) = known {
                return the_same(batch, known, &request);
            }
        }
        let Plan { order: new, policy, sealed } = plan?;
        let now = self.engine.0.clock.now();
        self.seq += 1;
        let record = Record {
            run: run.clone(),
            seq: self.seq,
            version: 1,
            key: key.map(|key| IdempotencyKey { key, request }),
            luks_key: sealed.map(|sealed| KeyRecord::new(sealed, now, 0)),
            remains: Vec::new(),
            policy,
            created: now,
            deadline: new.deadline.map(|seconds| now.after(Duration::from_secs(seconds))),
            state: State::Queued,
            since: now,
            reason: "it was created".into(),
            not_before: now,
            silent: Vec::new(),
            cancel: None,
            next_token: None,
            budget: new.max_attempts,
            attempts: Vec::new(),
            phase: None,
            step: None,
            summary: None,
            failure: None,
            ended: None,
            order: new,
        };
        let told = created(&record);
        self.put(batch, record, told);
        Ok((run, true))
    }

    async fn decide(&mut self, batch: &mut Batch, run: RunId, input: Input, reply: Option<oneshot::Sender<Replied>>) {
        let answer = self.decided(batch, &run, &input).await;
        match (answer, reply) {
            (answer, Some(reply)) => batch.replies.push(Reply::Input(reply, run, answer)),
            (Ok(_), None) => batch.own.push((run, input)),
            (Err(problem), None) if problem.code == Code::Unavailable => self.owed.push((run, input)),
            // What happened came too late to matter.
            (Err(problem), None) => tracing::debug!(%run, ?input, problem = problem.detail, "not taken"),
        }
    }

    async fn decided(&mut self, batch: &mut Batch, run: &RunId, input: &Input) -> Result<Answer, Problem> {
        let record = match self.fleet.get(run) {
            Some(record) => record.clone(),
            None => self.over(batch, run).await?,
        };
        let rules = Rules { back_off: self.engine.0.settings.back_off, dice: self.dice.throw() };
        let decision = decide(&record, input, self.engine.0.clock.now(), &rules).map_err(|refusal| *refusal)?;
        batch.effects.extend(decision.effects.into_iter().map(|effect| (run.clone(), effect)));
        if decision.record.version != record.version {
            self.put(batch, decision.record, decision.told);
        }
        Ok(decision.answer)
    }

    /// A run that is over: as this batch left it, or as it is stored.
    async fn over(&mut self, batch: &mut Batch, run: &RunId) -> Result<Record, Problem> {
        if let Some(change) = batch.changes.iter().rev().find(|change| change.record.run == *run) {
            return Ok(change.record.clone());
        }
        let found = self.engine.0.store.run(run).await.map_err(|error| super::problem(&error))?;
        let found = found.ok_or_else(|| self.engine.0.settings.no_run(run))?;
        batch.over.insert(run.clone(), Arc::new(found.clone()));
        Ok(found)
    }

    fn put(&mut self, batch: &mut Batch, record: Record, told: Vec<What>) {
        let time = record.since.max(self.engine.0.clock.now()).to_string();
        let run = record.run.clone();
        let told = told.into_iter().map(|what| Happening { run: run.clone(), time: time.clone(), what });
        batch.changes.push(Change { record: record.clone(), told: told.collect() });
        let before = self.fleet.put(record);
        batch.undo.push((run, before));
    }

    /// Starts whose turn it is.
    fn schedule(&mut self, batch: &mut Batch) {
        let inner = Arc::clone(&self.engine.0);
        let room = MOST.saturating_sub(batch.changes.len());
        let find = |run: &RunId| self.fleet.get(run);
        let now = inner.clock.now();
        let picked = pick(&self.fleet.queue, find, &self.fleet.busy, &inner.settings.limits, now, room);
        self.more = room > 0 && picked.len() == room;
        for run in picked {
            let Some(record) = self.fleet.get(&run).cloned() else { continue };
            let token = record.order.launcher.starts_agents().then(|| self.launching.token(&record));
            let token = match token.transpose() {
                Ok(token) => token,
                Err(error) => {
                    tracing::error!(%run, error, "no token could be made");
                    continue;
                }
            };
            let rules = Rules { back_off: inner.settings.back_off, dice: self.dice.throw() };
            match decide(&record, &Input::Start { token }, now, &rules) {
                Ok(decision) => {
                    batch.effects.extend(decision.effects.into_iter().map(|effect| (run.clone(), effect)));
                    self.put(batch, decision.record, decision.told);
                }
                Err(refusal) => tracing::error!(%run, problem = refusal.detail, "the scheduler picked it wrongly"),
            }
        }
    }

    /// Stores a batch; then everybody may know.
    async fn commit(&mut self, batch: Batch, cancel: &CancellationToken) -> Result<(), StoreError> {
        if batch.changes.is_empty() {
            self.conclude(batch);
            return self.see_whose_store_it_is().await;
        }
        self.stored = tokio::time::Instant::now();
        let committed = self.engine.0.store.commit(self.generation, &batch.changes).await;
        self.engine.0.settings.metrics.committed(committed.is_ok(), self.stored.elapsed());
        match committed {
            Ok(()) => self.conclude(batch),
            Err(StoreError::Superseded) => {
                self.take_back(batch, &StoreError::Superseded);
                return Err(StoreError::Superseded);
            }
            Err(error @ (StoreError::Conflict(_) | StoreError::Corrupt(_))) => {
                tracing::error!(%error, "the store and the engine disagree");
                self.take_back(batch, &error);
                self.read_again(cancel).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a transaction's outcome is not known");
                self.find_out(batch, &error, cancel).await?;
            }
        }
        Ok(())
    }

    /// Removes runs, each lot in a transaction of its own: one that was changed meanwhile spoils nothing else. They are over, so that nothing
    /// in memory is of them besides who watches.
    async fn prune(&mut self) -> Result<(), StoreError> {
        for Prune { runs, reply } in std::mem::take(&mut self.prunes) {
            self.stored = tokio::time::Instant::now();
            let pruned = self.engine.0.store.prune(self.generation, &runs).await;
            self.engine.0.settings.metrics.committed(pruned.is_ok(), self.stored.elapsed());
            // Where it is not known, whoever watches comes again, and finds the run or finds that it is gone.
            if matches!(pruned, Ok(true) | Err(StoreError::Unavailable(_))) {
                runs.iter().for_each(|(run, _)| self.engine.0.watchers.forget(run));
            }
            let is_ours = pruned != Err(StoreError::Superseded);
            drop(reply.send(pruned));
            if !is_ours {
                return Err(StoreError::Superseded);
            }
        }
        Ok(())
    }

    /// What is stored is shown, answered and carried out.
    pub(super) fn conclude(&mut self, batch: Batch) {
        let inner = Arc::clone(&self.engine.0);
        let mut last: HashMap<RunId, Arc<Record>> = batch.over;
        for change in batch.changes {
            inner.published.show(&change.record, &inner.settings);
            if !change.told.is_empty() {
                inner.watchers.tell(&change.record.run);
            }
            change.told.iter().for_each(|told| inner.settings.metrics.told(&told.what));
            change.told.iter().for_each(super::keys::audit);
            last.insert(change.record.run.clone(), Arc::new(change.record));
        }
        let find = |run: &RunId| last.get(run).cloned().or_else(|| inner.published.get(run));
        for reply in batch.replies {
            reply.send(find);
        }
        for (run, effect) in batch.effects {
            if let Some(record) = find(&run) {
                self.launching.carry_out(&record, effect);
            }
        }
    }

    /// What was not stored has not happened.
    pub(super) fn take_back(&mut self, batch: Batch, error: &StoreError) {
        for (run, before) in batch.undo.into_iter().rev() {
            match before {
                Some(record) => drop(self.fleet.put(record)),
                None => drop(self.fleet.remove(&run)),
            }
        }
        for reply in batch.replies {
            reply.send_problem(super::problem(error));
        }
        self.owed.extend(batch.own);
    }
}

/// A key that is known makes nothing new: the same request gets the same run, another one is a mistake.
fn the_same(batch: &mut Batch, known: Record, request: &Digest) -> Result<(RunId, bool), Problem> {
    if known.key.as_ref().is_some_and(|key| key.request != *request) {
        let detail = format!("the idempotency key has made run {}, from another request", known.run);
        return Err(Problem::new(Code::KeyReused, detail).with_hint("take a new key for a new run"));
    }
    let run = known.run.clone();
    batch.over.entry(run.clone()).or_insert_with(|| Arc::new(known));
    Ok((run, false))
}

/// A token that waits until what was launched may have it.
pub(super) type Waiting = HashMap<(RunId, u32), Token>;
