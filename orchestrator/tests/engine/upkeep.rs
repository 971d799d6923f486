//! What is done now and then with all runs: keys of disks are sealed anew when the key-encryption key was changed, and runs that were over
//! long ago are removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, FutureExt, pending};
use orchestrator::engine::{Keeper, KeeperError};
use orchestrator::keys::{Kek, Sealer};
use orchestrator::metrics::{Now, Tally};
use orchestrator::model::{Record, Sealed, State};
use protocol::control::Code;
use protocol::control::run::NewRun;
use protocol::{RunId, UnlockKey};

use crate::memory::Fault;
use crate::world::*;

fn sealer(byte: u8, previous: &[u8]) -> Sealer {
    let kek = |byte: &u8| Kek::of([*byte; Kek::BYTES]);
    let previous: Vec<Kek> = previous.iter().map(kek).collect();
    Sealer::new(&kek(&byte)).unwrap().with_previous(&previous).unwrap()
}

/// A sealer that seals so many anew, and then hangs.
struct Halting(Sealer, AtomicUsize);

impl Keeper for Halting {
    fn make<'a>(&'a self, run: &'a RunId, place: Option<&'a Sealed>) -> BoxFuture<'a, Result<Sealed, KeeperError>> {
        Keeper::make(&self.0, run, place)
    }

    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>> {
        Keeper::open(&self.0, run, sealed)
    }

    fn destroy<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<(), KeeperError>> {
        self.0.destroy(run, sealed)
    }

    fn renew<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        match self.1.load(Ordering::SeqCst) {
            0 => pending().boxed(),
            left => {
                self.1.store(left - 1, Ordering::SeqCst);
                Keeper::renew(&self.0, run, sealed)
            }
        }
    }
}

/// How many keys are sealed with a KEK.
fn under(world: &World, byte: u8) -> usize {
    let id = sealer(byte, &[]).id().to_owned();
    let sealed = |record: &&Record| {
        record
            .luks_key
            .as_ref()
            .is_some_and(|key| key.sealed.as_ref().is_some_and(|sealed| sealed.text().contains(&id)))
    };
    world.memory.0.lock().unwrap().runs.values().filter(sealed).count()
}

