//! Where a test's store lies.

use std::path::PathBuf;

use e2e::{Lab, Postgres};
use orchestrator::store::{self, Location, Shared};

/// Where a test's store lies.
pub enum Bed {
    Sqlite(Lab),
    Postgres(Box<Postgres>),
}

impl Bed {
    pub fn sqlite() -> Self {
        Bed::Sqlite(Lab::new())
    }

    pub fn postgres() -> Self {
        Bed::Postgres(Box::default())
    }

    /// Runs a test on two threads.
    pub fn run(self, test: impl AsyncFnOnce(&Bed)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test(&self));
    }

    pub fn name(&self) -> &'static str {
        match self {
            Bed::Sqlite(_) => "SQLite",
            Bed::Postgres(_) => "PostgreSQL",
        }
    }

    pub fn file(&self) -> PathBuf {
        match self {
            Bed::Sqlite(lab) => lab.path("runs.sqlite"),
            Bed::Postgres(_) => panic!("PostgreSQL has no file"),
        }
    }

    /// As it stands in a configuration.
    pub fn place(&self) -> String {
        match self {
            Bed::Sqlite(_) => self.file().display().to_string(),
            Bed::Postgres(server) => server.url(),
        }
    }

    pub fn location(&self) -> Location {
        Location::parse(&self.place()).unwrap()
    }

    pub async fn open(&self) -> Shared {
        store::open(&self.location()).await.unwrap()
    }

    /// Executes SQL past the store.
    pub async fn sql(&self, sql: &'static str) {
        use sqlx::{Connection, Executor};
        sqlx::any::install_default_drivers();
        let url = match self {
            Bed::Sqlite(_) => format!("sqlite:{}?mode=rwc", self.place()),
            Bed::Postgres(_) => self.place(),
        };
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::raw_sql(sql)).await.unwrap();
        connection.close().await.unwrap();
    }
}
