//! The one task that decides. Everything that changes a run goes through here, in batches: decided in order, stored in one transaction,
//! and only then answered and carried out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Happening, LauncherKind, NewRun, What};
use protocol::{Digest, RunId, Token};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::effects::Launching;
use super::fleet::Fleet;
use super::{Engine, ending};
use crate::model::schedule::pick;
use crate::model::{Answer, Effect, Ending, IdempotencyKey, Input, Record, Rules, State, created, decide};
use crate::store::{Change, Generation, StoreError};

/// Most changes of one transaction.
const MOST: usize = 256;
/// Most reports of one transaction: each may be a MiB.
const MOST_REPORTS: usize = 8;
/// How often it is looked whether the store is still this service's, while nothing is stored.
const STILL_OURS: Duration = Duration::from_secs(5);
/// How often time itself is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at a store that does not answer.
const PAUSE: Duration = Duration::from_millis(250);

/// What an input is answered with.
pub(super) type Replied = Result<(Arc<Record>, Answer), Problem>;
type Created = Result<(Arc<Record>, bool), Problem>;

/// What the task is asked.
pub(super) enum Ask {
    /// Create a run.
    Create { new: Box<NewRun>, key: Option<String>, reply: oneshot::Sender<Created> },
    /// Decide an input. Without a reply, it is the service's own: it is not lost when the store is away.
    Input { run: RunId, input: Box<Input>, reply: Option<oneshot::Sender<Replied>> },
    /// Which run an enrolment token is for.
    Find { token: Digest, reply: oneshot::Sender<Option<RunId>> },
}

impl Ask {
    fn is_report(&self) -> bool {
        matches!(self, Ask::Input { input, .. } if matches!(**input, Input::Report { .. }))
    }
}

/// An answer that waits until what it says, or rests on, is stored.
enum Reply {
    Created(oneshot::Sender<Created>, Result<(RunId, bool), Problem>),
    Input(oneshot::Sender<Replied>, RunId, Result<Answer, Problem>),
    Found(oneshot::Sender<Option<RunId>>, Option<RunId>),
}

/// What is decided and not stored yet.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    /// Records as they were before, in order; nothing for what was not there.
    undo: Vec<(RunId, Option<Record>)>,
    /// Runs that were over when they were decided about.
    over: HashMap<RunId, Arc<Record>>,
    replies: Vec<Reply>,
    effects: Vec<(RunId, Effect)>,
    /// The service's own inputs, to be decided again when this one is not stored.
    own: Vec<(RunId, Input)>,
}

