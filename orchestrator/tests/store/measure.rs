//! How many commits there are in a second; see `docs/performance.md` for what to make of it.

use std::time::{Duration, Instant};

use e2e::Postgres;
use orchestrator::model::{Record, State};

use crate::bed::Bed;
use crate::sample::{change, next, record};

/// With each commit so many runs change, and each change is told.
async fn measure(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    let mut seq = 0;
    for changes in [1_i64, 8, 64] {
        let mut records: Vec<Record> = (seq + 1..=seq + changes).map(record).collect();
        seq += changes;
        let mut took = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let commit: Vec<_> = records.iter().map(change).collect();
            let start = Instant::now();
            store.commit(by, &commit).await.unwrap();
            took.push(start.elapsed());
            records = records.iter().map(|record| next(record, State::Queued)).collect();
        }
        took.sort();
        let rate = took.len() as f64 / began.elapsed().as_secs_f64();
        let (median, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        println!(
            "{:10} {changes:3} changes: {rate:7.1} commits/s, {:8.0} changes/s; median {median:?}, 99 % {most:?}",
            bed.name(),
            rate * changes as f64
        );
    }
}

#[test]
#[ignore = "takes half a minute, and says something only on an idle machine"]
fn commits_per_second() {
    Bed::sqlite().run(measure);
    Bed::Postgres(Box::new(Postgres::durable())).run(measure);
}
