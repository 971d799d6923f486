//! An agent that is not heard of: it is killed, shut out or waited for, and until then nobody else gets its target.

use protocol::control::Code;
use protocol::control::run::{LauncherKind, Outcome, RunState, WaitsFor};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn a_silent_process_is_killed_before_its_successor_begins() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let frozen = world.enrol(&run).await.unwrap();
    let handle = world.fake.handle(&run, 1).unwrap();
    world.wait(LEASE + GRACE + 1).await;
    assert!(world.fake.0.lock().unwrap().all[&handle].2, "it was killed");
    let queued = world.run(&run).await;
    assert_eq!(queued.attempts[0].outcome, Some(Outcome::Lost));
    assert_eq!(code(frozen.renew(&world).await), Code::AttemptOver);
    world.wait(11).await;
    assert_eq!(world.enrol(&run).await.unwrap().enrolled.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_keeps_its_target() {
    let mut world = World::with(|settings, fake| {
        settings.launchers.insert(LauncherKind::Process, std::sync::Arc::new(Stuck(fake.clone())));
    })
    .await;
    let run = world.create(&device("s1", "/dev/a")).await;
    let rival = world.create(&device("s2", "/dev/a")).await;
    world.settle().await;
    world.enrol(&run).await.unwrap();
    world.wait(10 * LEASE).await;
    for _ in 0..2 {
        let lost = world.run(&run).await;
        assert_eq!((lost.state, lost.waits.unwrap().what), (RunState::Lost, WaitsFor::Death));
        assert_eq!(world.run(&rival).await.waits.unwrap().what, WaitsFor::Target);
        world.crash().await;
        world.wait(10).await;
    }
    world.engine.confirm_death(&run, 1).await.unwrap();
    world.wait(11).await;
    assert_ne!(world.run(&run).await.state, world.run(&rival).await.state);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_pod_is_not_known_to_be_dead_holds_its_device_and_a_lun_is_taken_from_it() {
    for (order, is_taken) in [(device("s1", "/dev/a"), false), (lun("s1", "36005"), true)] {
        let mut world = World::with(|settings, fake| {
            settings.launchers.insert(LauncherKind::Kubernetes, std::sync::Arc::new(Stuck(fake.clone())));
        })
        .await;
        let run = world.create(&in_cluster(order)).await;
        world.settle().await;
        world.enrol(&run).await.unwrap();
        world.wait(LEASE + GRACE + 100).await;
        let found = world.run(&run).await;
        let is_waiting = found.waits.as_ref().is_some_and(|waits| waits.what == WaitsFor::Death);
        assert_eq!((found.state == RunState::Lost, is_waiting), (!is_taken, !is_taken), "{found:?}");
        assert_eq!((found.state == RunState::Launching, found.attempts.len() == 2), (is_taken, is_taken));
        assert_eq!(found.silent, [1], "it is not known to be dead");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_machine_without_a_reservation_waits_for_a_person() {
    let mut world = World::new().await;
    let run = world.create(&external("s1", "/dev/vda")).await;
    let rival = world.create(&external("s1", "/dev/vda")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    world.wait(LEASE + GRACE + 100).await;
    let lost = world.run(&run).await;
    assert_eq!((lost.state, lost.waits.unwrap().what), (RunState::Lost, WaitsFor::Person));
    let waits = world.run(&rival).await.waits.unwrap();
    assert_eq!(waits.what, WaitsFor::Server);
    assert_eq!(code(world.engine.confirm_death(&run, 2).await), Code::Conflict);
    assert_eq!(code(world.engine.token(&run).await), Code::Conflict);
    // Called off it still waits: nobody knows who writes to the target.
    world.crash().await;
    world.engine.cancel(&run, "no longer wanted").await.unwrap();
    world.is(&run, RunState::Lost).await;
    world.engine.confirm_death(&run, 1).await.unwrap();
    world.is(&run, RunState::Cancelled).await;
    // What it says afterwards comes too late.
    assert_eq!(code(agent.send(&world, finished()).await), Code::AttemptOver);
    world.settle().await;
    world.is(&rival, RunState::Launching).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_machine_with_a_reservation_is_shut_out_by_its_successor() {
    let mut world = World::new().await;
    let run = world.create(&lun("s1", "36005")).await;
    world.settle().await;
    let mut first = world.enrol(&run).await.unwrap();
    world.wait(LEASE + GRACE + 1).await;
    // It has its outcome, and may still write.
    let lost = world.run(&run).await;
    let outcome = lost.attempts[0].outcome.clone();
    assert_eq!((lost.state, outcome, lost.silent), (RunState::Lost, Some(Outcome::Lost), vec![1]));
    world.wait(11).await;
    let mut second = world.enrol(&run).await.unwrap();
    assert_eq!((second.enrolled.attempt, world.run(&run).await.silent), (2, vec![1]));
    // Before the second has the target, the first still counts: a failure leads to no third that would not shut it out.
    assert_eq!(code(first.renew(&world).await), Code::AttemptOver);
    second.send(&world, has_target()).await.unwrap();
    assert!(world.run(&run).await.silent.is_empty());
    first.send(&world, failed("target", true)).await.unwrap_err();
    second.send(&world, finished()).await.unwrap();
    let ended = world.run(&run).await;
    let outcomes: Vec<_> = ended.attempts.iter().map(|attempt| attempt.outcome.clone().unwrap()).collect();
    assert_eq!((ended.state, outcomes), (RunState::Succeeded, vec![Outcome::Lost, Outcome::Succeeded]));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_called_off_keeps_its_server_while_an_earlier_agent_may_write() {
    let mut world = World::new().await;
    let run = world.create(&lun("s1", "36005")).await;
    let rival = world.create(&lun("s1", "36006")).await;
    world.settle().await;
    let mut first = world.enrol(&run).await.unwrap();
    world.wait(LEASE + GRACE + 12).await;
    world.is(&run, RunState::Launching).await;
    world.engine.cancel(&run, "no longer wanted").await.unwrap();
    world.settle().await;
    world.is(&run, RunState::Lost).await;
    world.is(&rival, RunState::Queued).await;
    first.send(&world, failed("target", true)).await.unwrap();
    world.settle().await;
    world.is(&run, RunState::Cancelled).await;
    world.is(&rival, RunState::Launching).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_gave_up_a_device_may_still_write() {
    let mut world = World::new().await;
    let (here, there) = (world.create(&device("s1", "/dev/a")).await, world.create(&external("s2", "/dev/vda")).await);
    world.settle().await;
    for run in [&here, &there] {
        let mut body = failed("device", true);
        if let protocol::event::Body::RunFailed(failure) = &mut body {
            failure.target = protocol::event::TargetState::Uncertain;
        }
        world.enrol(run).await.unwrap().send(&world, body).await.unwrap();
    }
    world.wait(11).await;
    // The process was killed and is dead; of the machine nobody knows.
    world.is(&here, RunState::Launching).await;
    world.is(&there, RunState::Lost).await;
    assert_eq!(world.run(&there).await.waits.unwrap().what, WaitsFor::Person);
    assert_eq!(world.run(&there).await.failure.unwrap().message, "it broke");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_is_not_tried_again_while_an_earlier_agent_is_silent() {
    let mut world = World::new().await;
    let run = world.create(&lun("s1", "36005")).await;
    world.settle().await;
    let mut first = world.enrol(&run).await.unwrap();
    world.wait(LEASE + GRACE + 12).await;
    world.enrol(&run).await.unwrap().send(&world, failed("image", false)).await.unwrap();
    world.wait(100).await;
    let lost = world.run(&run).await;
    assert_eq!((lost.state, lost.attempts.len()), (RunState::Lost, 2));
    first.send(&world, failed("target", true)).await.unwrap();
    world.is(&run, RunState::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_with_its_end_is_heard() {
    let mut world = World::new().await;
    let run = world.create(&external("s1", "/dev/vda")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    world.wait(LEASE + GRACE + 1).await;
    world.is(&run, RunState::Lost).await;
    agent.send(&world, finished()).await.unwrap();
    world.is(&run, RunState::Succeeded).await;
}
