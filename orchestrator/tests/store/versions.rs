//! What contradicts what is stored is refused, and leaves nothing behind.

use orchestrator::model::{Record, State};
use orchestrator::store::{Change, Generation, Store, StoreError};

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, on, record, run, with_key};

on_both!(
    a_version_that_does_not_follow_is_refused,
    a_second_active_run_of_a_server_or_target_is_refused,
    a_server_is_handed_over_within_one_commit,
    a_key_serves_one_run,
    several_changes_of_one_run_are_one_commit,
    what_an_engine_cannot_hold_is_refused,
    a_take_over_ends_the_commits_of_the_one_before,
);

#[track_caller]
fn refused(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
}

/// A commit is refused, and with it also what would have been fine.
async fn refused_as_a_whole(store: &dyn Store, by: Generation, wrong: &[Record]) {
    let fine = record(99);
    let told = store.last_told().await.unwrap();
    let changes: Vec<Change> = std::iter::once(&fine).chain(wrong).map(change).collect();
    refused(store.commit(by, &changes).await);
    assert_eq!((store.run(&fine.run).await, store.last_told().await), (Ok(None), Ok(told)));
}

async fn a_version_that_does_not_follow_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let first = record(1);
    let second = next(&first, State::Launching);
    refused_as_a_whole(&*store, by, std::slice::from_ref(&second)).await;
    store.commit(by, &[change(&first)]).await.unwrap();
    refused_as_a_whole(&*store, by, std::slice::from_ref(&first)).await;
    refused_as_a_whole(&*store, by, &[next(&second, State::Running)]).await;
    store.commit(by, &[change(&second)]).await.unwrap();
    refused_as_a_whole(&*store, by, std::slice::from_ref(&second)).await;
    assert_eq!(store.run(&run(1)).await, Ok(Some(second)));
}

async fn a_second_active_run_of_a_server_or_target_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let (one, server, target) = (on(1, "s", "/dev/a"), on(2, "s", "/dev/b"), on(3, "t", "/dev/a"));
    let one_active = next(&one, State::Running);
    store.commit(by, &[change(&one), change(&server), change(&target)]).await.unwrap();
    store.commit(by, &[change(&one_active)]).await.unwrap();
    for state in [State::Launching, State::Running, State::Lost] {
        refused_as_a_whole(&*store, by, &[next(&server, state)]).await;
        refused_as_a_whole(&*store, by, &[next(&target, state)]).await;
        refused_as_a_whole(&*store, by, &[Record { state, ..on(4, "s", "/dev/c") }]).await;
    }
    store.commit(by, &[change(&next(&server, State::Cancelled))]).await.unwrap();
    store.commit(by, &[change(&next(&one_active, State::Failed))]).await.unwrap();
    store.commit(by, &[change(&next(&target, State::Launching))]).await.unwrap();
}

async fn a_server_is_handed_over_within_one_commit(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let (old, new) = (on(1, "s", "/dev/a"), on(2, "s", "/dev/a"));
    let active = next(&old, State::Running);
    store.commit(by, &[change(&old), change(&new)]).await.unwrap();
    store.commit(by, &[change(&active)]).await.unwrap();
    // In whichever order they stand.
    store.commit(by, &[change(&next(&new, State::Launching)), change(&next(&active, State::Failed))]).await.unwrap();
    let newest = Record { state: State::Launching, ..on(3, "s", "/dev/a") };
    let over = next(&next(&new, State::Launching), State::Failed);
    store.commit(by, &[change(&newest), change(&over)]).await.unwrap();
    assert_eq!(store.open_runs().await, Ok(vec![newest]));
}

async fn a_key_serves_one_run(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    store.commit(by, &[change(&with_key(record(1), "k")), change(&record(2)), change(&record(3))]).await.unwrap();
    refused_as_a_whole(&*store, by, &[with_key(record(4), "k")]).await;
    store.commit(by, &[change(&with_key(record(4), "K"))]).await.unwrap();
}

async fn several_changes_of_one_run_are_one_commit(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let versions: Vec<Record> =
        std::iter::successors(Some(record(1)), |record| Some(next(record, State::Queued))).take(5).collect();
    store.commit(by, &versions[..3].iter().map(change).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.run(&run(1)).await, Ok(Some(versions[2].clone())));
    store.commit(by, &versions[3..].iter().map(change).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.run(&run(1)).await, Ok(Some(versions[4].clone())));
    assert_eq!(store.told(0, Some(&run(1)), 10).await.unwrap().len(), 5);
    let gap = [next(&versions[4], State::Queued), versions[0].clone()];
    refused_as_a_whole(&*store, by, &gap).await;
}

async fn what_an_engine_cannot_hold_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let mut null = record(1);
    null.order.image.name = "a\0b".into();
    match store.commit(by, &[change(&null)]).await {
        Ok(()) => assert_eq!(store.run(&run(1)).await, Ok(Some(null))),
        refusal => refused(refusal),
    }
    let mut of_another = change(&record(2));
    of_another.told[0].run = run(77);
    refused(store.commit(by, &[of_another]).await);
    store.commit(by, &[change(&record(2))]).await.unwrap();
}

async fn a_take_over_ends_the_commits_of_the_one_before(bed: &Bed) {
    let (old, new) = (bed.open().await, bed.open().await);
    let first = old.take_over().await.unwrap();
    old.commit(first, &[change(&record(1))]).await.unwrap();
    let second = new.take_over().await.unwrap();
    assert!(second > first);
    assert_eq!(old.commit(first, &[change(&record(2))]).await, Err(StoreError::Superseded));
    assert_eq!(old.commit(first, &[]).await, Err(StoreError::Superseded));
    new.commit(second, &[change(&record(2))]).await.unwrap();
    assert_eq!(old.run(&run(2)).await, Ok(Some(record(2))), "reading goes on");
}
