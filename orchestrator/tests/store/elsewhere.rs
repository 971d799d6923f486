//! The list of keys elsewhere that no run has: what is put there is found until it is taken off, and a run's own key is never on it.

use orchestrator::model::{KeyRecord, Moment, Record, Sealed};
use orchestrator::store::{Change, Generation, StoreError};
use protocol::control::key::{KeyAction, KeyEvent};
use protocol::control::run::{Happening, What};

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, record, run};

on_both!(
    a_place_is_listed_until_a_run_has_it_and_again_when_it_has_forgotten_it,
    whoever_was_taken_over_lists_nothing,
    many_places_are_one_commit,
    a_store_of_before_there_was_a_list_gets_one,
);

fn place(number: usize) -> Sealed {
    Sealed::at(&format!("place '{number}' — “ä”"))
}

/// The change to this record, by which something was done with its key.
fn told(record: &Record, action: KeyAction) -> Change {
    let event = KeyEvent { action, attempt: None, by: "x".into(), reason: None };
    let told = Happening { run: record.run.clone(), time: "2026-01-02T03:04:05Z".into(), what: What::Key(event) };
    Change { record: record.clone(), told: vec![told] }
}

fn with(number: i64, sealed: Sealed) -> Record {
    Record { luks_key: Some(KeyRecord::new(sealed, Moment(1), 0)), ..record(number) }
}

/// The run has forgotten its key.
fn forgotten(of: &Record) -> Record {
    let mut record = Record { version: of.version + 1, ..of.clone() };
    let sealed = record.luks_key.as_mut().and_then(|key| key.sealed.take()).unwrap();
    record.remains.extend(Some(sealed).filter(Sealed::is_elsewhere));
    record
}

async fn a_place_is_listed_until_a_run_has_it_and_again_when_it_has_forgotten_it(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    assert_eq!(store.reserved().await, Ok(vec![]));
    for number in [1, 2] {
        store.reserve(by, &run(1), &place(number)).await.unwrap();
        store.reserve(by, &run(1), &place(number)).await.unwrap();
    }
    assert_eq!(store.reserved().await, Ok(vec![(run(1), place(1)), (run(1), place(2))]));
    // A commit that is refused takes nothing off.
    let (first, here) = (with(1, place(1)), with(2, Sealed::new("here".into())));
    let wrong = Record { version: 7, ..record(9) };
    assert!(store.commit(by, &[told(&first, KeyAction::Made), change(&wrong)]).await.is_err());
    assert_eq!(store.reserved().await.unwrap().len(), 2);
    store.commit(by, &[told(&first, KeyAction::Made), told(&here, KeyAction::Made)]).await.unwrap();
    assert_eq!(store.reserved().await, Ok(vec![(run(1), place(2))]));
    assert_eq!(store.run(&run(1)).await, Ok(Some(first.clone())), "with its place");
    // Nothing else that becomes of the run changes that, until it has forgotten its key. What was here leaves nothing.
    let next = Record { version: 2, ..first.clone() };
    store.commit(by, &[change(&next)]).await.unwrap();
    assert_eq!(store.reserved().await.unwrap().len(), 1);
    let gone = [told(&forgotten(&next), KeyAction::Destroyed), told(&forgotten(&here), KeyAction::Destroyed)];
    store.commit(by, &gone).await.unwrap();
    drop(store);
    let store = bed.open().await;
    assert_eq!(store.reserved().await, Ok(vec![(run(1), place(1)), (run(1), place(2))]));
    store.release(by, &place(1)).await.unwrap();
    store.release(by, &place(1)).await.unwrap();
    assert_eq!(store.reserved().await, Ok(vec![(run(1), place(2))]));
}

async fn whoever_was_taken_over_lists_nothing(bed: &Bed) {
    let store = bed.open().await;
    let Generation(by) = store.take_over().await.unwrap();
    store.reserve(Generation(by), &run(1), &place(1)).await.unwrap();
    store.take_over().await.unwrap();
    assert_eq!(store.reserve(Generation(by), &run(1), &place(2)).await, Err(StoreError::Superseded));
    assert_eq!(store.release(Generation(by), &place(1)).await, Err(StoreError::Superseded));
    assert_eq!(store.reserved().await, Ok(vec![(run(1), place(1))]));
}

async fn many_places_are_one_commit(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let made: Vec<Record> = (1..=150).map(|number| with(number, place(number as usize))).collect();
    let changes: Vec<Change> = made.iter().map(|record| told(record, KeyAction::Made)).collect();
    store.commit(by, &changes).await.unwrap();
    let changes: Vec<Change> = made.iter().map(|record| told(&forgotten(record), KeyAction::Destroyed)).collect();
    store.commit(by, &changes).await.unwrap();
    assert_eq!(store.reserved().await.unwrap().len(), 150);
    // Forgotten, and another one made, in one batch: each as the last of them says.
    let again: Vec<Change> = made
        .iter()
        .flat_map(|record| {
            let next = with(record.seq, place(1000 + record.seq as usize));
            let next = Record { version: 3, remains: forgotten(record).remains, ..next };
            let last = Record {
                remains: [&next.remains[..], &[place(1000 + record.seq as usize)]].concat(),
                ..forgotten(&next)
            };
            [told(&next, KeyAction::Made), told(&last, KeyAction::Destroyed)]
        })
        .collect();
    store.commit(by, &again).await.unwrap();
    assert_eq!(store.reserved().await.unwrap().len(), 300);
}

async fn a_store_of_before_there_was_a_list_gets_one(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    store.commit(by, &[change(&record(1))]).await.unwrap();
    drop(store);
    // As the version before has left it.
    bed.sql("DROP TABLE elsewhere; UPDATE service SET version = 1").await;
    let store = bed.open().await;
    assert_eq!((store.run(&run(1)).await, store.reserved().await), (Ok(Some(record(1))), Ok(vec![])));
    store.reserve(by, &run(1), &place(1)).await.unwrap();
}
