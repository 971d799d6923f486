//! An attempt that a person has shut out.

use protocol::control::Code;
use protocol::control::agent::Report;
use protocol::control::run::{Outcome, RunState};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn a_revoked_attempt_is_lost_at_once_and_nothing_of_it_counts_any_more() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    assert_eq!(code(world.engine.revoke(&run, 2, "by ada").await), Code::Conflict);
    let lost = world.engine.revoke(&run, 1, "by ada: a copy is about").await.unwrap();
    assert_eq!(lost.state, RunState::Lost);
    assert!(
        lost.reason.contains("attempt 1 was revoked by ada: a copy is about; its agent is being killed"),
        "{lost:?}"
    );
    assert_eq!(code(agent.renew(&world).await), Code::Revoked);
    assert_eq!(code(agent.send(&world, finished()).await), Code::Revoked);
    assert_eq!(code(world.engine.enrol(&agent.token, agent.enrol.clone()).await), Code::Revoked);
    // Its launcher has killed it, and the next one is another.
    world.settle().await;
    world.crash().await;
    world.wait(30).await;
    let mut next = world.enrol(&run).await.unwrap();
    assert_eq!(next.enrolled.attempt, 2);
    assert_eq!(code(agent.renew(&world).await), Code::Revoked);
    assert_eq!(code(world.engine.enrol(&agent.token, agent.enrol.clone()).await), Code::Revoked);
    // One that is over can be revoked too, as often as one likes: nothing else changes.
    for _ in 0..2 {
        assert_eq!(world.engine.revoke(&run, 1, "by ada").await.unwrap().state, RunState::Running);
    }
    next.send(&world, finished()).await.unwrap();
    assert_eq!(code(agent.renew(&world).await), Code::Revoked);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_agent_of_a_machine_is_not_believed_dead() {
    let mut world = World::new().await;
    // Before it has enrolled nothing can be written: the run goes on.
    let run = world.create(&external("s1", "/dev/a")).await;
    world.settle().await;
    let token = world.engine.token(&run).await.unwrap().token;
    let queued = world.engine.revoke(&run, 1, "by ada").await.unwrap();
    assert_eq!((queued.state, queued.attempts[0].outcome.clone()), (RunState::Queued, Some(Outcome::NotLaunched)));
    assert_eq!(code(world.agent(token).await), Code::Revoked);
    world.wait(30).await;
    // One that runs may write until its lease is over, and longer if it is frozen: a person must know better.
    let agent = world.enrol(&run).await.unwrap();
    world.engine.revoke(&run, 2, "by ada").await.unwrap();
    world.wait(LEASE + GRACE + 60).await;
    world.is(&run, RunState::Lost).await;
    assert_eq!(code(agent.renew(&world).await), Code::Revoked);
    assert_eq!(world.engine.confirm_death(&run, 2).await.unwrap().state, RunState::Queued);
    // Where a reservation shuts it out, its successor need not wait for anybody.
    let fenced = world.create(&lun("s2", "3600a")).await;
    world.settle().await;
    world.enrol(&fenced).await.unwrap();
    world.engine.revoke(&fenced, 1, "by ada").await.unwrap();
    world.wait(30).await;
    assert_eq!(world.enrol(&fenced).await.unwrap().enrolled.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_when_an_attempt_was_revoked_is_not_heard() {
    let mut world = World::new().await;
    let run = world.create(&encrypted(external("s1", "/dev/a"))).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    // Its request was authenticated, and its body is still to come.
    let who = agent.who(&world).await.unwrap();
    world.engine.revoke(&run, 1, "by ada").await.unwrap();
    for body in [progress(1), warning("w"), failed("image", true), finished()] {
        let report = Report { events: vec![agent.event(body)] };
        assert_eq!(code(world.engine.report(&who, report).await), Code::Revoked);
    }
    assert_eq!(code(world.engine.release_key(&who).await), Code::Revoked);
    world.is(&run, RunState::Lost).await;
}
