//! The connections that read: as many as read at once, a few at most.

use std::sync::{Mutex, PoisonError};

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tokio::sync::Semaphore;

use super::StoreError;
use super::dialect::Role;
use super::link::Link;
use super::statement::Statement;

/// Most connections that read.
const MOST: usize = 4;

/// Connections that read. One whose answer was not waited for, or was an error, is closed.
pub(super) struct Readers {
    turns: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Readers { turns: Semaphore::new(MOST), idle: Mutex::default() }
    }

    /// All rows that it has.
    pub(super) async fn fetch(&self, link: &Link, statement: &Statement) -> Result<Vec<AnyRow>, StoreError> {
        let _turn = self.turns.acquire().await.map_err(|_| link.unavailable("it is closed"))?;
        let kept = self.idle().pop();
        if let Some(mut connection) = kept {
            match statement.query().fetch_all(&mut connection).await {
                Ok(rows) => return Ok(self.keep(connection, rows)),
                // The server may have been away since it was last used. Those that are kept besides it have died with it, then.
                Err(_) if link.dialect.grows_stale() => self.idle().clear(),
                Err(error) => return Err(link.explain(&error)),
            }
        }
        let mut connection = link.connect(Role::Reader).await?;
        let rows = statement.query().fetch_all(&mut connection).await.map_err(|error| link.explain(&error))?;
        Ok(self.keep(connection, rows))
    }

    fn keep<T>(&self, connection: AnyConnection, rows: T) -> T {
        self.idle().push(connection);
        rows
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
