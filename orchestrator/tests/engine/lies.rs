//! An agent that lies, or talks without end.

use protocol::control::Code;
use protocol::control::agent::Report;
use protocol::control::run::RunState;
use serde_json::json;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn lies_are_refused() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    let other = world.create(&device("s2", "/dev/b")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    let mut of_other = world.enrol(&other).await.unwrap();
    let stolen = of_other.event(finished());
    assert_eq!(code(agent.report(&world, vec![stolen]).await), Code::Forbidden);
    let (one, two) = (agent.event(warning("1")), agent.event(warning("2")));
    assert_eq!(code(agent.report(&world, vec![two.clone(), one.clone()]).await), Code::BadRequest);
    assert_eq!(code(agent.report(&world, vec![one.clone(), one.clone()]).await), Code::BadRequest);
    let mut far = two.clone();
    far.index = u64::MAX;
    assert_eq!(code(agent.report(&world, vec![far]).await), Code::BadRequest);
    let huge = agent.event(warning(&"x".repeat(70_000)));
    assert_eq!(code(agent.report(&world, vec![huge]).await), Code::TooLarge);
    // Replayed events are counted once; unknown kinds are kept.
    for _ in 0..3 {
        assert_eq!(agent.report(&world, vec![one.clone(), two.clone()]).await.unwrap().next, 2);
    }
    let mut unknown = agent.event(warning("x"));
    unknown.event = serde_json::from_value(json!({"kind": "teleported", "to": "elsewhere"})).unwrap();
    agent.report(&world, vec![unknown]).await.unwrap();
    agent.send(&world, finished()).await.unwrap();
    // After the end there is nothing, but the end may be told again.
    agent.index -= 1;
    agent.send(&world, finished()).await.unwrap();
    assert_eq!(code(agent.send(&world, failed("source", true)).await), Code::AttemptOver);
    world.is(&run, RunState::Succeeded).await;
    let told = world.engine.told(0, Some(&run), 1000).await.unwrap();
    let of_agent = told.iter().filter(|told| matches!(told.happening.what, protocol::control::run::What::Agent(_)));
    assert_eq!(of_agent.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_chatterbox_does_not_fill_the_store() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    let who = agent.who(&world).await.unwrap();
    for _ in 0..8 {
        let events = (0..256).map(|_| agent.event(warning(&"again ".repeat(600)))).collect();
        world.engine.report(&who, Report { events }).await.unwrap();
    }
    agent.send(&world, finished()).await.unwrap();
    world.is(&run, RunState::Succeeded).await;
    assert!((3 << 20..5 << 20).contains(&told(&world).await), "{}", told(&world).await);
}

/// Bytes of all that was told.
async fn told(world: &World) -> usize {
    let all = world.engine.told(0, None, 100_000).await.unwrap();
    all.iter().map(|told| serde_json::to_string(&told.happening).unwrap().len()).sum()
}

#[tokio::test(start_paused = true)]
async fn ends_without_end_do_not_fill_the_store_either() {
    let mut world = World::new().await;
    let run = world.create(&external("s1", "/dev/a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    let who = agent.who(&world).await.unwrap();
    let mut may_still_write = failed("device", true);
    if let protocol::event::Body::RunFailed(failure) = &mut may_still_write {
        failure.target = protocol::event::TargetState::Uncertain;
        failure.message = "again ".repeat(600);
    }
    for _ in 0..8 {
        let events = (0..256).map(|_| agent.event(may_still_write.clone())).collect();
        world.engine.report(&who, Report { events }).await.unwrap();
    }
    world.is(&run, RunState::Lost).await;
    assert!((3 << 20..5 << 20).contains(&told(&world).await), "{}", told(&world).await);
}
