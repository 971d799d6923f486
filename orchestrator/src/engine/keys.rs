//! Keys that leave the service, each only once that is stored: a service that is killed in between has given nothing away, and says so.

use std::time::Duration;

use protocol::control::key::{ReleasedKey, ShownKey};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Happening, Run, What};
use protocol::{RunId, UnlockKey};

use super::{Agent, Engine};
use crate::model::{Answer, Input, Rules, Sealed, State, decide};

/// After this long what was asked of a keeper, and not answered, has happened or never will.
const LATE: Duration = Duration::from_secs(120);

impl Engine {
    /// The key of its disk, for the agent that runs. Each attempt is given it once.
    ///
    /// # Errors
    /// `not-found`, `revoked`, `attempt-over`, `key-released`, `key-shut`, `key-gone`, `conflict`, `unavailable`: then it may have been marked as given.
    pub async fn release_key(&self, agent: &Agent) -> Result<ReleasedKey, Problem> {
        let key = self.hand_out(&agent.run, Input::ReleaseKey { attempt: agent.attempt }).await?;
        Ok(ReleasedKey { key })
    }

    /// The key of a disk, for its owner. It is shown once.
    ///
    /// # Errors
    /// `not-found`, `key-shown`, `key-shut`, `key-gone`, `unavailable`: then it may have been marked as shown.
    pub async fn show_key(&self, run: &RunId, by: &str) -> Result<ShownKey, Problem> {
        let key = self.hand_out(run, Input::ShowKey { by: by.to_owned() }).await?;
        Ok(ShownKey { run: run.clone(), key })
    }

    /// Destroys the key of a run that is over, or has not begun.
    ///
    /// # Errors
    /// `not-found`, `key-gone`, `conflict`, `unavailable`.
    pub async fn destroy_key(&self, run: &RunId, by: &str) -> Result<Run, Problem> {
        let input = Input::DestroyKey { by: by.to_owned(), reason: None };
        Ok(self.shown(&self.input(run, input).await?.0))
    }

    /// Queues a failed or cancelled run again, with a new budget, and with a new key where its own was destroyed.
    ///
    /// # Errors
    /// `not-found`, `conflict`, `key-shut`, `unavailable`.
    pub async fn retry(&self, run: &RunId) -> Result<Run, Problem> {
        let (engine, run) = (self.clone(), run.clone());
        to_end(async move { engine.retry_to_end(&run).await }).await
    }

    async fn retry_to_end(&self, run: &RunId) -> Result<Run, Problem> {
        let record = self.record(run).await?;
        let may_retry = matches!(record.state, State::Failed | State::Cancelled);
        let is_gone = may_retry && record.luks_key.as_ref().is_some_and(|key| key.sealed.is_none());
        let new = if is_gone { Some(self.make_key(run).await?) } else { None };
        let retried = self.input(run, Input::Retry { key: new.clone() }).await;
        // Somebody else was faster, or it is refused.
        let is_used = retried.as_ref().map_or_else(unknown, |(record, _)| Some(record.sealed() == new.as_ref()));
        if let Some(new) = new {
            self.unless_used(run, new, is_used);
        }
        Ok(self.shown(&retried?.0))
    }

    /// Opens a key, marks that it is given, and gives it only when that is stored. It is opened first, so that nothing is marked where it
    /// cannot be.
    async fn hand_out(&self, run: &RunId, input: Input) -> Result<UnlockKey, Problem> {
        let record = self.record(run).await?;
        let rules = Rules { back_off: self.0.settings.back_off, dice: 0.0 };
        let decision = decide(&record, &input, self.0.clock.now(), &rules).map_err(|refusal| *refusal)?;
        let (keeper, expected) = (&self.0.settings.keeper, sealed(decision.answer)?);
        let key = keeper.open(run, &expected).await?;
        let (_, answer) = self.input(run, input).await?;
        let now = sealed(answer)?;
        // The run may have got another key between the two looks.
        if now == expected { Ok(key) } else { Ok(keeper.open(run, &now).await?) }
    }

    /// Makes a key that is nobody's yet. Where it is going to lie elsewhere, that is stored first: whatever happens then, it is found.
    pub(super) async fn make_key(&self, run: &RunId) -> Result<Sealed, Problem> {
        let (keeper, store) = (&self.0.settings.keeper, &self.0.store);
        let Some(place) = keeper.place(run).await? else { return Ok(keeper.make(run, None).await?) };
        store.reserve(self.0.generation, run, &place).await.map_err(|error| super::problem(&error))?;
        let made = keeper.make(run, Some(&place)).await;
        if made.is_err() {
            // What was asked for may still happen.
            self.erase_late(run.clone(), place);
        }
        Ok(made?)
    }

    /// What becomes of a key that was made for a run: `None` where nobody knows yet whether it is the run's.
    pub(super) fn unless_used(&self, run: &RunId, sealed: Sealed, is_used: Option<bool>) {
        match is_used {
            Some(true) => {}
            Some(false) => self.erase(run.clone(), sealed),
            None => self.erase_late(run.clone(), sealed),
        }
    }

    /// [`Engine::erase`] once what is on its way has come or never will. What is a run's by then stays.
    pub(super) fn erase_late(&self, run: RunId, sealed: Sealed) {
        if sealed.is_elsewhere() {
            self.erase_all_late(vec![(run, sealed)]);
        }
    }

    /// The same of all of them. A service that was killed may have asked for some, and they come only after it.
    pub(super) fn erase_all_late(&self, keys: Vec<(RunId, Sealed)>) {
        if keys.is_empty() {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            keys.into_iter().for_each(|(run, sealed)| engine.erase(run, sealed));
        });
    }

    /// Has a key destroyed that is nobody's, where it is kept.
    pub(super) fn erase(&self, run: RunId, sealed: Sealed) {
        if sealed.is_elsewhere() {
            // Where nobody listens any more, the next service finds it.
            let _ = self.0.erase.send((run, sealed));
        }
    }
}

/// Whether a key is used by what was answered so: not where it is refused; and where it may have been done, nobody knows.
pub(super) fn unknown(problem: &Problem) -> Option<bool> {
    (problem.code != Code::Unavailable).then_some(false)
}

/// Goes on also where nobody waits for it any more: what was begun elsewhere must come to its end.
pub(super) async fn to_end<T: Send + 'static>(
    doing: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(doing).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(super::ending()),
    }
}

/// What an answer opens.
fn sealed(answer: Answer) -> Result<Sealed, Problem> {
    match answer {
        Answer::Sealed(sealed) => Ok(sealed),
        _ => Err(Problem::new(Code::Internal, "no key was decided about")),
    }
}

/// Writes what has been done with keys into the log, once it is stored.
pub(super) fn audit(happening: &Happening) {
    let What::Key(event) = &happening.what else { return };
    let (run, action, by) = (&happening.run, &event.action, &event.by);
    let (attempt, reason) = (event.attempt.unwrap_or(0), event.reason.as_deref().unwrap_or(""));
    tracing::info!(target: "audit", %run, %action, attempt, by, reason, "key");
}
