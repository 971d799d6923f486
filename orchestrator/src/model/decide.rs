//! The state machine: what can happen to a run, and what comes of it.
//!
//! ```text
//!              Start          Enrol           run-finished
//!     queued ────────→ launching ──→ running ─────────────→ succeeded
//!       ↑ ↑                │            │ │
//!       │ └── not launched ┘            │ └─ run-failed ──→ queued (may help, budget left) | failed | cancelled
//!       │                               ↓ lease over
//!       └──── death known ─────────── lost ──── Start, where the reservation of the next attempt shuts the silent one out
//! ```

use protocol::control::problem::{Code, Problem};
use protocol::control::run::{LauncherKind, Outcome, What};
use protocol::event::{Event, Progress};
use protocol::{Digest, ServerName};

use super::record::{AttemptRecord, CancelOrder, Ending, Record, State};
use super::{BackOff, Moment};

mod agent;
mod people;

/// What decisions depend on besides the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Before a run is tried again.
    pub back_off: BackOff,
    /// 0 to 1, drawn anew for each decision.
    pub dice: f64,
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Its turn has come. `token`: the digest of its enrolment token, where the service launches it; else that of a person's.
    Start {
        /// The digest.
        token: Option<Digest>,
    },
    /// Its launcher has started something, which waits to be let go.
    Launched {
        /// The attempt.
        attempt: u32,
        /// What the launcher knows it by.
        handle: String,
    },
    /// Nothing of an attempt runs that could enrol.
    NotLaunched {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
        /// Whether trying again may help.
        retryable: bool,
        /// Whether it counts among the attempts that a run has. One that the service itself has spoilt does not.
        counts: bool,
    },
    /// A person is given an enrolment token.
    Token {
        /// Its digest.
        digest: Digest,
    },
    /// An agent enrols.
    Enrol {
        /// Digest of its token.
        token: Digest,
        /// Digest of its nonce.
        nonce: Digest,
        /// Program and version.
        agent: String,
        /// The server it believes to be on.
        server: Option<ServerName>,
    },
    /// An agent reports.
    Report {
        /// The attempt.
        attempt: u32,
        /// What happened.
        events: Vec<Event>,
    },
    /// The lease is over.
    Expired {
        /// The attempt.
        attempt: u32,
    },
    /// Its launcher vouches that nothing of an attempt runs any more.
    Died {
        /// The attempt.
        attempt: u32,
        /// How, in words.
        how: String,
        /// Whether trying again may help.
        retryable: bool,
    },
    /// A person vouches for that.
    ConfirmDeath {
        /// The attempt.
        attempt: u32,
    },
    /// It is to end.
    Cancel {
        /// Why.
        reason: String,
        /// What it is then.
        ending: Ending,
    },
    /// A person wants it to be tried again.
    Retry,
}

/// What must be done once a decision is stored. All of it can be told from the record as well, after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Launch the current attempt.
    Launch,
    /// Let go what was launched: it may enrol now.
    Release {
        /// The attempt.
        attempt: u32,
    },
    /// Make sure that nothing of an attempt runs any more, and say so.
    End {
        /// The attempt.
        attempt: u32,
        /// What its launcher knows it by; without, whatever it has started by now.
        handle: Option<String>,
    },
}

/// What is answered to whoever brought the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The attempt that has enrolled, or the one that a token is for.
    Attempt(u32),
    /// The lowest index that was not reported, and the latest progress.
    Reported {
        /// The index.
        next: u64,
        /// The progress.
        progress: Option<Box<Progress>>,
    },
}

/// Why an input is refused.
pub type Refusal = Box<Problem>;

/// What comes of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The new record. Its version is raised where anything has to be stored.
    pub record: Record,
    /// What is told, in order.
    pub told: Vec<What>,
    /// What must be done then.
    pub effects: Vec<Effect>,
    /// What is answered.
    pub answer: Answer,
}

