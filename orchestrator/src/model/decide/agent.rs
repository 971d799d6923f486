//! What an agent brings: its enrolment, and its events.

use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Outcome, What};
use protocol::event::{Body, ErrorKind, Event, Failure, Phase, Progress, Summary, TargetState};
use protocol::{Digest, ServerName};

use super::super::PathCount;
use super::super::record::{AttemptRecord, Ending, Record, State};
use super::{Answer, Deciding, Refusal, conflict, refuse, revoked};

/// Bytes of one attempt's events that are stored; the one that ends it may go beyond. A chatterbox must not fill the store.
const MAX_STORED: u64 = 4 << 20;
/// Largest event, in bytes of JSON.
const MAX_EVENT: usize = 64 << 10;
/// Largest index: what JSON's readers still count exactly.
const MAX_INDEX: u64 = 1 << 53;

/// The process that enrols.
pub(super) struct Process<'a> {
    pub(super) nonce: &'a Digest,
    pub(super) client_key: &'a Digest,
    pub(super) agent: &'a str,
}

/// Whether the current attempt, which ends, was silent before.
struct WasSilent(bool);

/// What is known of an attempt that reports.
struct Heard {
    /// The lowest index that it has not reported.
    first: u64,
    is_over: bool,
}

/// The answer to a report of nothing but progress, which [`super::decide`] would give as well, without a record in the making: nothing of
/// it changes. `None`: something in it has to be decided.
pub fn only_progress(record: &Record, attempt: u32, events: &[Event]) -> Option<Result<Answer, Refusal>> {
    events.iter().all(|event| matches!(event.event, Body::Progress(_))).then(|| {
        let Heard { first, is_over } = heard(record, attempt, events)?;
        let Some(latest) = events.last().filter(|event| event.index >= first) else {
            return Ok(Answer::Reported { next: first, progress: None });
        };
        if is_over {
            return Err(over(record, attempt));
        }
        let progress = match &latest.event {
            Body::Progress(progress) => Some(Box::new(progress.clone())),
            _ => None,
        };
        Ok(Answer::Reported { next: latest.index + 1, progress })
    })
}

/// Whether an attempt may report these events.
fn heard(record: &Record, attempt: u32, events: &[Event]) -> Result<Heard, Refusal> {
    check_events(record, attempt, events)?;
    let found = record.attempts.iter().find(|of| of.number == attempt && of.nonce.is_some());
    let found =
        found.ok_or_else(|| refuse(Code::AttemptOver, format!("there is no attempt {attempt} that has enrolled")))?;
    // It was authenticated before its body was read, and may have been revoked meanwhile.
    if found.revoked.is_some() {
        return Err(Box::new(revoked(&record.run, attempt)));
    }
    let is_over = found.outcome.is_some() && !record.silent.contains(&attempt);
    Ok(Heard { first: found.next_index, is_over })
}

fn over(record: &Record, attempt: u32) -> Refusal {
    refuse(Code::AttemptOver, format!("attempt {attempt} of run {} is over", record.run))
}

fn check_events(record: &Record, attempt: u32, events: &[Event]) -> Result<(), Refusal> {
    let mut last = None;
    for event in events {
        if event.run != record.run || event.attempt != attempt {
            let detail = format!(
                "an event of attempt {} of run {}, sent as attempt {attempt} of run {}",
                event.attempt, event.run, record.run
            );
            return Err(refuse(Code::Forbidden, detail));
        }
        if last.is_some_and(|last| event.index <= last) {
            return Err(refuse(Code::BadRequest, format!("event {} comes out of order", event.index)));
        }
        if event.index >= MAX_INDEX {
            return Err(refuse(Code::BadRequest, format!("there is no event {}", event.index)));
        }
        let size =
            if is_surely_small(event) { 0 } else { serde_json::to_vec(event).map_or(usize::MAX, |json| json.len()) };
        if size > MAX_EVENT {
            return Err(refuse(
                Code::TooLarge,
                format!("event {} has {size} bytes, and may have {MAX_EVENT}", event.index),
            ));
        }
        last = Some(event.index);
    }
    Ok(())
}

