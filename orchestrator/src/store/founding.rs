//! Makes a database ours: an empty one gets its tables, one of an older version what has been added since, and any other is refused
//! untouched.

use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use super::StoreError;
use super::dialect::Role;
use super::link::{LIMIT, Link};
use super::statement::Statement;

/// What each version has added. Entries are never changed, only appended.
const SCHEMA: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];
/// What we write into the database to know it again.
const MAKER: &str = "z-orchestrator";
/// How long that may take in a large database.
const PATIENCE: Duration = Duration::from_secs(600);

/// Makes it ours, in one transaction.
pub(super) async fn found(link: &Link) -> Result<(), StoreError> {
    let mut connection = link.bounded(LIMIT, link.connect(Role::Founder)).await?;
    link.bounded(PATIENCE, async {
        link.tell(&mut connection, link.dialect.begin(Role::Founder)).await?;
        let version = version(link, &mut connection).await?;
        for sql in SCHEMA.iter().skip(version) {
            let sql = AssertSqlSafe(link.dialect.schema(sql));
            connection.execute(sqlx::raw_sql(sql)).await.map_err(|error| link.explain(&error))?;
        }
        if version < SCHEMA.len() {
            let now = i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX);
            let update = Statement::new("UPDATE service SET version = ").with("", now);
            update.query().execute(&mut connection).await.map_err(|error| link.explain(&error))?;
        }
        link.tell(&mut connection, "COMMIT").await
    })
    .await?;
    link.bounded(LIMIT, durable(link)).await
}

/// The version that it has; 0 where it is empty.
async fn version(link: &Link, connection: &mut AnyConnection) -> Result<usize, StoreError> {
    let stranger = || link.corrupt("this database is not one of z-orchestrator: give it one of its own");
    let tables = Statement::new(link.dialect.tables()).query().fetch_all(&mut *connection).await;
    let tables = tables.map_err(|error| link.explain(&error))?;
    if tables.is_empty() {
        return Ok(0);
    }
    let names: Result<Vec<String>, _> = tables.iter().map(|row| row.try_get(0)).collect();
    if !names.map_err(|error| link.explain(&error))?.iter().any(|name| name == "service") {
        return Err(stranger());
    }
    let ours = Statement::new("SELECT version FROM service WHERE maker = ").with("", MAKER);
    let row = match ours.query().fetch_optional(connection).await {
        Ok(Some(row)) => row,
        // Another's table may have that name.
        Ok(None) | Err(sqlx::Error::Database(_)) => return Err(stranger()),
        Err(error) => return Err(link.explain(&error)),
    };
    let version: i64 = row.try_get(0).map_err(|error| link.explain(&error))?;
    match usize::try_from(version) {
        Ok(version) if version <= SCHEMA.len() => Ok(version),
        _ => Err(link.corrupt(&format!(
            "this database has version {version}, this program knows {}: start the program that it was last used with, or a later one",
            SCHEMA.len()
        ))),
    }
}

/// Whether a commit that is acknowledged will be on disk.
async fn durable(link: &Link) -> Result<(), StoreError> {
    let Some((question, answer)) = link.dialect.durability() else { return Ok(()) };
    // SQLite does not wait for a lock here: whoever switches the journal at the same time is asked again in a moment.
    let mut connection = loop {
        match link.connect(Role::Writer).await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            connected => break connected?,
        }
    };
    let row = Statement::new(question).query().fetch_one(&mut connection).await;
    let said: String = row.and_then(|row| row.try_get(0)).map_err(|error| link.explain(&error))?;
    if said == answer {
        return Ok(());
    }
    Err(link.unavailable(&format!("its journal is {said:?} instead of {answer:?}: put it on a local file system")))
}
