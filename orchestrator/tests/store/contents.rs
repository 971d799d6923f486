//! What is put in comes out, in its order.

use orchestrator::model::{KeyRecord, Moment, Sealed, State};
use orchestrator::store::{Change, Filter, Generation};
use protocol::control::run::{Happening, What};
use protocol::event::Event;

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, record, run, with_key};

on_both!(
    an_empty_store_has_nothing,
    a_record_comes_back_as_it_was,
    runs_are_listed_latest_first_by_filter_and_page,
    open_runs_are_those_that_are_not_over,
    what_is_told_comes_back_in_order_and_in_pages,
    what_is_stored_is_there_after_opening_again,
    any_number_of_changes_is_one_commit,
);

async fn an_empty_store_has_nothing(bed: &Bed) {
    let store = bed.open().await;
    assert_eq!(store.open_runs().await, Ok(vec![]));
    assert_eq!((store.last_seq().await, store.last_told().await), (Ok(0), Ok(0)));
    assert_eq!((store.run(&run(1)).await, store.by_key("k").await), (Ok(None), Ok(None)));
    assert_eq!(store.list(&Filter::default(), None, 10).await, Ok(vec![]));
    assert_eq!(store.told(0, None, 10).await, Ok(vec![]));
    assert_eq!(store.ping().await, Ok(()));
    assert_eq!(store.take_over().await, Ok(Generation(1)));
    assert_eq!(store.commit(Generation(1), &[]).await, Ok(()));
}

async fn a_record_comes_back_as_it_was(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let first = with_key(record(1), "a key: 'quoted' — “ä”");
    store.commit(by, &[change(&first)]).await.unwrap();
    assert_eq!(store.run(&run(1)).await, Ok(Some(first.clone())));
    assert_eq!(store.by_key("a key: 'quoted' — “ä”").await, Ok(Some(first.clone())));
    assert_eq!(store.by_key("a key").await, Ok(None));

    let mut second = next(&first, State::Failed);
    second.reason = "x".repeat(1 << 20);
    store.commit(by, &[change(&second)]).await.unwrap();
    assert_eq!(store.run(&run(1)).await, Ok(Some(second)), "also a large one");
    assert_eq!(store.last_seq().await, Ok(1));
}

async fn runs_are_listed_latest_first_by_filter_and_page(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let states = [State::Queued, State::Running, State::Failed];
    let records: Vec<_> = (1..=30_usize)
        .map(|seq| {
            let mut record = record(seq as i64);
            record.state = states[seq % 3];
            record
        })
        .collect();
    store.commit(by, &records.iter().map(change).collect::<Vec<_>>()).await.unwrap();
    let seqs = async |filter: Filter, before, limit| -> Vec<i64> {
        store.list(&filter, before, limit).await.unwrap().iter().map(|record| record.seq).collect()
    };
    assert_eq!(seqs(Filter::default(), None, 3).await, [30, 29, 28]);
    assert_eq!(seqs(Filter::default(), Some(28), 2).await, [27, 26]);
    assert_eq!(seqs(Filter::default(), Some(1), 2).await, [0; 0]);
    assert_eq!(seqs(Filter::default(), None, 1000).await.len(), 30);
    let failed = Filter { states: vec![State::Failed], ..Filter::default() };
    assert_eq!(seqs(failed, Some(20), 3).await, [17, 14, 11]);
    let two = Filter { states: vec![State::Failed, State::Queued], ..Filter::default() };
    assert_eq!(seqs(two, None, 4).await, [30, 29, 27, 26]);
    let server = Filter { server: Some("server-12".into()), ..Filter::default() };
    assert_eq!(seqs(server, None, 10).await, [12]);
    let all = Filter {
        states: vec![State::Running],
        server: Some("server-13".into()),
        fabric: Some("fabric-1".into()),
        image: Some("image-1".into()),
    };
    assert_eq!(seqs(all.clone(), None, 10).await, [13]);
    assert_eq!(seqs(Filter { fabric: Some("fabric-0".into()), ..all }, None, 10).await, [0; 0]);
    let nothing = Filter { image: Some("' OR 1=1 --".into()), ..Filter::default() };
    assert_eq!(seqs(nothing, None, 10).await, [0; 0]);
}

