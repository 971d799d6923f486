//! The engine: one task that takes what is asked, decides it against the runs in memory, commits all that waited together in one
//! transaction, and only then answers, launches, and tells watchers.
//!
//! What is shown to others ([`published`]) is stored. What the task decides about ([`fleet`]) is ahead of that by one batch, and is taken
//! back when the store does not take it. Leases live in memory: they are renewed without the store, and after a restart each is granted
//! in full, since nobody knows how much of it was left.

mod asks;
mod chance;
mod clock;
mod doubt;
mod draft;
mod effects;
mod erasing;
mod fleet;
mod gauge;
mod keeper;
mod keys;
mod published;
mod settings;
mod task;
mod upkeep;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{EnrolmentToken, Glance, MAX_IDEMPOTENCY_KEY, MAX_PAGE, NewRun, Run, RunPage};
use protocol::event::{Priority, Progress};
use protocol::spec::KeySource;
use protocol::{ClientKey, Digest, RunId, Token};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::Tally;
use crate::model::{Answer, Ending, Input, Record, only_progress, revoked};
use crate::store::{Filter, Generation, Shared, StoreError, Told};
use asks::{Ask, Replied};
use published::Published;
use watch::Watchers;

pub use clock::Clock;
pub use keeper::{Keeper, KeeperError};
pub use settings::{Credentials, Settings};
pub use watch::{Fresh, Watch};

/// Requests that may wait for the task. Whoever comes then waits before he may.
const WAITING: usize = 1024;

/// The engine's handle. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    asks: mpsc::Sender<Ask>,
    store: Shared,
    published: Published,
    watchers: Watchers,
    settings: Settings,
    clock: Clock,
    generation: Generation,
    /// Keys that are nobody's, to be destroyed where they are kept.
    erase: erasing::Sender,
}

/// Who an agent has proven to be, by its session token and its client key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
}

/// The certificate that an agent shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// What it is over.
    pub key: &'a ClientKey,
    /// How long it is still good.
    pub left: Duration,
}

