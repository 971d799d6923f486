//! What the engine does now and then with all runs, on stores as they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::Postgres;
use orchestrator::engine::{Credentials, Engine, Keeper, Settings};
use orchestrator::identity::{Authority, Folder, Keys, SessionKey, TicketKey};
use orchestrator::keys::{Kek, Sealer};
use orchestrator::model::schedule::Limits;
use orchestrator::model::{BackOff, KeyRecord, Moment, Record, State};
use orchestrator::policy::Policy;
use orchestrator::store::{Change, Filter, Store, StoreError};
use protocol::control::agent::Terms;
use protocol::control::run::LauncherKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, next, on, record};

on_both!(keys_are_sealed_anew_however_often_the_service_is_killed, old_runs_go_however_often_the_service_is_killed,);

fn sealer(byte: u8, previous: &[u8]) -> Sealer {
    let kek = |byte: &u8| Kek::of([*byte; Kek::BYTES]);
    let previous: Vec<Kek> = previous.iter().map(kek).collect();
    Sealer::new(&kek(&byte)).unwrap().with_previous(&previous).unwrap()
}

/// An engine that starts nothing.
struct Idle {
    engine: Engine,
    task: JoinHandle<Result<(), StoreError>>,
    _folder: tempfile::TempDir,
}

impl Idle {
    async fn start(bed: &Bed, keeper: Sealer) -> Self {
        Self::start_and_keep(bed, keeper, None).await
    }

