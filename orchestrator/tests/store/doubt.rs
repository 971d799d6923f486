//! Whoever does not know how his commit ended reads, and what he reads is final.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use e2e::Postgres;
use orchestrator::model::{Record, State};
use orchestrator::store::{self, Generation, Location, Shared, StoreError};
use protocol::RunId;

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, record, run};

on_both!(a_commit_that_is_dropped_in_the_middle_happens_or_does_not);

async fn version(store: &Shared, run: &RunId) -> i64 {
    store.run(run).await.unwrap().map_or(0, |run| run.version)
}

/// Polls a future so many times and drops it: while what it then waits for is still going on, or once that is over. `None` when it
/// was dropped.
async fn polled<T>(times: u32, once_over: bool, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left == 0 && !once_over => Poll::Ready(None),
            polled => polled.map(Some),
        }
    })
    .await
}

/// Each of a commit's steps is the last one several times, until the commit ends before it is dropped.
async fn a_commit_that_is_dropped_in_the_middle_happens_or_does_not(bed: &Bed) {
    const ROUNDS: u32 = 6;
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let mut current = record(1);
    store.commit(by, &[change(&current)]).await.unwrap();
    let (mut happened, mut not) = (0, 0);
    for times in 0.. {
        let mut acknowledged = 0;
        for round in 0..ROUNDS {
            let changed = next(&current, State::Queued);
            let changes = [change(&changed)];
            // So that it has a connection, which takes a thousand steps to make.
            store.commit(by, &[]).await.unwrap();
            let ended = polled(times, round % 2 == 0, store.commit(by, &changes)).await;
            let read = version(&store, &run(1)).await;
            match ended {
                Some(result) => {
                    assert_eq!((result, read), (Ok(()), changed.version));
                    acknowledged += 1;
                }
                None if read == changed.version => happened += 1,
                None => {
                    assert_eq!(read, current.version);
                    not += 1;
                }
            }
            if round == 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert_eq!(version(&store, &run(1)).await, read, "what was read is final");
            }
            if read == changed.version {
                current = changed;
            }
        }
        if acknowledged == ROUNDS {
            break;
        }
        assert!(times < 1000, "a commit never ends");
    }
    println!("{}: of those dropped {happened} happened, {not} did not", bed.name());
    assert!(not > 0);
    assert_eq!(store.last_told().await, Ok(current.version), "told once for each version");
    store.commit(by, &[change(&next(&current, State::Queued))]).await.unwrap();
}