/// The value of a metric.
fn metric(world: &World, name: &str) -> i64 {
    let text = world.settings.metrics.text(&Tally::default(), Now { watchers: 0, store_up: true });
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("z_orchestrator_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}

/// So many runs with keys under KEK 1: running, over, and waiting; and one whose key is destroyed.
async fn sealed_runs(count: usize) -> (World, Vec<RunId>) {
    let mut world = World::with(|settings, _| {
        settings.keeper = Arc::new(sealer(1, &[]));
        settings.limits.runs = 2;
    })
    .await;
    let mut runs = Vec::new();
    for number in 0..count {
        runs.push(world.create(&encrypted(device(&format!("s{number}"), &format!("/dev/{number}")))).await);
    }
    let destroyed = world.create(&encrypted(device("s", "/dev/d"))).await;
    world.engine.cancel(&destroyed, "no longer wanted").await.unwrap();
    world.settle().await;
    let mut done = world.enrol(&runs[0]).await.unwrap();
    done.send(&world, finished()).await.unwrap();
    world.settle().await;
    world.enrol(&runs[1]).await.unwrap();
    (world, runs)
}

async fn start_with(world: &mut World, keeper: impl Keeper + 'static) {
    (world.settings.keeper, world.settings.metrics) = (Arc::new(keeper), Default::default());
    world.crash().await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_sealed_anew_and_a_service_killed_half_way_goes_on() {
    const COUNT: usize = 300;
    let (mut world, runs) = sealed_runs(COUNT).await;
    let (over, running) = (world.run(&runs[0]).await, world.run(&runs[1]).await);
    assert_eq!((over.state.name(), running.state.name()), ("succeeded", "running"));
    let first = world.engine.show_key(&runs[2], "ada").await.unwrap().key;
    let told = world.memory.0.lock().unwrap().told.len();
    start_with(&mut world, Halting(sealer(2, &[1]), AtomicUsize::new(260))).await;
    world.settle().await;
    assert_eq!(metric(&world, "keys_to_reseal"), -1, "not all were looked at");
    start_with(&mut world, sealer(2, &[1])).await;
    let done = under(&world, 2);
    assert!(done > 0 && done < COUNT, "half way: {done}");
    world.settle().await;
    assert_eq!((under(&world, 1), under(&world, 2)), (0, COUNT));
    assert_eq!((metric(&world, "keys_to_reseal"), metric(&world, "keys_shut")), (0, 0));
    // Nobody is told: nothing has happened to any run. The queue has gone on.
    let kept = world.memory.0.lock().unwrap().told[told..]
        .iter()
        .filter(|told| matches!(told.happening.what, protocol::control::run::What::Key(_)))
        .count();
    assert_eq!((kept, world.run(&runs[0]).await.since), (0, over.since));
    // The previous one is not needed any more, and the keys are what they were.
    start_with(&mut world, sealer(2, &[])).await;
    assert_eq!(world.engine.show_key(&runs[2], "ada").await.unwrap_err().code, Code::KeyShown);
    let shown: Vec<UnlockKey> = vec![first, world.engine.show_key(&runs[0], "ada").await.unwrap().key];
    assert!(shown[0] != shown[1]);
    assert_eq!(world.engine.destroy_key(&runs[0], "ada").await.unwrap().state.name(), "succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_the_same_whichever_kek_it_is_sealed_with() {
    let (mut world, runs) = sealed_runs(3).await;
    let agent = world.enrol(&runs[2]).await.unwrap();
    let given = agent.key(&world).await.unwrap();
    for (byte, previous) in [(2, 1), (3, 2), (1, 3)] {
        start_with(&mut world, sealer(byte, &[previous])).await;
        world.settle().await;
        assert_eq!(under(&world, byte), 3);
    }
    assert_eq!(world.engine.show_key(&runs[2], "ada").await.unwrap().key, given);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_meanwhile_is_waited_for() {
    let (mut world, runs) = sealed_runs(80).await;
    start_with(&mut world, sealer(2, &[1])).await;
    // Nothing of it has begun: it hits reads, and commits with both outcomes.
    world.memory.0.lock().unwrap().faults = [Fault::Before, Fault::After, Fault::Before].repeat(5);
    world.wait(120).await;
    assert_eq!((under(&world, 1), under(&world, 2)), (0, 80));
    world.engine.show_key(&runs[5], "ada").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_no_kek_opens_is_left_as_it_is_and_counted() {
    let (mut world, runs) = sealed_runs(5).await;
    start_with(&mut world, sealer(3, &[2])).await;
    let fresh = world.create(&encrypted(device("fresh", "/dev/fresh"))).await;
    world.settle().await;
    assert_eq!((under(&world, 1), under(&world, 3)), (5, 1));
    assert_eq!((metric(&world, "keys_to_reseal"), metric(&world, "keys_shut")), (0, 5));
    assert_eq!(world.engine.show_key(&runs[0], "ada").await.unwrap_err().code, Code::KeyShut);
    world.engine.show_key(&fresh, "ada").await.unwrap();
    // Given back, it opens them, and they are sealed anew.
    start_with(&mut world, sealer(3, &[2, 1])).await;
    world.settle().await;
    assert_eq!((under(&world, 3), metric(&world, "keys_shut")), (6, 0));
    world.engine.show_key(&runs[0], "ada").await.unwrap();
    assert!(world.memory.0.lock().unwrap().runs.values().any(|record| record.state == State::Succeeded));
}

/// How long runs are kept here.
const KEPT: u64 = 60;

async fn forgetful() -> World {
    World::with(|settings, _| settings.retention = Some(std::time::Duration::from_secs(KEPT))).await
}

async fn cancelled(world: &World, new: &serde_json::Value) -> RunId {
    let run = world.create(new).await;
    world.engine.cancel(&run, "no longer wanted").await.unwrap();
    run
}

fn is_kept(world: &World, run: &RunId) -> bool {
    world.memory.0.lock().unwrap().runs.contains_key(run)
}

#[tokio::test(start_paused = true)]
async fn runs_that_were_over_long_ago_are_removed_and_what_may_matter_is_kept() {
    let mut world = forgetful().await;
    let plain = cancelled(&world, &device("s1", "/dev/a")).await;
    let latest = cancelled(&world, &device("s1", "/dev/a")).await;
    let destroyed = cancelled(&world, &encrypted(device("s2", "/dev/b"))).await;
    // The only key of a disk that is installed.
    let keyed = world.create(&encrypted(device("s2", "/dev/b"))).await;
    world.settle().await;
    let mut agent = world.enrol(&keyed).await.unwrap();
    agent.send(&world, finished()).await.unwrap();
    let after = cancelled(&world, &device("s2", "/dev/b")).await;
    // An agent whose death nobody knows of, and one who waits behind it.
    let doubtful = world.create(&external("s3", "/dev/c")).await;
    world.settle().await;
    world.enrol(&doubtful).await.unwrap();
    let behind = world.create(&external("s3", "/dev/c")).await;
    let mut watch = world.engine.watch(Some(&plain));
    while watch.changed().now_or_never().is_some() {}
    world.wait(KEPT - 5).await;
    assert!(is_kept(&world, &plain) && is_kept(&world, &destroyed), "their time is not over yet");
    world.wait(60).await;
    for run in [&plain, &destroyed] {
        let problem = world.engine.run(run).await.unwrap_err();
        assert_eq!(problem.code, Code::NotFound);
        assert!(problem.hint.unwrap().contains("runs are kept for 60 seconds"));
        assert_eq!(world.engine.retry(run).await.unwrap_err().code, Code::NotFound);
        assert_eq!(world.engine.told(0, Some(run), 10).await.unwrap(), []);
    }
    assert_eq!(watch.changed().now_or_never(), Some(None), "whoever watches hears the end");
    for run in [&latest, &keyed, &after, &doubtful, &behind] {
        assert!(is_kept(&world, run), "{run}");
    }
    assert_eq!((metric(&world, "runs_pruned_total"), metric(&world, "runs_kept_for_key")), (2, 1));
    world.is(&doubtful, "lost".to_owned().into()).await;
    // It was shown and is in safe hands: now it can go.
    world.engine.show_key(&keyed, "ada").await.unwrap();
    world.engine.destroy_key(&keyed, "ada").await.unwrap();
    world.wait(10).await;
    assert!(!is_kept(&world, &keyed));
    assert_eq!((metric(&world, "runs_pruned_total"), metric(&world, "runs_kept_for_key")), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_comes_in_between_removes_no_more_and_no_less() {
    let mut world = forgetful().await;
    let mut old = Vec::new();
    for _ in 0..30 {
        old.push(cancelled(&world, &device("s1", "/dev/a")).await);
    }
    world.wait(KEPT / 2).await;
    let key = Some("k".to_owned());
    let new = NewRun::parse(device("s1", "/dev/a").to_string().as_bytes()).unwrap();
    let (keyed, _) = world.engine.create(new.clone(), key.clone()).await.unwrap();
    world.engine.cancel(&keyed.run, "no longer wanted").await.unwrap();
    // One that is tried again is over no more.
    let again = world.engine.retry(&old[0]).await.unwrap();
    let last = world.create(&external("s1", "/dev/a")).await;
    // The time of the next service begins with what was stored last.
    world.crash().await;
    world.wait(KEPT / 2 - 1).await;
    // The runs are read, and then it fails.
    world.memory.0.lock().unwrap().faults = vec![Fault::Before, Fault::None, Fault::After, Fault::None];
    world.wait(4).await;
    let told =
        |world: &World| world.memory.0.lock().unwrap().told.iter().filter(|told| told.happening.run == old[9]).count();
    assert!(world.memory.0.lock().unwrap().faults.len() < 4 && told(&world) > 0, "it has begun, and is not done");
    world.wait(21).await;
    let left: Vec<_> = old.iter().filter(|run| is_kept(&world, run)).collect();
    assert_eq!(left, [&again.run]);
    assert!(is_kept(&world, &keyed.run) && is_kept(&world, &last));
    let (same, is_new) = world.engine.create(new.clone(), key.clone()).await.unwrap();
    assert_eq!((same.run, is_new), (keyed.run.clone(), false));
    world.wait(KEPT).await;
    // The key has gone with its run, and makes another.
    let (anew, is_new) = world.engine.create(new, key).await.unwrap();
    assert!(is_new && anew.run != keyed.run && !is_kept(&world, &keyed.run));
}
