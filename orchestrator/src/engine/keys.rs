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
        let record = self.record(run).await?;
        let may_retry = matches!(record.state, State::Failed | State::Cancelled);
        let is_gone = may_retry && record.luks_key.as_ref().is_some_and(|key| key.sealed.is_none());
        let new = if is_gone { Some(self.make_key(run).await?) } else { None };
        let retried = self.input(run, Input::Retry { key: new.clone() }).await;
        // Somebody else was faster, or it is refused; where the outcome is not known, it may be the run's.
        let is_used = match &retried {
            Ok((record, _)) => record.luks_key.as_ref().and_then(|key| key.sealed.as_ref()) == new.as_ref(),
            Err(problem) => problem.code == Code::Unavailable,
        };
        if let Some(new) = new.filter(|_| !is_used) {
            self.erase(run.clone(), new);
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
            let (engine, run) = (self.clone(), run.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                engine.erase(run, place);
            });
        }
        Ok(made?)
    }

    /// Has a key destroyed that is nobody's, where it is kept.
    pub(super) fn erase(&self, run: RunId, sealed: Sealed) {
        if sealed.is_elsewhere() {
            // Where nobody listens any more, the next service finds it.
            let _ = self.0.erase.send((run, sealed));
        }
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
