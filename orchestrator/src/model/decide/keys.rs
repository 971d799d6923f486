//! Keys of disks that the service has made: who may have one, how often, and when it is gone.

use protocol::control::key::{KeyAction, KeyEvent};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::What;

use super::super::Sealed;
use super::super::record::{Deed, KeyRecord, Record, State};
use super::{Answer, Deciding, Effect, Refusal, conflict, refuse, revoked};

/// Who makes keys.
const SERVICE: &str = "the service";
/// Who destroys them elsewhere.
const KEEPER: &str = "who kept it";

/// That a key was made.
pub(super) fn made() -> What {
    told(KeyAction::Made, None, SERVICE, None)
}

fn told(action: KeyAction, attempt: Option<u32>, by: &str, reason: Option<&str>) -> What {
    What::Key(KeyEvent { action, attempt, by: by.to_owned(), reason: reason.map(ToOwned::to_owned) })
}

/// The key of a run that may still be opened.
fn key(record: &Record) -> Result<(&KeyRecord, &Sealed), Refusal> {
    let run = &record.run;
    let key = record.luks_key.as_ref().ok_or_else(|| {
        let problem = Problem::new(Code::NotFound, format!("the service has made no key for run {run}"));
        Box::new(problem.with_hint("its disk is not encrypted, or the key is its agent's (`key: agent`)"))
    })?;
    let gone = || {
        let by = key.destroyed.as_ref().map_or_else(String::new, |by| format!(" by {} at {}", by.by, by.at));
        let problem = Problem::new(Code::KeyGone, format!("the key of run {run} was destroyed{by}"));
        Box::new(problem.with_hint(anew(record)))
    };
    Ok((key, key.sealed.as_ref().ok_or_else(gone)?))
}

/// How a disk whose key nobody has gets another.
fn anew(record: &Record) -> String {
    match record.state {
        // It may have been handed over long ago: whoever installs it anew says so by an order of its own.
        State::Succeeded => "a new run (`z-orchestrator run create`) installs anew, under a new key".into(),
        _ => format!("`z-orchestrator run retry {}` installs anew, under a new key", record.run),
    }
}

impl Deciding {
    /// An attempt is given the key once, and only while it is the one that may write.
    pub(super) fn release_key(&mut self, attempt: u32) -> Result<(), Refusal> {
        let record = &self.decision.record;
        let (_, sealed) = key(record)?;
        let sealed = sealed.clone();
        let is_current = record.state == State::Running && record.attempt() == attempt;
        if let Some(of) = record.attempts.iter().find(|of| of.number == attempt && of.revoked.is_some()) {
            return Err(Box::new(revoked(&record.run, of.number)));
        }
        let open = record.current().filter(|current| is_current && current.outcome.is_none());
        let Some(current) = open else {
            let detail = format!("attempt {attempt} of run {} is not the one that runs", record.run);
            return Err(refuse(Code::AttemptOver, detail));
        };
        if record.cancel.is_some() {
            return Err(conflict(record, "it is to end, and no key is given for it any more"));
        }
        if let Some(at) = current.key_released {
            let detail = format!("attempt {attempt} of run {} was given its key at {at}", record.run);
            let problem = Problem::new(Code::KeyReleased, detail);
            return Err(Box::new(problem.with_hint("each attempt is given it once: the next one gets it anew")));
        }
        let now = self.now;
        if let Some(current) = self.record().attempts.last_mut() {
            current.key_released = Some(now);
        }
        let by = format!("attempt {attempt}");
        self.decision.told.push(told(KeyAction::Released, Some(attempt), &by, None));
        self.decision.answer = Answer::Sealed(sealed);
        Ok(())
    }

    /// The owner is shown the key once.
    pub(super) fn show_key(&mut self, by: &str) -> Result<(), Refusal> {
        let record = &self.decision.record;
        let (key, sealed) = key(record)?;
        let sealed = sealed.clone();
        if let Some(Deed { at, by, .. }) = &key.shown {
            let detail = format!("the key of run {} was shown to {by} at {at}", record.run);
            let problem = Problem::new(Code::KeyShown, detail);
            return Err(Box::new(problem.with_hint(format!(
                "it is shown once: whoever has it keeps it. Where nobody has, the disk cannot be opened: z-orchestrator run destroy-key; then {}",
                anew(record)
            ))));
        }
        let deed = Deed { at: self.now, by: by.to_owned(), reason: None };
        if let Some(key) = &mut self.record().luks_key {
            key.shown = Some(deed);
        }
        self.decision.told.push(told(KeyAction::Shown, None, by, None));
        self.decision.answer = Answer::Sealed(sealed);
        Ok(())
    }

    /// The same key, sealed otherwise: nothing has happened that anybody would have to be told. One that was destroyed or replaced meanwhile
    /// stays so.
    pub(super) fn reseal_key(&mut self, from: &Sealed, to: &Sealed) {
        if self.decision.record.sealed() == Some(from)
            && let Some(key) = &mut self.record().luks_key
        {
            key.sealed = Some(to.clone());
        }
    }

    /// Of a run under way the key is needed, until the run is called off.
    pub(super) fn destroy_key(&mut self, by: &str, reason: Option<&str>) -> Result<(), Refusal> {
        let record = &self.decision.record;
        key(record)?;
        if !record.state.is_over() && record.state != State::Queued {
            return Err(conflict(record, "its agent needs the key; cancel the run, which destroys it"));
        }
        self.forget_key(by, reason);
        Ok(())
    }

    /// Forgets the key, where there is one.
    pub(super) fn forget_key(&mut self, by: &str, reason: Option<&str>) {
        let deed = Deed { at: self.now, by: by.to_owned(), reason: reason.map(ToOwned::to_owned) };
        if self.decision.record.sealed().is_none() {
            return;
        }
        let Some(key) = &mut self.record().luks_key else { return };
        key.destroyed = Some(deed);
        // What is here goes with this very transaction.
        if let Some(sealed) = key.sealed.take().filter(Sealed::is_elsewhere) {
            self.record().remains.push(sealed.clone());
            self.decision.effects.push(Effect::DestroyKey { sealed });
        }
        self.decision.told.push(told(KeyAction::Destroyed, None, by, reason));
    }

    /// Nothing is left of a key that was forgotten.
    pub(super) fn key_erased(&mut self, sealed: &Sealed) {
        if !self.decision.record.remains.contains(sealed) {
            return;
        }
        self.record().remains.retain(|remains| remains != sealed);
        self.decision.told.push(told(KeyAction::Erased, None, KEEPER, None));
    }

    /// Before a run is tried again: one whose key was destroyed gets a new one.
    pub(super) fn renew_key(&mut self, new: Option<&Sealed>) -> Result<(), Refusal> {
        let record = &self.decision.record;
        if record.luks_key.as_ref().is_none_or(|key| key.sealed.is_some()) {
            return Ok(());
        }
        let Some(new) = new else {
            return Err(Box::new(
                Problem::new(Code::Conflict, format!("the key of run {} was destroyed just now", record.run))
                    .with_hint("ask again: a new key is made then")
                    .retry_after(1),
            ));
        };
        let key = KeyRecord::new(new.clone(), self.now, record.attempt());
        self.record().luks_key = Some(key);
        self.decision.told.push(made());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