    async fn start_and_keep(bed: &Bed, keeper: Sealer, retention: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = Folder::open(&folder.path().join("data")).unwrap();
        let authority = Authority::open(&data, Moment::of_wall_clock()).unwrap();
        let sessions = SessionKey::open(&data).unwrap();
        let credentials: Arc<dyn Credentials> = Arc::new(Keys {
            sessions,
            authority,
            tickets: TicketKey::open(&data).unwrap(),
            validity: Duration::from_secs(60),
        });
        let settings = Settings {
            limits: Limits { runs: 0, per_source: 1, fabrics: Default::default(), per_fabric: 1 },
            back_off: BackOff { first: Duration::from_secs(10), most: Duration::from_secs(60) },
            lease: Terms { seconds: 60, renew_after: 15 },
            grace: Duration::from_secs(15),
            enrol_within: Duration::from_secs(300),
            cancel_within: Duration::from_secs(300),
            launchers: HashMap::new(),
            credentials,
            metrics: Default::default(),
            keeper: Arc::new(keeper),
            policy: Arc::new(Policy::new("/no/policy".into(), false)),
            retention,
        };
        let store = bed.open().await;
        let (engine, task) = Engine::start(store, settings, CancellationToken::new()).await.unwrap();
        Idle { engine, task, _folder: folder }
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Runs with keys under KEK 1, half of them over.
async fn sealed_runs(store: &dyn Store, count: i64) -> Vec<Record> {
    let by = store.take_over().await.unwrap();
    let sealer = sealer(1, &[]);
    let mut records = Vec::new();
    for seq in 1..=count {
        let mut record = record(seq);
        let sealed = Keeper::make(&sealer, &record.run, None).await.unwrap();
        record.luks_key = Some(KeyRecord::new(sealed, Moment(1), 0));
        records.push(record);
    }
    for records in records.chunks(256) {
        store.commit(by, &records.iter().map(change).collect::<Vec<_>>()).await.unwrap();
    }
    let over: Vec<Record> = records.iter().step_by(2).map(|record| next(record, State::Succeeded)).collect();
    for over in over.chunks(256) {
        store.commit(by, &over.iter().map(change).collect::<Vec<Change>>()).await.unwrap();
    }
    records
}

/// How many keys are sealed with a KEK.
async fn under(store: &dyn Store, byte: u8) -> usize {
    let id = sealer(byte, &[]).id().to_owned();
    let (mut count, mut before) = (0, None);
    loop {
        let page = store.list(&Filter::default(), before, 1000).await.unwrap();
        let sealed = page.iter().filter_map(|record| record.luks_key.as_ref()?.sealed.as_ref());
        count += sealed.filter(|sealed| sealed.text().contains(&id)).count();
        match page.last() {
            Some(last) => before = Some(last.seq),
            None => return count,
        }
    }
}

async fn keys_are_sealed_anew_however_often_the_service_is_killed(bed: &Bed) {
    let store = bed.open().await;
    let records = sealed_runs(&*store, 300).await;
    let told = store.last_told().await.unwrap();
    for kills in 1..=3 {
        let idle = Idle::start(bed, sealer(2, &[1])).await;
        while under(&*store, 2).await < kills * 70 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        idle.kill().await;
    }
    let idle = Idle::start(bed, sealer(2, &[1])).await;
    let began = Instant::now();
    while under(&*store, 2).await < 300 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", under(&*store, 2).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((under(&*store, 1).await, store.last_told().await.unwrap()), (0, told), "nothing is told");
    idle.kill().await;
    // The same keys as before, without the KEK of before.
    let idle = Idle::start(bed, sealer(2, &[])).await;
    let before = sealer(1, &[]);
    for record in records.iter().step_by(37) {
        let key = Keeper::open(&before, &record.run, record.luks_key.as_ref().unwrap().sealed.as_ref().unwrap());
        assert!(idle.engine.show_key(&record.run, "ada").await.unwrap().key == key.await.unwrap());
    }
    idle.kill().await;
}

/// How long runs are kept: none here has ended later than in 1970.
const KEPT: Option<Duration> = Some(Duration::from_secs(24 * 3600));

/// Old runs, each with so much told, on few servers.
async fn old_runs(store: &dyn Store, count: i64, told: usize) {
    let by = store.take_over().await.unwrap();
    for first in (1..=count).step_by(256) {
        let seqs = first..=count.min(first + 255);
        let mut changes: Vec<Change> = seqs
            .map(|seq| {
                let old = on(seq, &format!("old-{}", seq % 100), "/dev/a");
                change(&Record { state: State::Succeeded, ended: Some(Moment(1)), ..old })
            })
            .collect();
        for change in &mut changes {
            change.told = std::iter::repeat_n(change.told[0].clone(), told).collect();
        }
        store.commit(by, &changes).await.unwrap();
    }
}

async fn count(store: &dyn Store) -> usize {
    let (mut count, mut before) = (0, None);
    loop {
        let page = store.list(&Filter::default(), before, 1000).await.unwrap();
        count += page.len();
        match page.last() {
            Some(last) => before = Some(last.seq),
            None => return count,
        }
    }
}

async fn old_runs_go_however_often_the_service_is_killed(bed: &Bed) {
    let store = bed.open().await;
    old_runs(&*store, 300, 20).await;
    for _ in 0..3 {
        let before = count(&*store).await;
        let idle = Idle::start_and_keep(bed, sealer(1, &[]), KEPT).await;
        while count(&*store).await >= before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        idle.kill().await;
    }
    let idle = Idle::start_and_keep(bed, sealer(1, &[]), KEPT).await;
    let began = Instant::now();
    while count(&*store).await > 100 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", count(&*store).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = store.list(&Filter::default(), None, 1000).await.unwrap();
    assert!(left.iter().all(|record| record.seq > 200), "the latest of each server is kept");
    let told = store.told(0, None, 10_000).await.unwrap();
    assert!(told.len() == 2000 && told.iter().all(|told| left.iter().any(|record| record.run == told.happening.run)));
    idle.kill().await;
}

async fn measure_keys(bed: &Bed) {
    const COUNT: i64 = 10_000;
    let store = bed.open().await;
    sealed_runs(&*store, COUNT).await;
    let began = Instant::now();
    let idle = Idle::start(bed, sealer(2, &[1])).await;
    while under(&*store, 1).await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{:10} {COUNT} keys are sealed anew within {:.1} s", bed.name(), began.elapsed().as_secs_f64());
    idle.kill().await;
}

#[test]
#[ignore = "takes half a minute, and says something only on an idle machine"]
fn how_long_a_change_of_the_kek_takes() {
    Bed::sqlite().run(measure_keys);
    Bed::Postgres(Box::new(Postgres::durable())).run(measure_keys);
}

/// How long requests take that change something, one after the other, until it is over.
async fn meanwhile(idle: &Idle, is_over: impl AsyncFn() -> bool) -> Vec<Duration> {
    let mut order = on(1, "live", "/dev/a").order;
    order.launcher = LauncherKind::External;
    let (run, _) = idle.engine.create(order, None).await.unwrap();
    let (mut took, mut looked) = (Vec::new(), Instant::now());
    loop {
        let began = Instant::now();
        // A token is a digest in the record: a transaction.
        idle.engine.token(&run.run).await.unwrap();
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
        if looked.elapsed() > Duration::from_secs(1) {
            if is_over().await {
                return took;
            }
            looked = Instant::now();
        }
    }
}

fn told_of(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let of = |share: usize| took[(took.len() - 1) * share / 1000];
    println!("    {what}: {} requests; median {:?}, 99 % {:?}, most {:?}", took.len(), of(500), of(990), of(1000));
}

async fn measure_runs(bed: &Bed) {
    const OLD: i64 = 100_000;
    let store = bed.open().await;
    old_runs(&*store, OLD, 10).await;
    let by = store.take_over().await.unwrap();
    for first in (1..=1000_i64).step_by(250) {
        let live: Vec<Change> = (first..first + 250).map(|seq| change(&record(OLD + seq))).collect();
        store.commit(by, &live).await.unwrap();
    }
    println!("{}, {OLD} old runs with 10 events each, 1000 live ones:", bed.name());
    let idle = Idle::start(bed, sealer(1, &[])).await;
    let began = Instant::now();
    told_of("before", meanwhile(&idle, async || began.elapsed() > Duration::from_secs(10)).await);
    idle.kill().await;
    let idle = Idle::start_and_keep(bed, sealer(1, &[]), KEPT).await;
    let began = Instant::now();
    let servers = Filter { states: vec![State::Succeeded], ..Filter::default() };
    let is_over = async || store.list(&servers, None, 1000).await.unwrap().len() == 100;
    told_of("meanwhile", meanwhile(&idle, is_over).await);
    println!("    gone within {:.0} s", began.elapsed().as_secs_f64());
    idle.kill().await;
    let began = Instant::now();
    assert_eq!(count(&*store).await, 1102);
    println!("    the {} runs that are left are read in {:?}", 1102, began.elapsed());
}

#[test]
#[ignore = "takes minutes, and says something only on an idle machine"]
fn how_long_it_takes_to_remove_runs_from_sqlite() {
    Bed::sqlite().run(measure_runs);
}

#[test]
#[ignore = "takes minutes, and says something only on an idle machine"]
fn how_long_it_takes_to_remove_runs_from_postgres() {
    Bed::Postgres(Box::new(Postgres::durable())).run(measure_runs);
}
