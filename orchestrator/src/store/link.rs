//! How a database is reached, and what its errors mean.

use std::future::Future;
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions as _, Executor as _};

use super::dialect::{Dialect, Meaning, Role};
use super::{Location, StoreError};

/// How long anything may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// A database.
pub(super) struct Link {
    pub(super) dialect: Dialect,
    /// As it is shown.
    place: String,
    options: AnyConnectOptions,
}

impl Link {
    pub(super) fn new(at: &Location) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let dialect = match at {
            Location::File(_) => Dialect::Sqlite,
            Location::Postgres(_) => Dialect::Postgres,
        };
        let place = at.to_string();
        let unusable = |why: String| StoreError::Unavailable(format!("{place}: {why}: name it otherwise"));
        let url = at.url().map_err(unusable)?;
        let options = url.parse().map_err(|error: sqlx::Error| unusable(error.to_string()))?;
        Ok(Link { dialect, place, options })
    }

    /// A new connection.
    pub(super) async fn connect(&self, role: Role) -> Result<AnyConnection, StoreError> {
        let mut options = self.options.clone();
        if role != Role::Founder && self.dialect == Dialect::Sqlite {
            // A file that has vanished is not to be replaced by an empty one.
            options.database_url.set_query(Some("mode=rw"));
        }
        let mut connection = options.connect().await.map_err(|error| self.explain(&error))?;
        self.tell(&mut connection, self.dialect.greeting(role)).await?;
        Ok(connection)
    }

    /// Executes statements that have no values.
    pub(super) async fn tell(&self, connection: &mut AnyConnection, sql: &'static str) -> Result<(), StoreError> {
        connection.execute(sqlx::raw_sql(sql)).await.map(drop).map_err(|error| self.explain(&error))
    }

    /// Bounds it in time.
    pub(super) async fn bounded<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let advice = self.dialect.advice_on_silence();
            Err(self.unavailable(&format!("no answer for {} seconds: {advice}", limit.as_secs())))
        })
    }

    pub(super) fn unavailable(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {why}", self.place))
    }

    pub(super) fn corrupt(&self, why: &str) -> StoreError {
        StoreError::Corrupt(format!("{}: {why}", self.place))
    }

    /// What an error means.
    pub(super) fn explain(&self, error: &sqlx::Error) -> StoreError {
        use sqlx::Error as E;
        match error {
            E::Database(said) => {
                let meaning = said.code().map(|code| self.dialect.meaning(&code));
                meaning.unwrap_or(Meaning::Unavailable("it is tried again")).error(&self.place, said.message())
            }
            E::ColumnDecode { .. } | E::Decode(_) | E::ColumnNotFound(_) | E::AnyDriverError(_) | E::RowNotFound => {
                self.corrupt(&error.to_string())
            }
            E::Encode(_) | E::InvalidArgument(_) => StoreError::Conflict(error.to_string()),
            E::Configuration(_) => self.unavailable(&format!("{error}: name it otherwise")),
            E::Tls(_) => self.unavailable(&format!("{error}: look at sslmode and sslrootcert of its URL")),
            _ => self.unavailable(&format!("{error}: {}", self.dialect.advice_on_silence())),
        }
    }
}
