//! What follows a decision once it is stored: agents are launched, let go, watched, and killed. Each ends in an input of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{Digest, RunId, Token};
use tokio::task::AbortHandle;

use super::Engine;
use super::asks::Ask;
use super::task::Waiting;
use crate::launch::{Death, Ending, Launched, Launcher, Order, Says};
use crate::model::{AttemptRecord, Effect, Input, Record, State};

type Release = Box<dyn FnOnce(Token) -> BoxFuture<'static, ()> + Send>;

/// Carries out effects.
pub(super) struct Launching {
    engine: Engine,
    /// Tokens of attempts that were begun and are not let go yet. Their digests are stored.
    tokens: Waiting,
    /// Launches, and lettings-go, that may be under way.
    underway: HashMap<(RunId, u32), AbortHandle>,
    /// What was launched and is not let go yet.
    launched: Arc<Mutex<HashMap<(RunId, u32), Release>>>,
}

impl Launching {
    pub(super) fn new(engine: &Engine) -> Self {
        Launching { engine: engine.clone(), tokens: HashMap::new(), underway: HashMap::new(), launched: Arc::default() }
    }

    /// Makes the enrolment token of the next attempt.
    pub(super) fn token(&mut self, record: &Record) -> Result<Digest, String> {
        let credentials = &self.engine.0.settings.credentials;
        let token = credentials.new_token()?;
        let digest = credentials.digest(&token);
        self.tokens.insert((record.run.clone(), record.attempt() + 1), token);
        Ok(digest)
    }

    /// After a restart: goes on with what the service before this one has begun. May owe an input.
    pub(super) fn go_on(&mut self, record: &Record) -> Option<Input> {
        let current = record.current()?;
        let attempt = current.number;
        let is_ours = record.order.launcher.starts_agents();
        for silent in record.silent.iter().filter(|_| is_ours) {
            let of = record.attempts.iter().find(|of| of.number == *silent);
            self.end(record, *silent, of.and_then(|of| of.handle.clone()));
        }
        match (record.state, &current.handle) {
            (State::Launching, Some(handle)) if is_ours => {
                self.adopt(record, attempt, handle.clone());
                None
            }
            (State::Launching, None) if is_ours => Some(unlaunched(attempt)),
            (State::Running, Some(handle)) => {
                self.watch(record, attempt, handle.clone());
                None
            }
            _ => None,
        }
    }

    pub(super) fn carry_out(&mut self, record: &Record, effect: Effect) {
        match effect {
            Effect::Launch => self.launch(record),
            Effect::Release { attempt } => self.release(record, attempt),
            Effect::End { attempt, handle } => self.end(record, attempt, handle),
            Effect::Settle { handle } => {
                if let Some(launcher) = self.launcher(record) {
                    launcher.settle(&handle);
                }
            }
            Effect::DestroyKey { sealed } => self.engine.erase(record.run.clone(), sealed),
        }
    }

    fn launcher(&self, record: &Record) -> Option<Arc<dyn Launcher>> {
        self.engine.0.settings.launchers.get(&record.order.launcher).cloned()
    }

    fn launch(&mut self, record: &Record) {
        let (engine, run, attempt) = (self.engine.clone(), record.run.clone(), record.attempt());
        let launched = Arc::clone(&self.launched);
        let launcher = self.launcher(record);
        let order = Order {
            run: run.clone(),
            attempt,
            server: record.server().clone(),
            fabric: record.fabric().clone(),
            is_local: record.order.target.lun.is_none(),
        };
        let says = self.says(record, attempt);
        let key = (run.clone(), attempt);
        let task = tokio::spawn(async move {
            let not = |reason, retryable| Input::NotLaunched { attempt, reason, retryable, counts: true };
            let Some(launcher) = launcher else {
                return say(&engine, run, not("this service has no such launcher".into(), false)).await;
            };
            match launcher.launch(order, says).await {
                Ok(None) => {}
                Ok(Some(Launched { handle, release })) => {
                    launched.lock().unwrap_or_else(PoisonError::into_inner).insert((run.clone(), attempt), release);
                    say(&engine, run, Input::Launched { attempt, handle }).await;
                }
                Err(failed) => say(&engine, run, not(failed.reason, failed.retryable)).await,
            }
        });
        // What has ended is not kept.
        self.underway.retain(|_, task| !task.is_finished());
        self.underway.insert(key, task.abort_handle());
    }

    fn release(&mut self, record: &Record, attempt: u32) {
        let key = (record.run.clone(), attempt);
        let token = self.tokens.remove(&key);
        let release = self.launched.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let handle = record.attempts.iter().find(|of| of.number == attempt).and_then(|of| of.handle.clone());
        // Without a token it ends by itself, and is found dead.
        if let (Some(token), Some(release)) = (token, release) {
            self.underway.insert(key, tokio::spawn(release(token)).abort_handle());
        }
        if let Some(handle) = handle {
            self.watch(record, attempt, handle);
        }
    }