async fn open_runs_are_those_that_are_not_over(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    for (seq, state) in (1..).zip(State::ALL) {
        let mut record = record(seq);
        record.state = state;
        store.commit(by, &[change(&record)]).await.unwrap();
    }
    let open = store.open_runs().await.unwrap();
    assert_eq!(open.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(open.iter().all(|record| !record.state.is_over()));
}

async fn what_is_told_comes_back_in_order_and_in_pages(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let said: Event = serde_json::from_str(
        r#"{"run": "run-2", "attempt": 1, "index": 7, "at": 1.5, "time": "2026-01-02T03:04:05Z",
            "event": {"kind": "of-tomorrow", "it": {"a": [1, null]}}}"#,
    )
    .unwrap();
    let mut two = change(&record(2));
    two.told.push(Happening { run: run(2), time: "2026-01-02T03:04:06Z".into(), what: What::Agent(said) });
    let changes = [change(&record(1)), two];
    store.commit(by, &changes).await.unwrap();
    store.commit(by, &[change(&next(&record(1), State::Launching))]).await.unwrap();

    let told = store.told(0, None, 100).await.unwrap();
    assert_eq!(told.iter().map(|told| told.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let expected: Vec<_> = changes.iter().flat_map(|change: &Change| change.told.clone()).collect();
    assert_eq!(told.iter().take(3).map(|told| told.happening.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(store.told(1, None, 2).await.unwrap(), told[1..3]);
    assert_eq!(store.told(4, None, 2).await.unwrap(), []);
    let of_one = store.told(0, Some(&run(1)), 100).await.unwrap();
    assert_eq!(of_one, [told[0].clone(), told[3].clone()]);
    assert_eq!(store.told(1, Some(&run(1)), 100).await.unwrap(), [told[3].clone()]);
    assert_eq!(store.last_told().await, Ok(4));
}

async fn what_is_stored_is_there_after_opening_again(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    store.commit(by, &[change(&record(1))]).await.unwrap();
    drop(store);
    let store = bed.open().await;
    assert_eq!(store.run(&run(1)).await, Ok(Some(record(1))));
    let by = store.take_over().await.unwrap();
    assert_eq!(by, Generation(2));
    store.commit(by, &[change(&record(2))]).await.unwrap();
    let seqs: Vec<i64> = store.told(0, None, 10).await.unwrap().iter().map(|told| told.seq).collect();
    assert_eq!((seqs, store.last_told().await), (vec![1, 2], Ok(2)));
}

async fn any_number_of_changes_is_one_commit(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let records: Vec<_> = (1..=331).map(record).collect();
    store.commit(by, &records.iter().map(change).collect::<Vec<_>>()).await.unwrap();
    let later: Vec<_> = records.iter().map(|record| change(&next(record, State::Launching))).collect();
    store.commit(by, &later).await.unwrap();
    assert_eq!(store.open_runs().await.unwrap(), later.iter().map(|change| change.record.clone()).collect::<Vec<_>>());
    let told = store.told(331, None, 1000).await.unwrap();
    assert!(told.iter().map(|told| &told.happening).eq(later.iter().flat_map(|change| &change.told)));
}

/// What remains is what SQLite has put into its journal before, until that is written over, or removed when the service ends. PostgreSQL's
/// dead rows stay until the server removes them.
#[test]
fn what_a_record_has_forgotten_is_nowhere_in_the_file() {
    Bed::sqlite().run(forgotten);
}

async fn forgotten(bed: &Bed) {
    let marker = |number: i64| format!("sealed-{number}-{}", "k".repeat(200));
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let sealed: Vec<_> = (1..=50)
        .map(|number| {
            let mut record = record(number);
            record.luks_key = Some(KeyRecord::new(Sealed::new(marker(number)), Moment(1), 0));
            record
        })
        .collect();
    store.commit(by, &sealed.iter().map(change).collect::<Vec<_>>()).await.unwrap();
    for record in &sealed {
        let mut forgotten = next(record, State::Cancelled);
        forgotten.luks_key.as_mut().unwrap().sealed = None;
        store.commit(by, &[change(&forgotten)]).await.unwrap();
    }
    drop(store);
    // The last connection that is closed puts the journal's pages into the file, and removes the journal.
    bed.sql("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let file = std::fs::read(bed.file()).unwrap();
    let found = (1..=50).filter(|number| {
        let marker = marker(*number);
        file.windows(marker.len()).any(|window| window == marker.as_bytes())
    });
    assert_eq!(found.count(), 0, "forgotten keys are still in the file");
}
