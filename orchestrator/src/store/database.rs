//! The store: what is read, and how; what is written is the writer's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use protocol::RunId;
use protocol::control::run::{Happening, What};
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{Decode, Row as _, Type};

use super::batch::Batch;
use super::founding::found;
use super::link::{LIMIT, Link};
use super::readers::Readers;
use super::statement::Statement;
use super::writer::{Work, Writer};
use super::{Change, Filter, Generation, Location, Shared, Store, StoreError, Told};
use crate::model::{Record, Sealed};

/// A database that is ours.
struct Database {
    link: Link,
    writer: Writer,
    readers: Readers,
}

/// Opens a store; one that does not exist yet is made.
///
/// # Errors
/// It cannot be reached, holds something else, or was made by a later version.
pub async fn open(at: &Location) -> Result<Shared, StoreError> {
    let link = Link::new(at)?;
    found(&link).await?;
    Ok(Arc::new(Database { link, writer: Writer::new(), readers: Readers::new() }))
}

impl Database {
    async fn read(&self, statement: Statement) -> Result<Vec<AnyRow>, StoreError> {
        let read = async {
            self.writer.settled(&self.link).await?;
            self.readers.fetch(&self.link, &statement).await
        };
        self.link.bounded(LIMIT, read).await
    }

    async fn write(&self, work: Work<'_>) -> Result<i64, StoreError> {
        self.link.bounded(LIMIT, self.writer.write(&self.link, work)).await
    }

    async fn records(&self, statement: Statement) -> Result<Vec<Record>, StoreError> {
        let rows = self.read(statement).await?;
        rows.iter().map(|row| self.decoded("a run's record", self.column(row, 0)?)).collect()
    }

    async fn number(&self, statement: &str) -> Result<i64, StoreError> {
        let rows = self.read(Statement::new(statement)).await?;
        rows.first().map_or_else(|| Err(self.link.corrupt("its table `service` is empty")), |row| self.column(row, 0))
    }

    fn column<'r, T>(&self, row: &'r AnyRow, column: usize) -> Result<T, StoreError>
    where
        T: Decode<'r, sqlx::Any> + Type<sqlx::Any>,
    {
        row.try_get(column).map_err(|error| self.link.explain(&error))
    }

    fn decoded<T: DeserializeOwned>(&self, what: &str, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| {
            let start: String = text.chars().take(80).collect();
            self.link.corrupt(&format!("{what} starting {start:?}: {error}"))
        })
    }

    fn run_id(&self, row: &AnyRow, column: usize) -> Result<RunId, StoreError> {
        let text = self.column::<String>(row, column)?;
        RunId::try_from(text).map_err(|error| self.link.corrupt(&error.to_string()))
    }

    fn told_by(&self, row: &AnyRow) -> Result<Told, StoreError> {
        let run = self.run_id(row, 1)?;
        let what: What = self.decoded("something told", self.column(row, 3)?)?;
        Ok(Told { seq: self.column(row, 0)?, happening: Happening { run, time: self.column(row, 2)?, what } })
    }
}

fn select(filter: &Filter, before: Option<i64>, limit: u32) -> Statement {
    let mut statement = Statement::new("SELECT record FROM runs WHERE seq < ").with("", before.unwrap_or(i64::MAX));
    let mut before_state = " AND state IN (";
    for state in &filter.states {
        statement = statement.with(std::mem::replace(&mut before_state, ", "), state.name());
    }
    if !filter.states.is_empty() {
        statement = statement.then(")");
    }
    let columns =
        [(" AND server = ", &filter.server), (" AND fabric = ", &filter.fabric), (" AND image = ", &filter.image)];
    for (column, value) in columns {
        if let Some(value) = value {
            statement = statement.with(column, value.as_str());
        }
    }
    statement.with(" ORDER BY seq DESC LIMIT ", i64::from(limit))
}

impl Store for Database {
    fn take_over(&self) -> BoxFuture<'_, Result<Generation, StoreError>> {
        Box::pin(async { self.write(Work::TakeOver).await.map(Generation) })
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        let sql = "SELECT record FROM runs WHERE state IN ('queued', 'launching', 'running', 'lost') ORDER BY seq";
        Box::pin(self.records(Statement::new(sql)))
    }

    fn last_seq(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(self.number("SELECT COALESCE(MAX(seq), 0) FROM runs"))
    }

    fn run<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let select = Statement::new("SELECT record FROM runs WHERE run = ").with("", run.as_str());
        Box::pin(async { Ok(self.records(select).await?.pop()) })
    }

    fn by_key<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let select = Statement::new("SELECT record FROM runs WHERE idempotency_key = ").with("", key);
        Box::pin(async { Ok(self.records(select).await?.pop()) })
    }

    fn list<'a>(
        &'a self,
        filter: &'a Filter,
        before: Option<i64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(self.records(select(filter, before, limit)))
    }

    fn commit<'a>(&'a self, by: Generation, changes: &'a [Change]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let batch = Batch::of(changes)?;
            self.write(Work::Commit(by, &batch)).await.map(drop)
        })
    }

    fn reserve<'a>(
        &'a self,
        by: Generation,
        run: &'a RunId,
        place: &'a Sealed,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.write(Work::Commit(by, &Batch::of_place(place, Some(run)))).await.map(drop) })
    }

    fn reserved(&self) -> BoxFuture<'_, Result<Vec<(RunId, Sealed)>, StoreError>> {
        Box::pin(async {
            let rows = self.read(Statement::new("SELECT run, place FROM elsewhere ORDER BY place")).await?;
            rows.iter().map(|row| Ok((self.run_id(row, 0)?, Sealed::at(&self.column::<String>(row, 1)?)))).collect()
        })
    }

    fn release<'a>(&'a self, by: Generation, place: &'a Sealed) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.write(Work::Commit(by, &Batch::of_place(place, None))).await.map(drop) })
    }

    fn prune<'a>(&'a self, by: Generation, runs: &'a [(RunId, i64)]) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { self.write(Work::Prune(by, runs)).await.map(|left| left == 0) })
    }

    fn told<'a>(
        &'a self,
        after: i64,
        run: Option<&'a RunId>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Told>, StoreError>> {
        let mut select = Statement::new("SELECT seq, run, time, what FROM told WHERE seq > ").with("", after);
        if let Some(run) = run {
            select = select.with(" AND run = ", run.as_str());
        }
        let select = select.with(" ORDER BY seq LIMIT ", i64::from(limit));
        Box::pin(async {
            let rows = self.read(select).await?;
            rows.iter().map(|row| self.told_by(row)).collect()
        })
    }

    fn last_told(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(self.number("SELECT told FROM service"))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { self.number("SELECT generation FROM service").await.map(drop) })
    }
}
