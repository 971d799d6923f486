//! Keys that are kept elsewhere and are nobody's: they are destroyed there, one after the other, for as long as that takes.
//!
//! The list of them is the store's ([`Store::reserved`](crate::store::Store::reserved)): a service that is killed goes on with it when it is
//! started again. A key is taken off the list once whoever keeps it has confirmed that nothing is left of it.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::RunId;
use protocol::control::problem::Problem;
use tokio::sync::mpsc;

use super::keeper::KeeperError;
use super::{Engine, problem};
use crate::model::{Input, Sealed};

/// A key, and the run that it was made for.
type Nobodys = (RunId, Sealed);
/// Who has found such a key.
pub(super) type Sender = mpsc::UnboundedSender<Nobodys>;

/// First pause after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest one.
const MOST: Duration = Duration::from_secs(30);

/// Until the engine has ended.
pub(super) async fn run(engine: Engine, found: Vec<Nobodys>, mut more: mpsc::UnboundedReceiver<Nobodys>) {
    let asks = engine.0.asks.clone();
    tokio::select! {
        () = asks.closed() => {}
        () = erase_all(&engine, found.into(), &mut more) => {}
    }
}

async fn erase_all(engine: &Engine, mut waiting: VecDeque<Nobodys>, more: &mut mpsc::UnboundedReceiver<Nobodys>) {
    let mut pause = FIRST;
    loop {
        while let Ok(another) = more.try_recv() {
            // One may be found twice.
            if !waiting.contains(&another) {
                waiting.push_back(another);
            }
        }
        engine.0.settings.metrics.to_erase(waiting.len());
        let Some((run, sealed)) = waiting.pop_front() else {
            let Some(another) = more.recv().await else { return };
            waiting.push_back(another);
            continue;
        };
        match erase(engine, &run, &sealed).await {
            Ok(()) => pause = FIRST,
            Err(Failed { what, hint }) => {
                let left = waiting.len() + 1;
                tracing::error!(%run, hint, left, "a key that is nobody's any more is not destroyed yet: {what}");
                // The next one is tried first then: one that never goes keeps no other back.
                waiting.push_back((run, sealed));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MOST);
            }
        }
    }
}

/// Why it is tried again.
struct Failed {
    what: String,
    hint: String,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Failed { what: problem.detail, hint: problem.hint.unwrap_or_default() }
    }
}

impl From<KeeperError> for Failed {
    fn from(error: KeeperError) -> Self {
        Failed { what: error.what, hint: error.hint }
    }
}

/// Each step can be done again: whatever failed or was not answered is done from the beginning.
async fn erase(engine: &Engine, run: &RunId, sealed: &Sealed) -> Result<(), Failed> {
    let (store, keeper) = (&engine.0.store, &engine.0.settings.keeper);
    let record = store.run(run).await.map_err(|error| problem(&error))?;
    // It was about to be made when a service was killed, and is the run's by now.
    if !record.as_ref().is_some_and(|record| record.sealed() == Some(sealed)) {
        keeper.destroy(run, sealed).await?;
    }
    if record.is_some_and(|record| record.remains.contains(sealed)) {
        engine.input(run, Input::KeyErased { sealed: sealed.clone() }).await?;
    }
    store.release(engine.0.generation, sealed).await.map_err(|error| problem(&error))?;
    Ok(())
}
