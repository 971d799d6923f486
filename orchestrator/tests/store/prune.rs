//! Runs are removed as a whole, in pieces that nobody waits for, and never one that was changed or is not over.

use orchestrator::model::{Record, State};
use orchestrator::store::{Change, Filter, Store, StoreError};
use protocol::RunId;

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, record, run, with_key};

on_both!(
    runs_go_with_all_that_was_told_of_them_and_with_their_keys,
    what_was_changed_or_is_not_over_is_not_removed,
    very_much_that_was_told_goes_in_pieces,
    one_who_has_lost_the_store_removes_nothing,
);

fn named(record: &Record) -> (RunId, i64) {
    (record.run.clone(), record.version)
}

/// Runs that are over, and what was told of each twice.
async fn over(
    store: &dyn Store,
    by: orchestrator::store::Generation,
    seqs: std::ops::RangeInclusive<i64>,
) -> Vec<Record> {
    let new: Vec<Record> = seqs.map(|seq| with_key(record(seq), &format!("key {seq}"))).collect();
    let states = [State::Succeeded, State::Failed, State::Cancelled];
    let over: Vec<Record> = new.iter().zip(states.iter().cycle()).map(|(record, state)| next(record, *state)).collect();
    store.commit(by, &new.iter().chain(&over).map(change).collect::<Vec<_>>()).await.unwrap();
    over
}

async fn runs_go_with_all_that_was_told_of_them_and_with_their_keys(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let over = over(&*store, by, 1..=150).await;
    let gone: Vec<_> = over.iter().filter(|record| record.seq % 3 != 0).map(named).collect();
    let last = store.last_told().await.unwrap();
    assert_eq!(store.prune(by, &gone).await, Ok(true));
    assert_eq!(store.prune(by, &[]).await, Ok(true));
    let left: Vec<i64> = store.list(&Filter::default(), None, 1000).await.unwrap().iter().map(|of| of.seq).collect();
    assert_eq!(left, (1..=50).rev().map(|seq| seq * 3).collect::<Vec<_>>());
    assert_eq!((store.run(&run(1)).await, store.by_key("key 1").await), (Ok(None), Ok(None)));
    let told = store.told(0, None, 1000).await.unwrap();
    assert!(
        told.len() == 100 && told.iter().all(|told| left.contains(&told.happening.run.as_str()[4..].parse().unwrap()))
    );
    // Places are never given again.
    assert_eq!(store.last_told().await, Ok(last));
    let anew = with_key(record(151), "key 1");
    store.commit(by, &[change(&anew)]).await.unwrap();
    assert_eq!(store.told(last, None, 10).await.unwrap()[0].seq, last + 1);
    assert_eq!(store.by_key("key 1").await, Ok(Some(anew)));
}

async fn what_was_changed_or_is_not_over_is_not_removed(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let over = over(&*store, by, 1..=3).await;
    let again = next(&over[1], State::Queued);
    store.commit(by, &[change(&again)]).await.unwrap();
    let told = store.told(0, None, 100).await.unwrap();
    for wrong in [named(&over[1]), named(&again), (run(9), 1)] {
        let pruned = store.prune(by, &[named(&over[0]), wrong, named(&over[2])]).await;
        assert!(matches!(pruned, Err(StoreError::Conflict(_))), "{pruned:?}");
    }
    assert_eq!(store.told(0, None, 100).await.unwrap(), told, "and the others with it are whole");
    assert_eq!(store.run(&over[0].run).await, Ok(Some(over[0].clone())));
}

async fn very_much_that_was_told_goes_in_pieces(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let over = over(&*store, by, 1..=2).await;
    let mut much: Change = change(&next(&over[0], State::Failed));
    much.told = std::iter::repeat_n(much.told[0].clone(), 2500).collect();
    store.commit(by, &[much.clone()]).await.unwrap();
    let runs = [named(&much.record), named(&over[1])];
    let told = store.told(0, None, 10_000).await.unwrap();
    assert_eq!(store.prune(by, &runs).await, Ok(false));
    assert!(store.told(0, None, 10_000).await.unwrap() == told, "several go as a whole");
    assert_eq!(store.prune(by, &runs[1..]).await, Ok(true));
    let mut pieces = 1;
    while !store.prune(by, &runs[..1]).await.unwrap() {
        assert_eq!(store.run(&run(1)).await, Ok(Some(much.record.clone())), "it is there until all is gone");
        pieces += 1;
    }
    assert_eq!((pieces, store.told(0, None, 10).await), (3, Ok(vec![])));
    assert_eq!(store.list(&Filter::default(), None, 10).await, Ok(vec![]));
}

async fn one_who_has_lost_the_store_removes_nothing(bed: &Bed) {
    let (old, new) = (bed.open().await, bed.open().await);
    let first = old.take_over().await.unwrap();
    let over = over(&*old, first, 1..=2).await;
    let second = new.take_over().await.unwrap();
    assert_eq!(old.prune(first, &[named(&over[0])]).await, Err(StoreError::Superseded));
    assert_eq!(new.prune(second, &[named(&over[0])]).await, Ok(true));
    assert_eq!(old.list(&Filter::default(), None, 10).await, Ok(vec![over[1].clone()]), "reading goes on");
}
