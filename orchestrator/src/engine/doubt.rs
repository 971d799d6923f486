//! A store that does not answer, or has been taken over: what happened to a batch is found out before anything else is decided.

use std::time::Duration;

use protocol::control::problem::{Code, Problem};
use tokio_util::sync::CancellationToken;

use super::asks::{Ask, Batch};
use super::fleet::Fleet;
use super::task::Task;
use crate::model::State;
use crate::store::StoreError;

/// How often it is looked whether the store is still this service's, while nothing is stored.
const STILL_OURS: Duration = Duration::from_secs(5);
/// Between two looks at a store that does not answer.
const PAUSE: Duration = Duration::from_millis(250);

impl Task {
    /// A service that stores nothing would not notice that another has taken over, and go on granting leases.
    pub(super) async fn see_whose_store_it_is(&mut self) -> Result<(), StoreError> {
        if self.stored.elapsed() < STILL_OURS {
            return Ok(());
        }
        self.stored = tokio::time::Instant::now();
        match self.engine.0.store.commit(self.generation, &[]).await {
            Err(StoreError::Superseded) => Err(StoreError::Superseded),
            // One that is away is nobody's.
            _ => Ok(()),
        }
    }

    /// Whether a batch was stored after all. Until that is known nothing is decided.
    pub(super) async fn find_out(
        &mut self,
        mut batch: Batch,
        error: &StoreError,
        cancel: &CancellationToken,
    ) -> Result<(), StoreError> {
        // Whoever waits is told now; the same request again finds out what came of this one.
        for reply in batch.replies.drain(..) {
            reply.send_problem(super::problem(error));
        }
        let Some(run) = batch.changes.first().map(|change| change.record.run.clone()) else { return Ok(()) };
        let versions = batch.changes.iter().filter(|change| change.record.run == run);
        let versions: Vec<i64> = versions.map(|change| change.record.version).collect();
        loop {
            if cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return Ok(());
            }
            self.put_off();
            // The store answers only when it knows what has become of it.
            let Ok(stored) = self.engine.0.store.run(&run).await else { continue };
            let stored = stored.map_or(0, |stored| stored.version);
            if versions.last() == Some(&stored) {
                tracing::info!("the store answers again, and had stored it");
                self.conclude(batch);
            } else if versions.first().is_some_and(|first| stored < *first) {
                tracing::info!("the store answers again, and had not stored it");
                self.take_back(batch, error);
            } else {
                return Err(StoreError::Superseded);
            }
            return Ok(());
        }
    }

    /// While nothing can be decided: clients are told so, and our own inputs wait.
    fn put_off(&mut self) {
        let away = || Problem::new(Code::Unavailable, "the store does not answer").retry_after(2);
        while let Ok(ask) = self.asked.try_recv() {
            match ask {
                Ask::Input { run, input, reply: None } => self.owed.push((run, *input)),
                Ask::Input { reply: Some(reply), .. } => drop(reply.send(Err(away()))),
                Ask::Create { reply, .. } => drop(reply.send(Err(away()))),
                // What the fleet says of it may not be stored: without an answer it is asked again.
                Ask::Find { .. } | Ask::Prune(_) => {}
            }
        }
    }

    /// What is stored is what counts.
    pub(super) async fn read_again(&mut self, cancel: &CancellationToken) {
        loop {
            match self.engine.0.store.open_runs().await {
                Ok(records) => {
                    self.engine.0.published.forget_others(&records);
                    for record in &records {
                        self.engine.0.published.show(record, &self.engine.0.settings);
                    }
                    // What was on its way to be killed may have been forgotten with the batch.
                    for record in records.iter().filter(|record| record.state == State::Lost) {
                        self.launching.go_on(record);
                    }
                    self.fleet = Fleet::new(records);
                    return;
                }
                Err(error) => tracing::warn!(%error, "reading the runs again"),
            }
            if cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}