/// Decides. The same inputs in the same order give the same record, always.
///
/// # Errors
/// The state does not allow it, or whoever brought it may not.
pub fn decide(record: &Record, input: &Input, now: Moment, rules: &Rules) -> Result<Decision, Refusal> {
    let mut deciding = Deciding {
        now,
        rules: *rules,
        changed: false,
        decision: Decision { record: record.clone(), told: Vec::new(), effects: Vec::new(), answer: Answer::Done },
    };
    match input {
        Input::Start { token } => deciding.start(token.as_ref())?,
        Input::Launched { attempt, handle } => deciding.launched(*attempt, handle),
        Input::NotLaunched { attempt, reason, retryable, counts } => {
            deciding.not_launched(*attempt, reason, *retryable, *counts);
        }
        Input::Token { digest } => deciding.token(digest)?,
        Input::Enrol { token, nonce, agent, server } => deciding.enrol(token, nonce, agent, server.as_ref())?,
        Input::Report { attempt, events } => deciding.report(*attempt, events)?,
        Input::Expired { attempt } => deciding.expired(*attempt),
        Input::Died { attempt, how, retryable } => deciding.died(*attempt, how, *retryable),
        Input::ConfirmDeath { attempt } => deciding.confirm_death(*attempt)?,
        Input::Cancel { reason, ending } => deciding.cancel(reason, *ending)?,
        Input::Retry => deciding.retry()?,
    }
    if deciding.changed {
        deciding.decision.record.version += 1;
    }
    Ok(deciding.decision)
}

/// A decision in the making.
struct Deciding {
    now: Moment,
    rules: Rules,
    /// Whether there is anything to store.
    changed: bool,
    decision: Decision,
}

impl Deciding {
    fn record(&mut self) -> &mut Record {
        self.changed = true;
        &mut self.decision.record
    }

    fn state(&self) -> State {
        self.decision.record.state
    }

    /// The current attempt, where it is this one and has not ended.
    fn current(&mut self, attempt: u32) -> Option<&mut AttemptRecord> {
        let current = self.decision.record.attempts.last_mut();
        current.filter(|current| current.number == attempt && current.outcome.is_none())
    }

    /// Into another state, or the same for another reason.
    fn enter(&mut self, state: State, reason: impl Into<String>) {
        let (now, reason) = (self.now, reason.into());
        let record = self.record();
        (record.state, record.since) = (state, now);
        record.reason.clone_from(&reason);
        record.ended = state.is_over().then_some(now);
        if !state.is_active() {
            (record.phase, record.step) = (None, None);
        }
        let attempt = record.attempt();
        let changed = protocol::control::run::StateChanged { state: state.into(), attempt, reason };
        self.decision.told.push(What::State(changed));
    }

