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
use protocol::control::run::{LauncherKind, Outcome, StateChanged, What};
use protocol::{Digest, RunId};

use super::Moment;
use agent::Process;

use super::record::{AttemptRecord, CancelOrder, Ending, Record, State};

mod agent;
mod input;
mod keys;
mod people;

pub use agent::only_progress;
pub use input::{Answer, Decision, Effect, Input, Refusal, Rules};

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
        Input::Enrol { token, nonce, client_key, agent, server } => {
            deciding.enrol(token, &Process { nonce, client_key, agent }, server.as_ref())?;
        }
        Input::Report { attempt, events } => deciding.report(*attempt, events)?,
        Input::Expired { attempt } => deciding.expired(*attempt),
        Input::Said { attempt, words } => deciding.said(*attempt, words),
        Input::Died { attempt, how, retryable } => deciding.died(*attempt, how, *retryable),
        Input::ConfirmDeath { attempt } => deciding.confirm_death(*attempt)?,
        Input::Revoke { attempt, reason } => deciding.revoke(*attempt, reason)?,
        Input::Cancel { reason, ending } => deciding.cancel(reason, *ending)?,
        Input::Retry { key } => deciding.retry(key.as_ref())?,
        Input::ReleaseKey { attempt } => deciding.release_key(*attempt)?,
        Input::ShowKey { by } => deciding.show_key(by)?,
        Input::Reseal { from, to } => deciding.reseal_key(from, to),
        Input::DestroyKey { by, reason } => deciding.destroy_key(by, reason.as_deref())?,
        Input::KeyErased { sealed } => deciding.key_erased(sealed),
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
        let changed = StateChanged { state: state.into(), attempt, reason };
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
            LauncherKind::Kubernetes => "its Job is being created",
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

    /// The reason for the state becomes more than it was; the state is the same, since when it was.
    fn said(&mut self, attempt: u32, words: &str) {
        let record = &self.decision.record;
        let concerns = match record.state {
            State::Launching => record.attempt() == attempt,
            State::Lost => record.silent.contains(&attempt),
            _ => false,
        };
        if concerns && record.reason != words {
            let (state, current) = (record.state.into(), record.attempt());
            let reason = words.to_owned();
            self.record().reason.clone_from(&reason);
            self.decision.told.push(What::State(StateChanged { state, attempt: current, reason }));
        }
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
            (LauncherKind::Kubernetes, false) => {
                self.enter(State::Lost, format!("attempt {attempt} {why}; its Job is being deleted"));
                self.decision.effects.push(Effect::End { attempt, handle });
            }
            (launcher, true) => {
                self.enter(
                    State::Lost,
                    format!("attempt {attempt} {why}; the reservation of the next one shuts it out"),
                );
                self.lose_unheard(attempt, why);
                if launcher.starts_agents() {
                    self.decision.effects.push(Effect::End { attempt, handle });
                }
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

    /// What is left of silent attempts need not be waited for any more: a cluster may have kept it to be seen.
    fn let_go(&mut self, are_meant: impl Fn(u32) -> bool) {
        let record = &self.decision.record;
        if record.order.launcher != LauncherKind::Kubernetes {
            return;
        }
        let meant = record.attempts.iter().filter(|of| record.silent.contains(&of.number) && are_meant(of.number));
        let ends = meant.map(|of| Effect::End { attempt: of.number, handle: of.handle.clone() });
        self.decision.effects.extend(ends.collect::<Vec<_>>());
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

    /// Nothing of the current attempt needs to be seen any more.
    fn settle(&mut self) {
        let record = &self.decision.record;
        let handle = record.current().and_then(|current| current.handle.clone());
        let handle = handle.filter(|_| record.order.launcher == LauncherKind::Kubernetes);
        self.decision.effects.extend(handle.map(|handle| Effect::Settle { handle }));
    }

    /// Ends the current attempt, and goes on with the run.
    fn end_attempt(&mut self, outcome: Outcome, reason: &str, retryable: bool) {
        self.settle();
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

/// That nothing counts which an attempt shows.
pub fn revoked(run: &RunId, attempt: u32) -> Problem {
    Problem::new(Code::Revoked, format!("attempt {attempt} of run {run} was revoked"))
        .with_hint("write nothing more; its run says who has revoked it, and why")
}

fn conflict(record: &Record, what: &str) -> Refusal {
    refuse(Code::Conflict, format!("run {} is {}: {what}", record.run, record.state.name()))
}

/// What is told of a run that was just created.
pub fn created(record: &Record) -> Vec<What> {
    let state = What::State(StateChanged { state: State::Queued.into(), attempt: 0, reason: record.reason.clone() });
    std::iter::once(state).chain(record.luks_key.is_some().then(keys::made)).collect()
}