/// Whether an event need not be written out to know that it is small enough: progress, which comes all the time, has a few numbers and
/// words. A byte of text has at most six in JSON.
fn is_surely_small(event: &Event) -> bool {
    let Body::Progress(progress) = &event.event else { return false };
    let limited_by = progress.limited_by.as_ref().map_or(0, |stage| stage.name().len());
    let texts = event.time.len() + progress.phase.name().len() + progress.step.name().len() + limited_by;
    texts <= MAX_EVENT / 12
}

impl Deciding {
    pub(super) fn enrol(
        &mut self,
        token: &Digest,
        process: &Process<'_>,
        server: Option<&ServerName>,
    ) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if let Some(server) = server.filter(|server| *server != record.server()) {
            let detail = format!("the token is for server {}, and the agent says it runs on {server}", record.server());
            return Err(refuse(Code::Forbidden, detail));
        }
        if let Some(of) = record.attempts.iter().find(|of| of.revoked.is_some() && of.token.as_ref() == Some(token)) {
            return Err(Box::new(revoked(&record.run, of.number)));
        }
        let current = record.current().filter(|current| current.token.as_ref() == Some(token));
        let Some(current) = current else {
            if record.next_token.as_ref() == Some(token) && !record.state.is_over() {
                let detail = format!("run {} is {}: it is not its turn yet", record.run, record.state.name());
                return Err(Box::new(Problem::new(Code::NotYet, detail).retry_after(5)));
            }
            return Err(refuse(Code::Unauthorized, "the enrolment token is not valid, or not any more"));
        };
        let attempt = current.number;
        let is_same =
            current.nonce.as_ref() == Some(process.nonce) && current.client_key.as_ref() == Some(process.client_key);
        match (&current.nonce, record.state) {
            (Some(_), State::Running) if is_same => {
                self.decision.answer = Answer::Attempt(attempt);
                return Ok(());
            }
            (Some(_), _) => {
                let detail = format!("attempt {attempt} of run {} has been enrolled by another process", record.run);
                return Err(refuse(Code::AlreadyEnrolled, detail));
            }
            (None, State::Launching) => {}
            (None, _) => return Err(conflict(record, "the attempt is over")),
        }
        if record.order.launcher.starts_agents() && current.handle.is_none() {
            let detail = format!("attempt {attempt} of run {} is still being launched", record.run);
            return Err(Box::new(Problem::new(Code::NotYet, detail).retry_after(1)));
        }
        let now = self.now;
        if let Some(current) = self.record().attempts.last_mut() {
            (current.nonce, current.enrolled) = (Some(process.nonce.clone()), Some(now));
            current.client_key = Some(process.client_key.clone());
            current.agent = Some(process.agent.to_owned());
        }
        self.enter(State::Running, format!("{} has enrolled", process.agent));
        self.decision.answer = Answer::Attempt(attempt);
        Ok(())
    }

    pub(super) fn report(&mut self, attempt: u32, events: &[Event]) -> Result<(), Refusal> {
        let Heard { first, is_over } = heard(&self.decision.record, attempt, events)?;
        let mut next = first;
        let mut latest: Option<Progress> = None;
        for event in events.iter().filter(|event| event.index >= first) {
            if is_over {
                return Err(over(&self.decision.record, attempt));
            }
            next = event.index + 1;
            match &event.event {
                Body::Progress(progress) => latest = Some(progress.clone()),
                _ => self.take_note(attempt, event),
            }
        }
        self.decision.answer = Answer::Reported { next, progress: latest.map(Box::new) };
        Ok(())
    }

    /// Stores an event, and does what it means.
    fn take_note(&mut self, attempt: u32, event: &Event) {
        if self.is_room(attempt, event) {
            self.decision.told.push(What::Agent(event.clone()));
        }
        let is_current = self.decision.record.attempt() == attempt;
        match &event.event {
            Body::PhaseStarted { phase } if is_current => {
                let record = self.record();
                (record.phase, record.step) = (Some(phase.clone()), None);
            }
            Body::StepStarted { phase, step } if is_current => {
                let record = self.record();
                (record.phase, record.step) = (Some(phase.clone()), Some(step.clone()));
            }
            Body::PathChanged(changed) => {
                let now = self.now;
                if let Some(of) = self.record().attempts.iter_mut().find(|of| of.number == attempt) {
                    of.paths = Some(PathCount::after(of.paths, changed, now));
                }
            }
            Body::PhaseFinished { phase: Phase::Target, .. } if is_current => self.shut_out(attempt),
            Body::RunFinished(summary) => self.finished(attempt, summary),
            Body::RunFailed(failure) => self.failed(attempt, failure),
            _ => {}
        }
    }

    fn is_room(&mut self, attempt: u32, event: &Event) -> bool {
        self.changed = true;
        let found = self.decision.record.attempts.iter_mut().find(|of| of.number == attempt);
        let Some(AttemptRecord { next_index, stored_bytes, .. }) = found else { return false };
        *next_index = event.index + 1;
        let size = serde_json::to_vec(event).map_or(0, |json| json.len() as u64);
        // An end is stored however full it is, and once: an attempt that has failed and may still write can say so for ever.
        let fits = *stored_bytes + size <= MAX_STORED || (event.event.is_terminal() && *stored_bytes <= MAX_STORED);
        *stored_bytes += if fits { size } else { 0 };
        fits
    }

    /// The target is this attempt's: where reservations guard it, all earlier ones' keys are gone, and that was read back.
    fn shut_out(&mut self, attempt: u32) {
        let record = &self.decision.record;
        if record.silent.iter().any(|silent| *silent < attempt) && record.is_fenced_by_reservation() {
            self.let_go(|silent| silent < attempt);
            self.record().silent.retain(|silent| *silent >= attempt);
        }
    }

    /// An agent that says how it ended writes nothing more. Whether it is the current attempt's, and may say how the run goes on.
    fn ends(&mut self, attempt: u32) -> Option<WasSilent> {
        let record = &self.decision.record;
        let (is_silent, is_current) = (record.silent.contains(&attempt), record.attempt() == attempt);
        match (is_silent, is_current) {
            (true, true) => {
                self.record().silent.retain(|silent| *silent != attempt);
                Some(WasSilent(true))
            }
            // Its successor decides what is on the target. All that is known now is that it has ended.
            (true, false) => {
                let how = format!("the agent of attempt {attempt} has ended");
                self.silence_explained(|silent| silent == attempt, &how);
                None
            }
            (false, _) => self.current(attempt).is_some().then_some(WasSilent(false)),
        }
    }

    fn finished(&mut self, attempt: u32, summary: &Summary) {
        self.shut_out(attempt);
        if self.ends(attempt).is_none() {
            return;
        }
        self.settle();
        let now = self.now;
        let record = self.record();
        record.summary = Some(Box::new(summary.clone()));
        record.failure = None;
        if let Some(current) = record.attempts.last_mut() {
            (current.ended, current.outcome) = (Some(now), Some(Outcome::Succeeded));
            current.reason = None;
        }
        let (image, device) = (&summary.image.name, &summary.target.device);
        let reason = format!("{image} version {} is on {device}", summary.image.version);
        // Nobody can open it, unless he was shown the key before: that is no success, and can be tried again under another key.
        let is_locked = record.luks_key.as_ref().is_some_and(|key| key.destroyed.is_some());
        match record.cancel.clone().filter(|order| is_locked && order.ending == Ending::Cancelled) {
            Some(order) => {
                self.enter(
                    State::Cancelled,
                    format!("{}; by then {reason}, under the key that is destroyed", order.reason),
                );
            }
            None => self.enter(State::Succeeded, reason),
        }
    }

    fn failed(&mut self, attempt: u32, failure: &Failure) {
        let may_still_write = failure.target == TargetState::Uncertain;
        if may_still_write && self.state() == State::Running && self.current(attempt).is_some() {
            // Writes that the device has not answered may land yet, whatever has become of the agent.
            let record = self.record();
            record.failure = Some(Box::new(failure.clone()));
            if !failure.retryable {
                record.budget = record.budget.min(record.attempt());
            }
            return self.lose(attempt, &format!("failed, and may still write: {}", failure.message));
        }
        if may_still_write && self.decision.record.silent.contains(&attempt) {
            return;
        }
        let Some(WasSilent(was_silent)) = self.ends(attempt) else { return };
        let record = self.record();
        record.failure = Some(Box::new(failure.clone()));
        // Somebody has stopped the agent, and not the run.
        let stopped = failure.error == ErrorKind::Cancelled;
        let outcome = match (stopped && record.cancel.is_some(), was_silent) {
            (true, _) => Outcome::Cancelled,
            (false, true) => Outcome::Lost,
            (false, false) => Outcome::Failed,
        };
        self.end_attempt(outcome, &failure.message, failure.retryable || stopped);
    }
}
