//! The store is away, the service dies, or another one takes over.

use protocol::control::Code;
use protocol::control::run::RunState;

use crate::memory::Fault;
use crate::world::*;

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_minute_costs_nobody_a_lease() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    world.memory.0.lock().unwrap().faults = vec![Fault::Before; 100_000];
    for _ in 0..6 {
        assert!(agent.renew(&world).await.is_ok());
        let refused = agent.send(&world, warning("x")).await.unwrap_err();
        assert_eq!((refused.code, refused.status), (Code::Unavailable, 503));
        assert!(refused.retry_after.is_some());
        world.wait(10).await;
    }
    world.memory.0.lock().unwrap().faults.clear();
    world.wait(1).await;
    agent.send(&world, finished()).await.unwrap();
    world.is(&run, RunState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_found_out() {
    for fault in [Fault::Before, Fault::After] {
        let mut world = World::new().await;
        let run = world.create(&device("s1", "/dev/a")).await;
        world.settle().await;
        let mut agent = world.enrol(&run).await.unwrap();
        let end = agent.event(finished());
        world.memory.0.lock().unwrap().faults = vec![fault];
        let refused = agent.report(&world, vec![end.clone()]).await.unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        world.settle().await;
        let state = if fault == Fault::After { RunState::Succeeded } else { RunState::Running };
        world.is(&run, state).await;
        agent.report(&world, vec![end]).await.unwrap();
        world.is(&run, RunState::Succeeded).await;
        let told = world.engine.told(0, Some(&run), 1000).await.unwrap();
        assert_eq!(told.len(), 5, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_service_that_takes_over_ends_this_one() {
    let mut old = World::new().await;
    let run = old.create(&device("s1", "/dev/a")).await;
    old.settle().await;
    let store = std::sync::Arc::new(old.memory.clone());
    let cancel = tokio_util::sync::CancellationToken::new();
    let (new, _task) = orchestrator::engine::Engine::start(store, old.settings.clone(), cancel).await.unwrap();
    assert_eq!(code(old.engine.cancel(&run, "x").await), Code::Unavailable);
    old.settle().await;
    assert_eq!(code(old.engine.cancel(&run, "x").await), Code::Unavailable);
    new.cancel(&run, "x").await.unwrap();
    let _ = &mut old;
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_begin_and_launch_launches_another() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    // Begun and not launched: the launch is a task of its own.
    for _ in 0..5 {
        world.crash().await;
        world.wait(61).await;
    }
    // What the service itself has spoilt does not count.
    let found = world.run(&run).await;
    assert!(found.state == RunState::Launching && found.attempts.len() == 6, "{found:?}");
    let attempt = found.attempts.last().unwrap().attempt;
    assert_eq!(world.enrol(&run).await.unwrap().enrolled.attempt, attempt);
}
