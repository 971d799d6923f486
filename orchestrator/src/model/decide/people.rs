//! What people bring: tokens they ask for, cancellations, revocations, retries, and what they vouch for.

use protocol::Digest;
use protocol::control::problem::Code;
use protocol::control::run::{LauncherKind, Outcome};

use super::super::Sealed;
use super::super::record::{CancelOrder, Ending, State};
use super::{Answer, Deciding, Effect, Refusal, conflict, refuse};

impl Deciding {
    pub(super) fn token(&mut self, digest: &Digest) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if record.order.launcher != LauncherKind::External {
            let detail =
                format!("the agents of run {} are launched by the service, which gives them their tokens", record.run);
            return Err(refuse(Code::Conflict, detail));
        }
        let attempt = record.attempt();
        let attempt = match record.state {
            State::Launching => {
                if let Some(current) = self.record().attempts.last_mut() {
                    current.token = Some(digest.clone());
                }
                attempt
            }
            State::Queued | State::Lost if record.may_start() => {
                self.record().next_token = Some(digest.clone());
                attempt + 1
            }
            _ => return Err(conflict(record, "nobody can enrol for it")),
        };
        self.decision.answer = Answer::Attempt(attempt);
        Ok(())
    }

    pub(super) fn cancel(&mut self, reason: &str, ending: Ending) -> Result<(), Refusal> {
        let state = self.state();
        if state.is_over() {
            return Err(conflict(&self.decision.record, "there is nothing to cancel"));
        }
        match &self.decision.record.cancel {
            // It is to end already, because it is late: now somebody calls it off as well, and its key goes.
            Some(order) if order.ending == Ending::Failed && ending == Ending::Cancelled => {}
            Some(_) => return Ok(()),
            None => {}
        }
        let order = CancelOrder { since: self.now, reason: reason.to_owned(), ending };
        let record = self.record();
        record.cancel = Some(order);
        record.next_token = None;
        if ending == Ending::Cancelled {
            // With the order, not when the agent obeys. A run whose deadline has passed can be gone on with, under its key.
            self.forget_key("the service", Some(&format!("the run was called off: {reason}")));
        }
        match state {
            State::Queued => self.end(ending, reason),
            State::Launching => {
                let attempt = self.decision.record.attempt();
                let handle = self.decision.record.current().and_then(|current| current.handle.clone());
                self.decision.effects.push(Effect::End { attempt, handle });
                self.end_attempt(Outcome::Cancelled, reason, false);
            }
            _ => {
                let waits = match state {
                    State::Running => "its agent is being told",
                    _ => "it ends once its agent is known to be dead",
                };
                self.enter(state, format!("{reason}; {waits}"));
            }
        }
        Ok(())
    }

    pub(super) fn revoke(&mut self, attempt: u32, reason: &str) -> Result<(), Refusal> {
        let (now, state) = (self.now, self.state());
        let record = &self.decision.record;
        let Some(at) = record.attempts.iter().position(|of| of.number == attempt) else {
            return Err(conflict(record, &format!("it has had {} attempts, and none is {attempt}", record.attempt())));
        };
        if record.attempts.get(at).is_some_and(|of| of.revoked.is_some()) {
            return Ok(());
        }
        // What it was given it has.
        let has_key = record.attempts.get(at).is_some_and(|of| of.key_released.is_some());
        let but =
            if has_key { "; it has the key of the disk: cancel the run and retry it, for another one" } else { "" };
        if let Some(of) = self.record().attempts.get_mut(at) {
            of.revoked = Some(now);
        }
        let why = format!("was revoked {reason}{but}");
        match state {
            State::Launching => self.not_launched(attempt, &format!("attempt {attempt} {why}"), true, true),
            State::Running => self.lose(attempt, &why),
            // It is lost already, or over: all that changes is what it may say.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn retry(&mut self, key: Option<&Sealed>) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if !matches!(record.state, State::Failed | State::Cancelled) {
            return Err(conflict(record, "only a run that has failed or was cancelled can be tried again"));
        }
        self.renew_key(key)?;
        let now = self.now;
        let record = self.record();
        record.budget = record.attempt().saturating_add(record.order.max_attempts);
        record.cancel = None;
        record.failure = None;
        record.not_before = now;
        record.deadline = record.order.deadline.map(|seconds| now.after(std::time::Duration::from_secs(seconds)));
        self.enter(State::Queued, "somebody wants it to be tried again");
        Ok(())
    }

    pub(super) fn confirm_death(&mut self, attempt: u32) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if !record.silent.contains(&attempt) {
            let detail = match &record.silent[..] {
                [] => format!("run {} has no silent attempt", record.run),
                silent => format!("attempt {attempt} of run {} is not silent; silent are {silent:?}", record.run),
            };
            return Err(refuse(Code::Conflict, detail));
        }
        let how = format!("a person vouches that attempt {attempt} is dead");
        self.let_go(|silent| silent <= attempt);
        // Who was sure of the latest one has had the server before him, and with it all of them.
        self.silence_explained(|silent| silent <= attempt, &how);
        Ok(())
    }
}
