//! The one connection that writes, and how what it left in doubt is settled.
//!
//! Each transaction first changes the one row of `service` (SQLite: takes the one lock). From then until it has ended on the server's
//! side nobody else comes so far. So whoever has come so far knows that all transactions before his have ended, and how: also one whose
//! COMMIT was sent and never answered.

use std::sync::atomic::{AtomicBool, Ordering};

use protocol::RunId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::sync::Mutex;

use super::batch::Batch;
use super::dialect::Role;
use super::link::Link;
use super::prune::prune;
use super::statement::Statement;
use super::{Generation, StoreError};
use crate::model::Record;

/// The connection that writes. It is closed when anything about its transaction is unclear, which ends that transaction.
pub(super) struct Writer {
    connection: Mutex<Option<AnyConnection>>,
    /// A transaction of ours may still be going on, without us.
    doubt: AtomicBool,
}

/// What is to be written.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// The next generation.
    TakeOver,
    /// A batch, by the service of this generation.
    Commit(Generation, &'a Batch),
    /// These runs of these versions are removed, by the service of this generation.
    Prune(Generation, &'a [(RunId, i64)]),
    /// Nothing: earlier transactions are waited for.
    Settle,
}

/// Leaves the doubt behind when it is dropped, unless the transaction has ended before.
struct Underway<'a> {
    doubt: &'a AtomicBool,
    ended: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.doubt.store(true, Ordering::SeqCst);
        }
    }
}

impl Writer {
    pub(super) fn new() -> Self {
        Writer { connection: Mutex::new(None), doubt: AtomicBool::new(false) }
    }

    /// Returns when what was committed can be read, and nothing else is still to come. To be called before reading.
    pub(super) async fn settled(&self, link: &Link) -> Result<(), StoreError> {
        if self.doubt.load(Ordering::SeqCst) {
            self.write(link, Work::Settle).await?;
        }
        Ok(())
    }

    /// Writes, in one transaction. Returns the generation; of what is removed, how many runs are left.
    pub(super) async fn write(&self, link: &Link, work: Work<'_>) -> Result<i64, StoreError> {
        let mut slot = self.connection.lock().await;
        let mut connection = begun(link, slot.take()).await?;
        // Dropped before the connection and the lock: nobody gets in between.
        let mut underway = Underway { doubt: &self.doubt, ended: false };
        let first = work.first(link, &mut connection).await;
        let came_so_far = first.is_ok();
        let done = match first {
            Ok(service) => work.rest(link, &mut connection, service).await,
            Err(error) => Err(error),
        };
        let commit = done.is_ok() && !matches!(work, Work::Settle);
        let end = if commit { link.dialect.commit() } else { "ROLLBACK" };
        match link.tell(&mut connection, end).await {
            Ok(()) => {
                underway.ended = true;
                if came_so_far {
                    self.doubt.store(false, Ordering::SeqCst);
                }
                // A server that takes no writes may be the wrong one by now: the next call connects anew.
                *slot = Some(connection).filter(|_| !matches!(done, Err(StoreError::Unavailable(_))));
                done
            }
            Err(error) => Err(done.err().unwrap_or(error)),
        }
    }
}

/// A connection inside of a transaction.
async fn begun(link: &Link, kept: Option<AnyConnection>) -> Result<AnyConnection, StoreError> {
    let begin = link.dialect.begin(Role::Writer);
    if let Some(mut connection) = kept {
        match link.tell(&mut connection, begin).await {
            Ok(()) => return Ok(connection),
            // The server may have been away since it was last used.
            Err(_) if link.dialect.grows_stale() => {}
            Err(error) => return Err(error),
        }
    }
    let mut connection = link.connect(Role::Writer).await?;
    link.tell(&mut connection, begin).await?;
    Ok(connection)
}

/// The row of `service`, as the transaction has left it.
#[derive(Clone, Copy)]
struct Service {
    generation: i64,
    told: i64,
}

impl Work<'_> {
    /// Changes the row of `service`, if only so that everybody else waits.
    async fn first(self, link: &Link, connection: &mut AnyConnection) -> Result<Service, StoreError> {
        let update = match self {
            Work::TakeOver => Statement::new("UPDATE service SET generation = generation + 1"),
            Work::Settle => Statement::new("UPDATE service SET told = told"),
            Work::Commit(Generation(by), batch) => Statement::new("UPDATE service SET told = told + ")
                .with("", batch.told())
                .with(" WHERE generation = ", by),
            Work::Prune(Generation(by), _) => {
                Statement::new("UPDATE service SET told = told").with(" WHERE generation = ", by)
            }
        };
        let rows = update.then(" RETURNING generation, told").query().fetch_all(connection).await;
        let rows = rows.map_err(|error| link.explain(&error))?;
        let number = |row: &AnyRow, column: usize| row.try_get(column).map_err(|error| link.explain(&error));
        match (rows.first(), self) {
            (Some(row), _) => Ok(Service { generation: number(row, 0)?, told: number(row, 1)? }),
            (None, Work::Commit(..) | Work::Prune(..)) => Err(StoreError::Superseded),
            (None, _) => Err(link.corrupt("its table `service` is empty")),
        }
    }

    async fn rest(self, link: &Link, connection: &mut AnyConnection, service: Service) -> Result<i64, StoreError> {
        match self {
            Work::Commit(_, batch) => batch.write(link, connection, service.told).await?,
            Work::Prune(_, runs) => return prune(link, connection, runs).await,
            Work::TakeOver | Work::Settle => {}
        }
        Ok(service.generation)
    }
}

impl Batch {
    /// `last`: the place of what is told last.
    async fn write(&self, link: &Link, connection: &mut AnyConnection, last: i64) -> Result<(), StoreError> {
        for (statement, records) in self.of_runs() {
            let done = statement.query().execute(&mut *connection).await.map_err(|error| link.explain(&error))?;
            if done.rows_affected() != records.len() as u64 {
                return Err(StoreError::Conflict(changed_by_another(&records)));
            }
        }
        for statement in self.of_told(last) {
            statement.query().execute(&mut *connection).await.map_err(|error| link.explain(&error))?;
        }
        for statement in self.of_places() {
            statement.query().execute(&mut *connection).await.map_err(|error| link.explain(&error))?;
        }
        Ok(())
    }
}

fn changed_by_another(records: &[&Record]) -> String {
    let runs: Vec<&str> = records.iter().map(|record| record.run.as_str()).collect();
    match runs[..] {
        [run] => format!("run {run} was changed by another, or does not exist"),
        _ => format!("one of these runs was changed by another, or does not exist: {}", runs.join(", ")),
    }
}