    fn start(&mut self, token: Option<&Digest>) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if !record.may_start() || record.not_before > self.now {
            return Err(conflict(record, "it cannot be started"));
        }
        let (now, number) = (self.now, record.attempt() + 1);
        let record = self.record();
        let token = token.cloned().or_else(|| record.next_token.take());
        record.attempts.push(AttemptRecord { number, started: now, token, ..AttemptRecord::default() });
        (record.phase, record.step) = (None, None);
        let why = match record.order.launcher {
            LauncherKind::Process => "its agent is being started",
            LauncherKind::External => "its server may enrol",
        };
        self.enter(State::Launching, why);
        self.decision.effects.push(Effect::Launch);
        Ok(())
    }

    fn launched(&mut self, attempt: u32, handle: &str) {
        let is_launching = self.state() == State::Launching;
        match self.current(attempt).filter(|_| is_launching) {
            Some(current) => {
                current.handle = Some(handle.to_owned());
                self.changed = true;
                self.decision.effects.push(Effect::Release { attempt });
            }
            // It was called off meanwhile.
            None => self.decision.effects.push(Effect::End { attempt, handle: Some(handle.to_owned()) }),
        }
    }

    /// An attempt that has not enrolled can write nothing, and never will: its token goes with it.
    fn not_launched(&mut self, attempt: u32, reason: &str, retryable: bool, counts: bool) {
        let is_launching = self.state() == State::Launching;
        let Some(handle) = self.current(attempt).filter(|_| is_launching).map(|current| current.handle.clone()) else {
            return;
        };
        self.decision.effects.push(Effect::End { attempt, handle });
        if !counts {
            let record = self.record();
            record.budget = record.budget.saturating_add(1);
        }
        self.end_attempt(Outcome::NotLaunched, reason, retryable);
    }

    fn expired(&mut self, attempt: u32) {
        self.lose(attempt, "went silent");
    }

    /// Takes a running attempt's agent for one that may still write, whatever it says.
    fn lose(&mut self, attempt: u32, why: &str) {
        let is_running = self.state() == State::Running;
        let Some(handle) = self.current(attempt).filter(|_| is_running).map(|current| current.handle.clone()) else {
            return;
        };
        let record = self.record();
        record.silent.push(attempt);
        match (record.order.launcher, record.is_fenced_by_reservation()) {
            (LauncherKind::Process, _) => {
                self.enter(State::Lost, format!("attempt {attempt} {why}; its agent is being killed"));
                self.decision.effects.push(Effect::End { attempt, handle });
            }
            (LauncherKind::External, true) => {
                self.enter(
                    State::Lost,
                    format!("attempt {attempt} {why}; the reservation of the next one shuts it out"),
                );
                self.lose_unheard(attempt, why);
            }
            (LauncherKind::External, false) => {
                let but = "nothing shuts it out of the target: a person must make sure that it can write no more";
                self.enter(State::Lost, format!("attempt {attempt} {why}; {but}"));
            }
        }
    }

    /// Waits for the next attempt while the silent one may still be there.
    fn lose_unheard(&mut self, attempt: u32, why: &str) {
        let (wait, now) = (self.wait(), self.now);
        let record = self.record();
        record.not_before = now.after(wait);
        if let Some(current) = record.attempts.iter_mut().find(|of| of.number == attempt) {
            current.ended = Some(now);
            current.outcome = Some(Outcome::Lost);
            current.reason = Some(format!("it {why}"));
        }
    }

    fn died(&mut self, attempt: u32, how: &str, retryable: bool) {
        if self.decision.record.silent.contains(&attempt) {
            return self.silence_explained(|silent| silent == attempt, &format!("attempt {attempt} is dead: {how}"));
        }
        match self.state() {
            State::Launching => self.not_launched(attempt, how, retryable, true),
            State::Running if self.current(attempt).is_some() => self.end_attempt(Outcome::Lost, how, retryable),
            _ => {}
        }
    }

    /// Some silent attempts can write nothing any more. What the run waited for, it need not wait for any longer.
    fn silence_explained(&mut self, are_dead: impl Fn(u32) -> bool, how: &str) {
        let was_lost = self.state() == State::Lost;
        self.record().silent.retain(|silent| !are_dead(*silent));
        if !was_lost {
            return;
        }
        let open = self.decision.record.current().filter(|current| current.outcome.is_none()).map(|open| open.number);
        match open {
            Some(attempt) if are_dead(attempt) => self.end_attempt(Outcome::Lost, how, true),
            Some(_) => {}
            None => self.go_on(how, true),
        }
    }

    /// Ends the current attempt, and goes on with the run.
    fn end_attempt(&mut self, outcome: Outcome, reason: &str, retryable: bool) {
        let (wait, now) = (self.wait(), self.now);
        let record = self.record();
        if let Some(current) = record.attempts.last_mut() {
            current.ended = Some(now);
            current.outcome = Some(outcome);
            current.reason = Some(reason.to_owned());
        }
        record.not_before = now.after(wait);
        self.go_on(reason, retryable);
    }

    /// No attempt runs: the run is tried again, or ends. As long as a silent one may be there it does neither.
    fn go_on(&mut self, reason: &str, retryable: bool) {
        if !self.decision.record.silent.is_empty() {
            if !retryable {
                // It is remembered until silence is explained.
                let record = self.record();
                record.budget = record.budget.min(record.attempt());
            }
            return self.enter(State::Lost, reason);
        }
        let record = &self.decision.record;
        let (made, budget) = (record.attempt(), record.budget);
        match &record.cancel {
            Some(CancelOrder { ending, reason: why, .. }) => {
                let (ending, why) = (*ending, why.clone());
                self.end(ending, &why);
            }
            None if !retryable => self.enter(State::Failed, reason),
            None if made >= budget => {
                self.enter(State::Failed, format!("{reason}; that was attempt {made} of {budget}"))
            }
            None => self.enter(State::Queued, format!("{reason}; it is tried again")),
        }
    }

    fn end(&mut self, ending: Ending, why: &str) {
        let state = match ending {
            Ending::Cancelled => State::Cancelled,
            Ending::Failed => State::Failed,
        };
        self.enter(state, why);
    }

    fn wait(&self) -> std::time::Duration {
        self.rules.back_off.after(self.decision.record.attempt(), self.rules.dice)
    }
}

fn refuse(code: Code, detail: impl Into<String>) -> Refusal {
    Box::new(Problem::new(code, detail))
}

fn conflict(record: &Record, what: &str) -> Refusal {
    refuse(Code::Conflict, format!("run {} is {}: {what}", record.run, record.state.name()))
}

impl Default for AttemptRecord {
    fn default() -> Self {
        AttemptRecord {
            number: 0,
            started: Moment(0),
            ended: None,
            token: None,
            nonce: None,
            enrolled: None,
            agent: None,
            handle: None,
            next_index: 0,
            stored_bytes: 0,
            outcome: None,
            reason: None,
        }
    }
}

/// A run that was just created.
pub fn created(record: &Record) -> What {
    What::State(protocol::control::run::StateChanged {
        state: State::Queued.into(),
        attempt: 0,
        reason: record.reason.clone(),
    })
}