impl Engine {
    /// Takes over a store, goes on with what is in it, and does so until it is cancelled. The task ends with an error when it lost the
    /// store to another service.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Shared,
        settings: Settings,
        cancel: CancellationToken,
    ) -> Result<(Self, JoinHandle<Result<(), StoreError>>), StoreError> {
        let generation = store.take_over().await?;
        let records = store.open_runs().await?;
        let seq = store.last_seq().await?;
        let latest = records.iter().map(|record| record.since).max().unwrap_or_default();
        let reserved = store.reserved().await?;
        let (asks, asked) = mpsc::channel(WAITING);
        let (erase, to_erase) = mpsc::unbounded_channel();
        let engine = Engine(Arc::new(Inner {
            asks,
            store,
            published: Published::default(),
            watchers: Watchers::default(),
            settings,
            clock: Clock::start(latest),
            generation,
            erase,
        }));
        engine.erase_all_late(reserved.clone());
        tokio::spawn(erasing::run(engine.clone(), reserved, to_erase));
        let task = task::Task::new(engine.clone(), asked, generation, seq, records);
        tokio::spawn(upkeep::go_on(engine.clone()));
        Ok((engine, tokio::spawn(task.run(cancel))))
    }

    /// Creates a run; `false` when the key has already made this very one.
    ///
    /// # Errors
    /// `key-reused`, `bad-request`, `policy`, `unavailable`.
    pub async fn create(&self, new: NewRun, key: Option<String>) -> Result<(Run, bool), Problem> {
        let engine = self.clone();
        keys::to_end(async move { engine.create_to_end(new, key).await }).await
    }

    async fn create_to_end(&self, new: NewRun, key: Option<String>) -> Result<(Run, bool), Problem> {
        new.check().map_err(|error| Problem::new(Code::BadRequest, format!("the run: {error}")))?;
        let fits = |key: &String| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len());
        if !key.as_ref().is_none_or(fits) {
            let detail = format!("an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY} bytes");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let draft = self.draft(new, key).await?;
        let (run, sealed) = (draft.run.clone(), draft.plan.as_ref().ok().and_then(|plan| plan.sealed.clone()));
        let (reply, replied) = oneshot::channel();
        self.ask(Ask::Create { draft: Box::new(draft), reply }).await?;
        let created = replied.await.map_err(|_| ending())?;
        // Where another request with this key was first, or it is refused, the key of the disk is nobody's.
        let is_used = created.as_ref().map_or_else(keys::unknown, |(_, is_new)| Some(*is_new));
        if let Some(sealed) = sealed {
            self.unless_used(&run, sealed, is_used);
        }
        let (record, is_new) = created?;
        Ok((self.shown(&record), is_new))
    }

    /// A run, with its order and its progress.
    ///
    /// # Errors
    /// `not-found`, `unavailable`.
    pub async fn run(&self, run: &RunId) -> Result<Run, Problem> {
        let record = self.record(run).await?;
        Ok(Run { order: Some(Box::new(record.order.clone())), ..self.shown(&record) })
    }

    /// Runs, the latest first. `page`: what `RunPage::next` named.
    ///
    /// # Errors
    /// `bad-request`, `unavailable`.
    pub async fn list(&self, filter: &Filter, page: Option<&str>, limit: u32) -> Result<RunPage, Problem> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Problem::new(Code::BadRequest, format!("`limit` must be 1 to {MAX_PAGE}")));
        }
        let before = page.map(str::parse).transpose();
        let before =
            before.map_err(|_| Problem::new(Code::BadRequest, "`page` is not what an answer's `next` named"))?;
        let records = self.0.store.list(filter, before, limit).await.map_err(|error| problem(&error))?;
        let is_full = u32::try_from(records.len()).is_ok_and(|count| count == limit);
        let next = records.last().filter(|_| is_full).map(|last| last.seq.to_string());
        Ok(RunPage { runs: records.iter().map(|record| self.shown(record)).collect(), next })
    }

    /// Calls a run off. On one that is over: a conflict; on one that is being called off already: nothing new.
    ///
    /// # Errors
    /// `not-found`, `conflict`, `unavailable`.
    pub async fn cancel(&self, run: &RunId, reason: &str) -> Result<Run, Problem> {
        let input = Input::Cancel { reason: reason.to_owned(), ending: Ending::Cancelled };
        Ok(self.shown(&self.input(run, input).await?.0))
    }

    /// A person vouches that the silent agent of a lost run is dead. `attempt` guards against vouching for another one.
    ///
    /// # Errors
    /// `not-found`, `conflict`, `unavailable`.
    pub async fn confirm_death(&self, run: &RunId, attempt: u32) -> Result<Run, Problem> {
        Ok(self.shown(&self.input(run, Input::ConfirmDeath { attempt }).await?.0))
    }

    /// Revokes an attempt: what its agent has counts no more, and one that runs is taken for lost. One that was revoked stays so.
    ///
    /// # Errors
    /// `not-found`, `conflict`, `unavailable`.
    pub async fn revoke(&self, run: &RunId, attempt: u32, reason: &str) -> Result<Run, Problem> {
        let input = Input::Revoke { attempt, reason: reason.to_owned() };
        Ok(self.shown(&self.input(run, input).await?.0))
    }

    /// A new enrolment token for the attempt of an external run that is launching, or the next one of one that is queued. Those before
    /// it are void.
    ///
    /// # Errors
    /// `not-found`, `conflict`, `unavailable`.
    pub async fn token(&self, run: &RunId) -> Result<EnrolmentToken, Problem> {
        let credentials = &self.0.settings.credentials;
        let token = credentials.new_token().map_err(|error| Problem::new(Code::Internal, error))?;
        match self.input(run, Input::Token { digest: credentials.digest(&token) }).await? {
            (_, Answer::Attempt(attempt)) => Ok(EnrolmentToken { run: run.clone(), attempt, token }),
            _ => Err(Problem::new(Code::Internal, "a token was made for no attempt")),
        }
    }

    /// An agent's enrolment.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `revoked`, `already-enrolled`, `not-yet`, `unavailable`.
    pub async fn enrol(&self, token: &Token, enrol: Enrol) -> Result<Enrolled, Problem> {
        let Settings { credentials, lease, .. } = &self.0.settings;
        let digest = credentials.digest(token);
        let (found, run) = oneshot::channel();
        self.ask(Ask::Find { token: digest.clone(), reply: found }).await?;
        let stranger = || {
            Problem::new(Code::Unauthorized, "the enrolment token is not valid, or not any more").with_hint(
                "each token is for one attempt and one process; ask for a new one: z-orchestrator run token RUN",
            )
        };
        let run = run.await.map_err(|_| ending())?.ok_or_else(stranger)?;
        if let Some(other) = enrol.run.as_ref().filter(|other| **other != run) {
            return Err(Problem::new(Code::Forbidden, format!("the enrolment token is not for run {other}")));
        }
        let nonce = credentials.digest(&enrol.nonce);
        let client_key = credentials.digest_of_key(&enrol.client_key);
        let input =
            Input::Enrol { token: digest, nonce: nonce.clone(), client_key, agent: enrol.agent, server: enrol.server };
        let (record, answer) = self.input(&run, input).await?;
        let Answer::Attempt(attempt) = answer else {
            return Err(Problem::new(Code::Internal, "an agent enrolled for no attempt"));
        };
        // Which answer reaches it nobody knows: the lease counts from the latest.
        self.0.published.renew(&Agent { run: run.clone(), attempt }, &self.0.settings, &self.0.clock)?;
        let mut spec = record.order.spec(run.clone(), attempt);
        // A run of before the service had keys has none, whatever its order would mean today.
        spec.key = if record.luks_key.is_some() { KeySource::Service } else { KeySource::Agent };
        // What an attempt before it has written need not be fetched again. The media decide.
        spec.options.resume |= attempt > 1;
        let defect = |error: String| Problem::new(Code::Internal, error);
        let spec = serde_json::to_string(&spec).map_err(|error| defect(error.to_string()))?;
        let ticket = credentials.ticket(&record, &spec, &enrol.nonce).map_err(defect)?;
        let certificate = credentials.certificate(&run, attempt, &enrol.client_key).map_err(defect)?;
        let session = credentials.session(&run, attempt, &nonce);
        Ok(Enrolled { run, attempt, session, lease: *lease, spec, ticket, certificate })
    }

    /// Whose session token this is. `key`: the digest of the key that it has proven to have.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `revoked`, `unavailable`.
    pub async fn agent(&self, run: &RunId, attempt: u32, session: &Token, key: &Digest) -> Result<Agent, Problem> {
        let stranger =
            || Problem::new(Code::Unauthorized, format!("the session token is not of attempt {attempt} of run {run}"));
        let record = self.record(run).await.map_err(|problem| match problem.code {
            Code::NotFound => stranger(),
            _ => problem,
        })?;
        let of = record.attempts.iter().find(|of| of.number == attempt);
        let (of, nonce) = of.and_then(|of| Some((of, of.nonce.as_ref()?))).ok_or_else(stranger)?;
        let credentials = &self.0.settings.credentials;
        if !credentials.is_same(&credentials.session(run, attempt, nonce), session) {
            return Err(stranger());
        }
        if of.revoked.is_some() {
            return Err(revoked(run, attempt));
        }
        if of.client_key.as_ref() != Some(key) {
            let detail = format!("the client certificate is not that of attempt {attempt} of run {run}");
            return Err(Problem::new(Code::Forbidden, detail)
                .with_hint("show the certificate that came with this attempt's enrolment"));
        }
        Ok(Agent { run: run.clone(), attempt })
    }

    /// An agent's events.
    ///
    /// # Errors
    /// `bad-request`, `forbidden`, `revoked`, `too-large`, `attempt-over`, `unavailable`.
    pub async fn report(&self, agent: &Agent, report: Report) -> Result<Orders, Problem> {
        let made = report.events.iter().filter(|event| event.event.priority() == Priority::Low).count();
        let record = self.record(&agent.run).await?;
        // Nothing but progress changes nothing that is stored.
        let (record, answer) = match only_progress(&record, agent.attempt, &report.events) {
            Some(answer) => (record, answer.map_err(|refusal| *refusal)?),
            None => self.input(&agent.run, Input::Report { attempt: agent.attempt, events: report.events }).await?,
        };
        let mut orders = self.0.published.orders(&record, agent.attempt);
        if let Answer::Reported { next, progress } = answer {
            orders.next = next;
            if let Some(progress) = progress {
                self.0.published.set_progress(agent, *progress);
                self.0.settings.metrics.progressed(made);
                self.0.watchers.advance(&agent.run);
            }
        }
        Ok(orders)
    }

    /// Renews an agent's lease.
    ///
    /// # Errors
    /// `attempt-over`.
    pub async fn renew(&self, agent: &Agent, shown: Option<Standing<'_>>) -> Result<Lease, Problem> {
        let lease = self.0.published.renew(agent, &self.0.settings, &self.0.clock)?;
        let renewed = shown.map_or(Ok(None), |shown| self.0.settings.credentials.renewed(agent, shown));
        // The next renewal brings it: there are many before the one that is shown ends.
        let certificate = renewed.unwrap_or_else(|error| {
            tracing::error!(run = %agent.run, attempt = agent.attempt, error, "an agent's certificate is not renewed");
            None
        });
        Ok(Lease { certificate, ..lease })
    }

    /// What was told after `after`, in order.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn told(&self, after: i64, run: Option<&RunId>, limit: u32) -> Result<Vec<Told>, Problem> {
        self.0.store.told(after, run, limit).await.map_err(|error| problem(&error))
    }

    /// The place of what was told last.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn last_told(&self) -> Result<i64, Problem> {
        self.0.store.last_told().await.map_err(|error| problem(&error))
    }

    /// The latest progress of a run, of memory.
    pub fn progress(&self, run: &RunId) -> Option<Progress> {
        self.0.published.progress(run)
    }

    /// The running runs that got on since a look at them, and the name of this look; since 0: all of which progress is known.
    pub fn fleet(&self, since: u64) -> (u64, Vec<Glance>) {
        self.0.published.fleet(since)
    }

    /// Subscribes to one run or to all.
    pub fn watch(&self, run: Option<&RunId>) -> Watch {
        self.0.watchers.subscribe(run)
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn ready(&self) -> Result<(), Problem> {
        self.0.store.ping().await.map_err(|error| problem(&error))
    }

    /// How many runs are where, at this moment.
    pub fn tally(&self) -> Tally {
        self.0.published.tally(&self.0.settings, &self.0.clock)
    }

    async fn record(&self, run: &RunId) -> Result<Arc<Record>, Problem> {
        if let Some(record) = self.0.published.get(run) {
            return Ok(record);
        }
        let found = self.0.store.run(run).await.map_err(|error| problem(&error))?;
        found.map(Arc::new).ok_or_else(|| self.0.settings.no_run(run))
    }

    async fn input(&self, run: &RunId, input: Input) -> Replied {
        let (reply, replied) = oneshot::channel();
        self.ask(Ask::Input { run: run.clone(), input: Box::new(input), reply: Some(reply) }).await?;
        replied.await.map_err(|_| ending())?
    }

    async fn ask(&self, ask: Ask) -> Result<(), Problem> {
        self.0.asks.send(ask).await.map_err(|_| ending())
    }

    fn shown(&self, record: &Record) -> Run {
        self.0.published.view(record, &self.0.settings, &self.0.clock)
    }
}

fn ending() -> Problem {
    Problem::new(Code::Unavailable, "the service is about to end").retry_after(5)
}

fn problem(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) | StoreError::Superseded => {
            Problem::new(Code::Unavailable, error.to_string()).retry_after(2)
        }
        StoreError::Conflict(_) | StoreError::Corrupt(_) => Problem::new(Code::Internal, error.to_string()),
    }
}
