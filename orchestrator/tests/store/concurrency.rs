//! Many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::model::State;
use orchestrator::store::{Generation, StoreError};
use tokio::task::JoinSet;

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, record, run};

on_both!(
    many_tasks_commit_at_once,
    readers_never_see_half_a_commit,
    of_two_that_change_one_run_one_wins,
    a_race_of_take_overs_has_one_winner,
);

const TASKS: i64 = 32;

async fn many_tasks_commit_at_once(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for seq in task * 8 + 1..=task * 8 + 8 {
                store.commit(by, &[change(&record(seq))]).await.unwrap();
                store.commit(by, &[change(&next(&record(seq), State::Running))]).await.unwrap();
                assert_eq!(store.run(&run(seq)).await.unwrap().map(|run| run.version), Some(2));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let told: Vec<i64> = store.told(0, None, 10_000).await.unwrap().iter().map(|told| told.seq).collect();
    assert_eq!(told, (1..=TASKS * 16).collect::<Vec<_>>());
    assert_eq!(store.open_runs().await.unwrap().len(), TASKS as usize * 8);
}

/// Each commit raises the versions of all runs and tells of each. A reader that pages through what is told as watchers do misses
/// nothing; one that looks at all runs sees all of them at one version.
async fn readers_never_see_half_a_commit(bed: &Bed) {
    const RUNS: i64 = 20;
    const COMMITS: i64 = 60;
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, over) = (Arc::clone(&store), Arc::clone(&over));
        readers.spawn(async move {
            let mut seen = 0;
            loop {
                let last_look = over.load(Ordering::SeqCst);
                for told in store.told(seen, None, 7).await.unwrap() {
                    assert_eq!(told.seq, seen + 1, "nothing appears later before what was seen");
                    seen = told.seq;
                }
                let versions: Vec<i64> = store.open_runs().await.unwrap().iter().map(|run| run.version).collect();
                assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
                if last_look && seen == store.last_told().await.unwrap() {
                    return seen;
                }
            }
        });
    }
    let mut records: Vec<_> = (1..=RUNS).map(record).collect();
    for _ in 0..COMMITS {
        store.commit(by, &records.iter().map(change).collect::<Vec<_>>()).await.unwrap();
        records = records.iter().map(|record| next(record, State::Queued)).collect();
    }
    over.store(true, Ordering::SeqCst);
    while let Some(seen) = readers.join_next().await {
        assert_eq!(seen.unwrap(), RUNS * COMMITS);
    }
}

async fn of_two_that_change_one_run_one_wins(bed: &Bed) {
    let (one, two) = (bed.open().await, bed.open().await);
    let by = one.take_over().await.unwrap();
    let mut current = record(1);
    one.commit(by, &[change(&current)]).await.unwrap();
    for _ in 0..50 {
        let mut changed = [next(&current, State::Queued), next(&current, State::Queued)];
        changed[0].reason = "one".into();
        changed[1].reason = "two".into();
        let changes = [[change(&changed[0])], [change(&changed[1])]];
        let results = tokio::join!(one.commit(by, &changes[0]), two.commit(by, &changes[1]));
        current = one.run(&run(1)).await.unwrap().unwrap();
        match results {
            (Ok(()), Err(StoreError::Conflict(_))) => assert_eq!(current, changed[0]),
            (Err(StoreError::Conflict(_)), Ok(())) => assert_eq!(current, changed[1]),
            both => panic!("{both:?}"),
        }
    }
}

async fn a_race_of_take_overs_has_one_winner(bed: &Bed) {
    let stores = [bed.open().await, bed.open().await];
    for round in 0..20 {
        let mut racing = JoinSet::new();
        for (place, store) in (0..).zip(&stores) {
            let store = Arc::clone(store);
            racing.spawn(async move {
                let by = store.take_over().await.unwrap();
                // Commits until it is told to end.
                for number in 0.. {
                    let seq = round * 1000 + place * 500 + number + 1;
                    match store.commit(by, &[change(&record(seq))]).await {
                        Ok(()) if number < 5 => {}
                        Ok(()) => return (by, true),
                        Err(StoreError::Superseded) => return (by, false),
                        Err(error) => panic!("{error}"),
                    }
                }
                unreachable!()
            });
        }
        let mut ended: Vec<(Generation, bool)> = racing.join_all().await;
        ended.sort();
        assert!(ended[0].0 < ended[1].0, "{ended:?}");
        assert!(ended[1].1, "the later one goes on: {ended:?}");
    }
}
