//! How runs are removed: what was told of them first, since it refers to them, and of that only so much at once that nobody waits for long.
//! Several go as a whole or not at all: one that is wanted again in between has lost nothing.

use protocol::RunId;
use sqlx::{AnyConnection, Row as _};

use super::StoreError;
use super::batch::pieces;
use super::link::Link;
use super::statement::Statement;

/// Most of what was told that one transaction removes.
const MOST: u64 = 1024;

/// Removes them, inside of a transaction that nobody else's can come between. Returns how many are left: all, or none.
pub(super) async fn prune(
    link: &Link,
    connection: &mut AnyConnection,
    runs: &[(RunId, i64)],
) -> Result<i64, StoreError> {
    let mut all = 0;
    for piece in pieces(runs) {
        must_be(link, connection, piece).await?;
        all += told_of(link, connection, piece).await?;
    }
    if runs.len() > 1 && all > i64::try_from(MOST).unwrap_or(i64::MAX) {
        return Ok(i64::try_from(runs.len()).unwrap_or(i64::MAX));
    }
    let mut room = MOST;
    for piece in pieces(runs) {
        // SQLite cannot bound a DELETE by itself.
        let told = named(Statement::new("DELETE FROM told WHERE seq IN (SELECT seq FROM told WHERE run IN ("), piece)
            .with(") LIMIT ", i64::try_from(room).unwrap_or(i64::MAX))
            .then(")");
        let done = told.query().execute(&mut *connection).await.map_err(|error| link.explain(&error))?;
        room = room.saturating_sub(done.rows_affected());
        if room == 0 {
            return Ok(i64::try_from(runs.len()).unwrap_or(i64::MAX));
        }
    }
    for piece in pieces(runs) {
        let gone = named(Statement::new("DELETE FROM runs WHERE run IN ("), piece).then(")");
        gone.query().execute(&mut *connection).await.map_err(|error| link.explain(&error))?;
    }
    Ok(0)
}

/// How much was told of them.
async fn told_of(link: &Link, connection: &mut AnyConnection, runs: &[(RunId, i64)]) -> Result<i64, StoreError> {
    let count = named(Statement::new("SELECT COUNT(*) FROM told WHERE run IN ("), runs).then(")");
    let counted = count.query().fetch_one(connection).await.map_err(|error| link.explain(&error))?;
    counted.try_get(0).map_err(|error| link.explain(&error))
}

/// They are as they were when it was decided to remove them.
async fn must_be(link: &Link, connection: &mut AnyConnection, runs: &[(RunId, i64)]) -> Result<(), StoreError> {
    let over = "SELECT run, version FROM runs WHERE state IN ('succeeded', 'failed', 'cancelled') AND run IN (";
    let there = named(Statement::new(over), runs).then(")").query().fetch_all(connection).await;
    let there = there.map_err(|error| link.explain(&error))?;
    let there: Result<Vec<(String, i64)>, _> = there.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let there = there.map_err(|error| link.explain(&error))?;
    let is_there =
        |(run, version): &&(RunId, i64)| there.iter().any(|(stored, of)| stored == run.as_str() && of == version);
    match runs.iter().find(|run| !is_there(run)) {
        None => Ok(()),
        Some((run, version)) => Err(StoreError::Conflict(format!(
            "run {run}, version {version}, is not removed: it was changed, is not over, or does not exist"
        ))),
    }
}

/// Goes on with the names of runs.
fn named(statement: Statement, runs: &[(RunId, i64)]) -> Statement {
    let mut between = "";
    runs.iter()
        .fold(statement, |statement, (run, _)| statement.with(std::mem::replace(&mut between, ", "), run.as_str()))
}