    /// Goes on with an attempt that an earlier service has launched and perhaps let go. Whether it has its token its launcher may know; an
    /// agent that has none, and has not enrolled, loses nothing.
    fn adopt(&self, record: &Record, attempt: u32, handle: String) {
        let Some(launcher) = self.launcher(record) else { return };
        let (engine, run, says) = (self.engine.clone(), record.run.clone(), self.says(record, attempt));
        tokio::spawn(async move {
            if !launcher.was_released(&handle).await {
                return say(&engine, run, unlaunched(attempt)).await;
            }
            let Death { how, retryable } = launcher.watch(&handle, says).await;
            say(&engine, run, Input::Died { attempt, how, retryable }).await;
        });
    }

    fn watch(&self, record: &Record, attempt: u32, handle: String) {
        let Some(launcher) = self.launcher(record) else { return };
        let (engine, run, says) = (self.engine.clone(), record.run.clone(), self.says(record, attempt));
        tokio::spawn(async move {
            let Death { how, retryable } = launcher.watch(&handle, says).await;
            say(&engine, run, Input::Died { attempt, how, retryable }).await;
        });
    }

    fn end(&mut self, record: &Record, attempt: u32, handle: Option<String>) {
        let key = (record.run.clone(), attempt);
        // What is asked for now goes on nevertheless, and is found.
        if let Some(task) = self.underway.remove(&key) {
            task.abort();
        }
        self.tokens.remove(&key);
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let Some(launcher) = self.launcher(record) else { return };
        let (engine, run, says) = (self.engine.clone(), record.run.clone(), self.says(record, attempt));
        let ending = Ending { run: run.clone(), attempt, handle, may_write: may_write(record, attempt) };
        tokio::spawn(async move {
            let Death { how, retryable } = launcher.end(ending, says).await;
            say(&engine, run, Input::Died { attempt, how, retryable }).await;
        });
    }

    /// After a restart: ends what is still there of attempts that are over. It may be there because the service ended before it had ended it.
    /// Of a run that this service does not know, nothing is touched.
    pub(super) fn end_leftovers(&self) {
        for launcher in self.engine.0.settings.launchers.values() {
            let (engine, launcher) = (self.engine.clone(), Arc::clone(launcher));
            tokio::spawn(async move {
                for left in launcher.leftovers().await {
                    let Some(record) = known(&engine, &left.run).await else {
                        let (run, attempt, handle) = (left.run, left.attempt, left.handle);
                        tracing::warn!(%run, attempt, handle, "something runs for a run that is not known here; it is left alone");
                        continue;
                    };
                    let is_over = |of: &AttemptRecord| of.number == left.attempt && of.outcome.is_some();
                    if record.attempts.iter().any(is_over) && !record.silent.contains(&left.attempt) {
                        let (run, attempt, handle) = (left.run, left.attempt, Some(left.handle));
                        let ending = Ending { run, attempt, handle, may_write: false };
                        let launcher = Arc::clone(&launcher);
                        tokio::spawn(async move { launcher.end(ending, Arc::new(|_| {})).await });
                    }
                }
            });
        }
    }

    /// Tells the run what its launcher says of an attempt, each thing once, in the order in which it was said. A launcher says the same for
    /// as long as it is so.
    fn says(&self, record: &Record, attempt: u32) -> Says {
        let (engine, run) = (self.engine.clone(), record.run.clone());
        let (words, mut said) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut before = String::new();
            while let Some(words) = said.recv().await {
                if words == before {
                    continue;
                }
                before.clone_from(&words);
                say(&engine, run.clone(), Input::Said { attempt, words }).await;
            }
        });
        Arc::new(move |text| drop(words.send(text)))
    }
}

/// Whether an attempt's agent may still write: it has enrolled, and neither has it ended nor is its death known.
fn may_write(record: &Record, attempt: u32) -> bool {
    let of = record.attempts.iter().find(|of| of.number == attempt);
    of.is_some_and(|of| of.enrolled.is_some() && (of.outcome.is_none() || record.silent.contains(&attempt)))
}

/// A run as it is stored, however long the store takes to say so.
async fn known(engine: &Engine, run: &RunId) -> Option<Record> {
    loop {
        match engine.0.store.run(run).await {
            Ok(record) => return record,
            Err(error) => {
                tracing::warn!(%run, %error, "a run cannot be read; it is tried again");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

fn unlaunched(attempt: u32) -> Input {
    let reason = "the service ended while it launched the agent".into();
    Input::NotLaunched { attempt, reason, retryable: true, counts: false }
}

/// To an engine that has ended nothing is said: the next one asks the launcher again.
async fn say(engine: &Engine, run: RunId, input: Input) {
    let _ = engine.0.asks.send(Ask::Input { run, input: Box::new(input), reply: None }).await;
}