/// The task.
pub(super) struct Task {
    engine: Engine,
    asked: mpsc::Receiver<Ask>,
    generation: Generation,
    seq: i64,
    fleet: Fleet,
    /// The service's own inputs that the store did not take.
    owed: Vec<(RunId, Input)>,
    launching: Launching,
    dice: Dice,
    /// When the store was last found to be this service's, or asked.
    stored: tokio::time::Instant,
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
        let fleet = Fleet::new(records);
        let stored = tokio::time::Instant::now();
        Task { engine, asked, generation, seq, fleet, owed, launching, dice: Dice::default(), stored }
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
            }
            let mut reports = asks.iter().filter(|ask| ask.is_report()).count();
            while asks.len() < MOST && reports < MOST_REPORTS {
                let Ok(ask) = self.asked.try_recv() else { break };
                reports += usize::from(ask.is_report());
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
            let reason = format!("its agent did not enrol within {patience} s");
            (of.run, Input::NotLaunched { attempt: of.attempt, reason, retryable: true, counts: true })
        }));
        let late = inner.published.late(&inner.clock).into_iter();
        self.owed.extend(
            late.map(|run| (run, Input::Cancel { reason: "its deadline has passed".into(), ending: Ending::Failed })),
        );
    }

    async fn take(&mut self, batch: &mut Batch, ask: Ask) {
        match ask {
            Ask::Input { run, input, reply } => self.decide(batch, run, *input, reply).await,
            Ask::Create { new, key, reply } => {
                let created = self.create(batch, *new, key).await;
                batch.replies.push(Reply::Created(reply, created));
            }
            Ask::Find { token, reply } => {
                batch.replies.push(Reply::Found(reply, self.fleet.by_token(&token).cloned()));
            }
        }
    }

    async fn create(&mut self, batch: &mut Batch, new: NewRun, key: Option<String>) -> Result<(RunId, bool), Problem> {
        let credentials = &self.engine.0.settings.credentials;
        let internal = |error: String| Problem::new(Code::Internal, error);
        let request = serde_json::to_string(&new).map_err(|error| internal(error.to_string()))?;
        let request = credentials.digest_of(&request);
        if let Some(key) = &key {
            let known = match self.fleet.by_key(key) {
                Some(record) => Some(record.clone()),
                None => self.engine.0.store.by_key(key).await.map_err(|error| super::problem(&error))?,
            };
            if let Some(known) = known {
                return the_same(batch, known, &request);
            }
        }
        let token = credentials.new_token().map_err(internal)?;
        let run = run_id(token.reveal()).map_err(internal)?;
        let now = self.engine.0.clock.now();
        self.seq += 1;
        let record = Record {
            run: run.clone(),
            seq: self.seq,
            version: 1,
            key: key.map(|key| IdempotencyKey { key, request }),
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
        let told = vec![created(&record)];
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
        let found = found.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no run {run}")))?;
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
        for run in picked {
            let Some(record) = self.fleet.get(&run).cloned() else { continue };
            let token = match record.order.launcher {
                LauncherKind::Process => match self.launching.token(&record) {
                    Ok(digest) => Some(digest),
                    Err(error) => {
                        tracing::error!(%run, error, "no token could be made");
                        continue;
                    }
                },
                LauncherKind::External => None,
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
        match self.engine.0.store.commit(self.generation, &batch.changes).await {
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

    /// A service that stores nothing would not notice that another has taken over, and go on granting leases.
    async fn see_whose_store_it_is(&mut self) -> Result<(), StoreError> {
        if self.stored.elapsed() < STILL_OURS {
            return Ok(());
        }
        self.stored = tokio::time::Instant::now();
        match self.engine.0.store.commit(self.generation, &[]).await {
            Err(StoreError::Superseded) => Err(StoreError::Superseded),
            // One that is away is nobody's.
            _ => Ok(()),
        }
    }

    /// Whether a batch was stored after all. Until that is known nothing is decided.
    async fn find_out(
        &mut self,
        mut batch: Batch,
        error: &StoreError,
        cancel: &CancellationToken,
    ) -> Result<(), StoreError> {
        // Whoever waits is told now; the same request again finds out what came of this one.
        for reply in batch.replies.drain(..) {
            reply.send_problem(super::problem(error));
        }
        let Some(run) = batch.changes.first().map(|change| change.record.run.clone()) else { return Ok(()) };
        let versions = batch.changes.iter().filter(|change| change.record.run == run);
        let versions: Vec<i64> = versions.map(|change| change.record.version).collect();
        loop {
            if cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return Ok(());
            }
            self.put_off();
            // The store answers only when it knows what has become of it.
            let Ok(stored) = self.engine.0.store.run(&run).await else { continue };
            let stored = stored.map_or(0, |stored| stored.version);
            if versions.last() == Some(&stored) {
                tracing::info!("the store answers again, and had stored it");
                self.conclude(batch);
            } else if versions.first().is_some_and(|first| stored < *first) {
                tracing::info!("the store answers again, and had not stored it");
                self.take_back(batch, error);
            } else {
                return Err(StoreError::Superseded);
            }
            return Ok(());
        }
    }

    /// While nothing can be decided: clients are told so, and our own inputs wait.
    fn put_off(&mut self) {
        let away = || Problem::new(Code::Unavailable, "the store does not answer").retry_after(2);
        while let Ok(ask) = self.asked.try_recv() {
            match ask {
                Ask::Input { run, input, reply: None } => self.owed.push((run, *input)),
                Ask::Input { reply: Some(reply), .. } => drop(reply.send(Err(away()))),
                Ask::Create { reply, .. } => drop(reply.send(Err(away()))),
                Ask::Find { token, reply } => drop(reply.send(self.fleet.by_token(&token).cloned())),
            }
        }
    }

    /// What is stored is shown, answered and carried out.
    fn conclude(&mut self, batch: Batch) {
        let inner = Arc::clone(&self.engine.0);
        let mut last: HashMap<RunId, Arc<Record>> = batch.over;
        for change in batch.changes {
            inner.published.show(&change.record, &inner.settings);
            inner.watchers.tell(&change.record.run);
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
    fn take_back(&mut self, batch: Batch, error: &StoreError) {
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

    /// What is stored is what counts.
    async fn read_again(&mut self, cancel: &CancellationToken) {
        loop {
            match self.engine.0.store.open_runs().await {
                Ok(records) => {
                    self.engine.0.published.forget_others(&records);
                    for record in &records {
                        self.engine.0.published.show(record, &self.engine.0.settings);
                    }
                    // What was on its way to be killed may have been forgotten with the batch.
                    for record in records.iter().filter(|record| record.state == State::Lost) {
                        self.launching.go_on(record);
                    }
                    self.fleet = Fleet::new(records);
                    return;
                }
                Err(error) => tracing::warn!(%error, "reading the runs again"),
            }
            if cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}

impl Reply {
    /// Whoever has gone away need not be told.
    fn send(self, find: impl Fn(&RunId) -> Option<Arc<Record>>) {
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

    fn send_problem(self, problem: Problem) {
        match self {
            Reply::Created(reply, _) => drop(reply.send(Err(problem))),
            Reply::Input(reply, ..) => drop(reply.send(Err(problem))),
            // Without an answer he is told that the service cannot do it now.
            Reply::Found(..) => {}
        }
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

/// A name that nobody can guess or mistype into another: `r-` and 16 lower-case letters and digits.
fn run_id(random: &str) -> Result<RunId, String> {
    let letters = random.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(16);
    RunId::try_from(format!("r-{}", letters.collect::<String>())).map_err(|error| error.to_string())
}

/// Spreads retries. Nobody gains by guessing it.
#[derive(Debug)]
struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Dice(std::collections::hash_map::RandomState::new().build_hasher().finish() | 1)
    }
}

impl Dice {
    /// 0 to 1 (xorshift64).
    #[allow(clippy::cast_precision_loss)]
    fn throw(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A token that waits until what was launched may have it.
pub(super) type Waiting = HashMap<(RunId, u32), Token>;
