//! What was acknowledged is there, whatever happens to the process or the server right afterwards.

use std::io::Write as _;

use e2e::{Postgres, Run, Running};
use orchestrator::model::State;
use orchestrator::store::{self, Location};

use crate::bed::Bed;
use crate::sample::{change, next, record};

/// Names the store that the child writes to.
const CHILD: &str = "Z_STORE_OF_CHILD";
/// Runs of each commit.
const RUNS: i64 = 5;

/// Not a test of its own: the process that [`killed`] kills. It raises the versions of all runs with each commit, and says which was
/// acknowledged.
#[test]
#[ignore = "the process that others kill"]
fn child() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store::open(&Location::parse(&place).unwrap()).await.unwrap();
        let by = store.take_over().await.unwrap();
        let mut records = store.open_runs().await.unwrap();
        records = match records.is_empty() {
            true => (1..=RUNS).map(record).collect(),
            false => records.iter().map(|record| next(record, State::Queued)).collect(),
        };
        loop {
            if store.commit(by, &records.iter().map(change).collect::<Vec<_>>()).await.is_err() {
                return;
            }
            // Not through `print!`, which the test harness may hold back.
            let acknowledged = format!("acknowledged {}.\n", records[0].version);
            std::io::stderr().write_all(acknowledged.as_bytes()).unwrap();
            records = records.iter().map(|record| next(record, State::Queued)).collect();
        }
    });
}

fn start(place: &str) -> Running {
    let this = std::env::current_exe().unwrap();
    let child = Run::program(&this).words("--exact crashes::child --ignored --nocapture");
    child.env(CHILD, place).start()
}

fn acknowledged(said: &str) -> i64 {
    let last = said.rsplit_once('.').and_then(|(whole, _)| whole.rsplit_once("acknowledged "));
    last.map_or(0, |(_, version)| version.parse().unwrap())
}

/// At least what was acknowledged, at most one commit more, and all of a commit or nothing.
fn holds(place: &str, acknowledged: i64) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store::open(&Location::parse(place).unwrap()).await.unwrap();
        // As a service does before it reads: the server may still be about to carry out what it received before the kill.
        store.take_over().await.unwrap();
        let versions: Vec<i64> = store.open_runs().await.unwrap().iter().map(|record| record.version).collect();
        let version = versions.first().copied().unwrap_or(0);
        assert!(versions.iter().all(|other| *other == version), "half a commit: {versions:?}");
        assert!(
            version == acknowledged || version == acknowledged + 1,
            "{acknowledged} was acknowledged, {version} is there"
        );
        assert_eq!(store.last_told().await, Ok(version * RUNS));
        assert_eq!(store.told(0, None, 100_000).await.unwrap().len() as i64, version * RUNS);
        version
    })
}

/// Kills it again and again, soon after it has begun, and each time at another moment.
fn killed(place: &str) {
    let mut before = 0;
    for round in 0..12 {
        let mut child = start(place);
        child.until("commits", |child| acknowledged(&child.stderr()) > before + round % 4 * 7);
        child.signal(nix::sys::signal::Signal::SIGKILL);
        let said = child.finish().stderr;
        before = holds(place, acknowledged(&said).max(before));
    }
}

#[test]
fn a_process_that_is_killed_loses_nothing_in_sqlite() {
    killed(&Bed::sqlite().place());
}

#[test]
fn a_process_that_is_killed_loses_nothing_in_postgres() {
    let server = Postgres::durable();
    killed(&server.url());
}

#[test]
fn a_server_that_crashes_loses_nothing() {
    let mut server = Postgres::durable();
    // Set up to acknowledge what it has not written: the store does not accept that.
    server.sql("ALTER SYSTEM SET synchronous_commit = off");
    server.sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    server.sql("SELECT pg_reload_conf()");
    let mut before = 0;
    for _ in 0..4 {
        let mut child = start(&server.url());
        child.until("commits", |child| acknowledged(&child.stderr()) > before + 20);
        server.crash();
        let said = child.finish().stderr;
        server.go();
        before = holds(&server.url(), acknowledged(&said).max(before));
    }
}