#[test]
fn a_file_that_another_process_holds_is_read_and_said_to_be_held() {
    Bed::sqlite().run(async |bed| {
        use sqlx::{Connection as _, Executor as _};
        let store = bed.open().await;
        let by = store.take_over().await.unwrap();
        store.commit(by, &[change(&record(1))]).await.unwrap();
        let mut another = sqlx::AnyConnection::connect(&format!("sqlite:{}", bed.place())).await.unwrap();
        another.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();
        let changes = [change(&next(&record(1), State::Queued))];
        let began = Instant::now();
        let text = unavailable(store.commit(by, &changes).await);
        assert!(text.contains("locked") && text.contains("another process holds the file"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(version(&store, &run(1)).await, 1);
        another.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
        store.commit(by, &changes).await.unwrap();
    });
}

/// A server of its own, with a run in it, and how its store's backend that writes is found.
struct Scene {
    server: Postgres,
    store: Shared,
    by: Generation,
    current: Record,
}

impl Scene {
    async fn new() -> Self {
        let server = Postgres::new();
        let location = Location::parse(&server.url()).unwrap();
        let store = store::open(&location).await.unwrap();
        let by = store.take_over().await.unwrap();
        let current = record(1);
        store.commit(by, &[change(&current)]).await.unwrap();
        Scene { server, store, by, current }
    }

    /// The process of the server that serves the writer.
    fn writer(&self) -> String {
        self.server.sql("SELECT pid FROM pg_stat_activity WHERE query LIKE '%; COMMIT' AND pid <> pg_backend_pid()")
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        let changed = next(&self.current, State::Queued);
        self.store.commit(self.by, &[change(&changed)]).await?;
        self.current = changed;
        Ok(())
    }
}

fn on_one_thread(test: impl AsyncFnOnce()) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
}

#[track_caller]
fn unavailable(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_was_away_is_found_again_by_the_next_call() {
    on_one_thread(async || {
        let mut scene = Scene::new().await;
        for crash in [false, true] {
            if crash {
                scene.server.crash()
            } else {
                scene.server.stop()
            }
            let began = Instant::now();
            let text = unavailable(scene.commit().await);
            assert!(text.contains("refused") && text.contains("look whether PostgreSQL runs there"), "{text}");
            unavailable(scene.store.ping().await);
            unavailable(scene.store.run(&run(1)).await.map(drop));
            assert!(began.elapsed() < Duration::from_secs(5));
            scene.server.go();
            assert_eq!(scene.store.run(&run(1)).await, Ok(Some(scene.current.clone())));
            scene.commit().await.unwrap();
            // Between two calls, the store notices nothing.
            if crash {
                scene.server.crash()
            } else {
                scene.server.stop()
            }
            scene.server.go();
            scene.commit().await.unwrap();
            assert_eq!(scene.store.run(&run(1)).await, Ok(Some(scene.current.clone())));
        }
    });
}

#[test]
fn a_connection_that_is_terminated_costs_at_most_one_call() {
    on_one_thread(async || {
        let mut scene = Scene::new().await;
        assert_eq!(scene.server.sql(&format!("SELECT pg_terminate_backend({})", scene.writer())), "t");
        scene.commit().await.unwrap();

        // In the middle of a transaction: it waits for a lock that somebody else holds.
        let holder = holder(&scene.server, 3);
        let changed = next(&scene.current, State::Queued);
        let changes = [change(&changed)];
        let writer = scene.writer();
        let terminate = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let state = scene.server.sql(&format!("SELECT wait_event_type FROM pg_stat_activity WHERE pid = {writer}"));
            assert_eq!(state, "Lock", "the commit waits");
            scene.server.sql(&format!("SELECT pg_terminate_backend({writer})"));
        };
        let (result, ()) = tokio::join!(scene.store.commit(scene.by, &changes), terminate);
        unavailable(result);
        assert_eq!(version(&scene.store, &run(1)).await, scene.current.version);
        holder.finish().ok();
        scene.commit().await.unwrap();
    });
}

/// A client that holds the row of `service` for so many seconds.
fn holder(server: &Postgres, seconds: u32) -> e2e::Running {
    let hold = format!("SELECT * FROM service FOR UPDATE; SELECT 'held', pg_sleep({seconds})");
    let mut running = server.client().args(["-c", "BEGIN", "-c", &hold, "-c", "COMMIT"]).start();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    running.until("the holder's lock", |_| server.sql(held) == "1");
    running
}

#[test]
fn a_lock_that_another_holds_is_waited_for_and_no_longer_than_5_seconds() {
    on_one_thread(async || {
        let mut scene = Scene::new().await;
        let long = holder(&scene.server, 9);
        let began = Instant::now();
        let text = unavailable(scene.commit().await);
        assert!(began.elapsed() < Duration::from_millis(5500), "{:?}", began.elapsed());
        assert!(text.contains("another client holds a lock"), "{text}");
        // The lock is gone in time for the next.
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.commit().await.unwrap();
        long.finish().ok();
    });
}

/// The server has the commit and waits for a standby before it acknowledges it and shows it to others. When nobody waits for its
/// answer any more, it still happens.
#[test]
fn a_commit_that_happens_after_nobody_waited_for_it_is_waited_for_by_whoever_reads() {
    on_one_thread(async || {
        let mut scene = Scene::new().await;
        let waits_for = |standby: &str| {
            scene.server.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
            scene.server.sql("SELECT pg_reload_conf()");
        };
        waits_for("somebody");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let changed = next(&scene.current, State::Queued);
        let began = Instant::now();
        let text = unavailable(scene.store.commit(scene.by, &[change(&changed)]).await);
        assert!(began.elapsed() < Duration::from_millis(5500), "{:?}", began.elapsed());
        assert!(text.contains("no answer for 5 seconds"), "{text}");
        let seen = scene.server.sql("SELECT version FROM runs");
        assert_eq!(seen, scene.current.version.to_string(), "others see what was before");

        let text = unavailable(scene.store.run(&run(1)).await.map(drop));
        assert!(text.contains("another client holds a lock"), "{text}");
        let name = run(1);
        let standby_goes = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            waits_for("");
        };
        let (read, ()) = tokio::join!(scene.store.run(&name), standby_goes);
        assert_eq!(read, Ok(Some(changed.clone())), "the truth");
        scene.current = changed;
        scene.commit().await.unwrap();
        assert_eq!(scene.store.last_told().await, Ok(scene.current.version));
    });
}

#[test]
fn a_server_that_stands_still_is_waited_for_no_longer_than_5_seconds() {
    on_one_thread(async || {
        let mut scene = Scene::new().await;
        let writer = scene.writer();
        let signal = |signal: &str| e2e::Run::tool("kill").args([signal, &writer]).done().ok();
        signal("-STOP");
        let began = Instant::now();
        unavailable(scene.commit().await);
        assert!(began.elapsed() < Duration::from_millis(5500), "{:?}", began.elapsed());
        // It goes on with what it has received: a transaction that began, and a client that is gone.
        signal("-CONT");
        let before = scene.current.clone();
        assert_eq!(scene.store.run(&run(1)).await, Ok(Some(before.clone())));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(scene.store.run(&run(1)).await, Ok(Some(before)));
        scene.commit().await.unwrap();
    });
}
