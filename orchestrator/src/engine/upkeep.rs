//! What is done now and then with all runs that are stored: keys that are sealed otherwise than new ones are sealed anew.
//!
//! The runs are read a page at a time, the latest first, beside what else is asked; and what comes of it is asked of the task that decides,
//! a few at a time, so that nobody else waits for long. It begins with the service, which serves meanwhile: a walk that did not end, or a
//! service that was killed, begins anew and finds done what was done.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::RunId;
use protocol::control::problem::{Code, Problem};

use super::{Engine, problem};
use crate::model::{Input, Record, Sealed};
use crate::store::Filter;

/// Runs that are read at once.
const PAGE: u32 = 256;
/// Keys that are stored in one transaction: for each run that is over the task reads its record first.
const AT_ONCE: usize = 32;
/// From one walk to the next.
const EVERY: Duration = Duration::from_secs(3600);
/// After one that did not come to its end.
const SOON: Duration = Duration::from_secs(10);

/// Walks for as long as the engine decides.
pub(super) async fn go_on(engine: Engine) {
    let walking = async {
        let mut upkeep = Upkeep { engine: engine.clone(), shut: 0 };
        loop {
            let pause = match upkeep.walk().await {
                Ok(()) => EVERY,
                Err(problem) => {
                    tracing::warn!("looking through the runs: {}; it is tried again", problem.detail);
                    SOON
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = engine.0.asks.closed() => {}
        () = walking => {}
    }
}

struct Upkeep {
    engine: Engine,
    /// How many keys did not open when it was looked last.
    shut: u64,
}

/// What a walk has seen of keys.
#[derive(Default)]
struct Keys {
    renewed: u64,
    left: u64,
    shut: u64,
}

impl Upkeep {
    async fn walk(&mut self) -> Result<(), Problem> {
        let mut keys = Keys::default();
        let walked = self.look_at_all(&mut keys).await;
        let left = walked.is_ok().then_some(keys.left + keys.shut);
        self.engine.0.settings.keeper.renewed(keys.renewed, left);
        walked?;
        self.engine.0.settings.metrics.keys_looked_at(keys.left, keys.shut);
        self.shut = keys.shut;
        Ok(())
    }

    async fn look_at_all(&self, keys: &mut Keys) -> Result<(), Problem> {
        let mut before = None;
        loop {
            let page = self.engine.0.store.list(&Filter::default(), before, PAGE).await;
            let page = page.map_err(|error| problem(&error))?;
            self.renew(&page, keys).await?;
            match page.last().filter(|_| page.len() == PAGE as usize) {
                Some(last) => before = Some(last.seq),
                None => return Ok(()),
            }
        }
    }

    /// Has those sealed anew that are not sealed as new ones are. Those of runs that are created meanwhile are.
    async fn renew(&self, page: &[Record], keys: &mut Keys) -> Result<(), Problem> {
        let mut found: Vec<(RunId, Sealed, Sealed)> = Vec::new();
        for record in page {
            let Some(from) = sealed(record) else { continue };
            match self.engine.0.settings.keeper.renew(&record.run, from).await {
                Ok(None) => {}
                Ok(Some(to)) => found.push((record.run.clone(), from.clone(), to)),
                Err(error) => {
                    // One is enough to know what to do, and of thousands each would be too much.
                    if keys.shut == 0 && self.shut == 0 {
                        tracing::error!(%error, hint = error.hint, "a key that is stored does not open, and perhaps others");
                    }
                    keys.shut += 1;
                }
            }
        }
        for some in found.chunks(AT_ONCE) {
            let asked = some
                .iter()
                .map(|(run, from, to)| self.engine.input(run, Input::Reseal { from: from.clone(), to: to.clone() }));
            for (answer, (.., to)) in join_all(asked).await.into_iter().zip(some) {
                match answer {
                    // One that was destroyed or replaced meanwhile is not.
                    Ok((record, _)) => keys.renewed += u64::from(sealed(&record) == Some(to)),
                    Err(problem) if problem.code == Code::NotFound => {}
                    Err(problem) if problem.code == Code::Unavailable => return Err(problem),
                    Err(_) => keys.left += 1,
                }
            }
        }
        Ok(())
    }
}

fn sealed(record: &Record) -> Option<&Sealed> {
    record.luks_key.as_ref().and_then(|key| key.sealed.as_ref())
}
