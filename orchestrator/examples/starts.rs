//! How fast the scheduler starts runs, with SQLite synced at every commit: `cargo run --release -p orchestrator --example starts [RUNS [FOLDER]]`.
//!
//! The queue is filled while no run may be active; then another engine takes over, with room for all, and the time is taken until the
//! last run's start is stored. Each start is a transition, an attempt and an event; as many as wait are one transaction.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::engine::{Credentials, Engine, Settings};
use orchestrator::identity::{Authority, Folder, Keys, SessionKey, TicketKey};
use orchestrator::keys::{Kek, Sealer};
use orchestrator::launch::External;
use orchestrator::model::schedule::Limits;
use orchestrator::model::{BackOff, Moment, State};
use orchestrator::policy::Policy;
use orchestrator::store::{self, Filter, Location};
use protocol::control::NewRun;
use protocol::control::agent::Terms;
use protocol::control::run::LauncherKind;
use tokio_util::sync::CancellationToken;

fn settings(runs: u32, credentials: &Arc<Keys>) -> Result<Settings, Box<dyn Error>> {
    Ok(Settings {
        limits: Limits { runs, per_source: runs, fabrics: Default::default(), per_fabric: runs },
        back_off: BackOff { first: Duration::from_secs(10), most: Duration::from_secs(60) },
        lease: Terms { seconds: 60, renew_after: 15 },
        grace: Duration::from_secs(15),
        enrol_within: Duration::from_secs(300),
        cancel_within: Duration::from_secs(300),
        launchers: HashMap::from([(LauncherKind::External, Arc::new(External) as _)]),
        credentials: Arc::clone(credentials) as Arc<dyn Credentials>,
        metrics: Default::default(),
        keeper: Arc::new(Sealer::new(&Kek::of([7; Kek::BYTES]))?),
        policy: Arc::new(Policy::new("/nonexistent/policy.json".into(), false)),
        retention: None,
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let runs: u32 = arguments.next().map_or(Ok(10_000), |runs| runs.parse())?;
    let folder = tempfile::tempdir_in(arguments.next().unwrap_or_else(|| "/var/tmp".into()))?;
    let data = Folder::open(&folder.path().join("data"))?;
    let authority = Authority::open(&data, Moment::of_wall_clock())?;
    let (sessions, tickets) = (SessionKey::open(&data)?, TicketKey::open(&data)?);
    let keys = Arc::new(Keys { sessions, authority, tickets, validity: Duration::from_secs(86_400) });
    let location = Location::File(folder.path().join("runs.sqlite"));
    fill(runs, &location, &keys).await?;

    let began = Instant::now();
    let store = store::open(&location).await?;
    let cancel = CancellationToken::new();
    let (engine, task) = Engine::start(store, settings(runs, &keys)?, cancel.clone()).await?;
    let read = began.elapsed();
    let waiting = Filter { states: vec![State::Queued], ..Filter::default() };
    let mut watch = engine.watch(None);
    while !engine.list(&waiting, None, 1).await.map_err(|problem| problem.detail)?.runs.is_empty() {
        watch.changed().await;
    }
    let took = began.elapsed();
    cancel.cancel();
    task.await??;
    println!(
        "{runs} queued runs read in {:.2} s, all started {:.2} s after that: {:.0} starts per second",
        read.as_secs_f64(),
        (took - read).as_secs_f64(),
        f64::from(runs) / (took - read).as_secs_f64()
    );
    Ok(())
}

/// Queues them, with one engine that may start none.
async fn fill(runs: u32, location: &Location, keys: &Arc<Keys>) -> Result<(), Box<dyn Error>> {
    let store = store::open(location).await?;
    let cancel = CancellationToken::new();
    let (engine, task) = Engine::start(store, settings(0, keys)?, cancel.clone()).await?;
    let began = Instant::now();
    let mut creating = tokio::task::JoinSet::new();
    for number in 0..runs {
        let order = format!(
            r#"{{"server":"s-{number}","launcher":"external","image":{{"name":"debian-13","sources":["http://images/"],"trust":["{}"]}},"target":{{"device":"/dev/vda"}}}}"#,
            "a".repeat(64)
        );
        let (engine, new) = (engine.clone(), NewRun::parse(order.as_bytes())?);
        creating.spawn(async move { engine.create(new, Some(format!("key-{number}"))).await.map(drop) });
        // As many as wait at once in a service under load.
        if creating.len() == 256 {
            creating.join_next().await;
        }
    }
    while let Some(created) = creating.join_next().await {
        created?.map_err(|problem| problem.detail)?;
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{runs} runs created in {took:.2} s: {:.0} per second, 256 at once, each with a key",
        f64::from(runs) / took
    );
    cancel.cancel();
    task.await??;
    Ok(())
}
