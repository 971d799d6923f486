//! One thing at a time: what happens to a run in each of its states.

use protocol::control::Code;
use protocol::control::agent::Report;
use protocol::control::run::{LauncherKind, NewRun, Outcome, RunState, WaitsFor};
use serde_json::json;

use crate::memory::Fault;
use crate::world::*;

fn code<T: std::fmt::Debug>(answer: Result<T, protocol::control::Problem>) -> Code {
    answer.unwrap_err().code
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_from_queued_to_succeeded() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    world.is(&run, RunState::Launching).await;
    let mut agent = world.enrol(&run).await.unwrap();
    world.is(&run, RunState::Running).await;
    let renewed = agent.renew(&world).await.unwrap();
    assert_eq!((agent.enrolled.attempt, renewed.orders.cancel), (1, false));
    assert_eq!(renewed.certificate.as_ref(), Some(&agent.enrolled.certificate), "over the same key");
    agent.send(&world, progress(40)).await.unwrap();
    assert_eq!(world.run(&run).await.progress.unwrap().bytes, 40);
    assert_eq!(agent.send(&world, finished()).await.unwrap().next, 2);
    let ended = world.run(&run).await;
    assert_eq!((ended.state, ended.attempts[0].outcome.clone()), (RunState::Succeeded, Some(Outcome::Succeeded)));
    assert!(ended.summary.is_some() && ended.ended.is_some() && ended.waits.is_none());
    assert_eq!(code(agent.renew(&world).await), Code::AttemptOver);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_makes_one_run_also_in_parallel_and_after_a_restart() {
    let mut world = World::new().await;
    let new = NewRun::parse(device("s1", "/dev/a").to_string().as_bytes()).unwrap();
    let creates = (0..20).map(|_| world.engine.create(new.clone(), Some("k".into())));
    let made = futures_util::future::join_all(creates).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|(_, is_new)| *is_new).count(), 1);
    assert!(made.iter().all(|(run, _)| run.run == made[0].0.run));
    world.crash().await;
    let (again, is_new) = world.engine.create(new.clone(), Some("k".into())).await.unwrap();
    assert!(!is_new && again.run == made[0].0.run);
    let other = NewRun { priority: 1, ..new };
    assert_eq!(code(world.engine.create(other, Some("k".into())).await), Code::KeyReused);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_enrols_once_and_the_same_process_may_ask_again() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let agent = world.enrol(&run).await.unwrap();
    // The answer was lost: the same process asks again, also another service.
    world.crash().await;
    let again = world.engine.enrol(&agent.token, agent.enrol.clone()).await.unwrap();
    assert_eq!(again, agent.enrolled);
    assert_eq!(code(world.agent(agent.token.clone()).await), Code::AlreadyEnrolled);
    let with_another_key = protocol::control::Enrol { client_key: client_key(77), ..agent.enrol.clone() };
    assert_eq!(code(world.engine.enrol(&agent.token, with_another_key).await), Code::AlreadyEnrolled);
    assert_eq!(code(world.agent(token("of nobody")).await), Code::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_for_one_run_and_one_server() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    let other = world.create(&device("s2", "/dev/b")).await;
    world.settle().await;
    let token = world.fake.token(&run, 1).unwrap();
    let enrol = |run: Option<&protocol::RunId>, server: Option<&str>| protocol::control::Enrol {
        run: run.cloned(),
        nonce: crate::world::token("n"),
        client_key: client_key(77),
        agent: "a".into(),
        server: server.map(|server| server.to_owned().try_into().unwrap()),
    };
    assert_eq!(code(world.engine.enrol(&token, enrol(Some(&other), None)).await), Code::Forbidden);
    assert_eq!(code(world.engine.enrol(&token, enrol(None, Some("s2"))).await), Code::Forbidden);
    world.engine.enrol(&token, enrol(Some(&run), Some("s1"))).await.unwrap();
    // A session is of one attempt of one run.
    let agent = world.enrol(&other).await.unwrap();
    let (session, key) = (&agent.enrolled.session, world.settings.credentials.digest_of_key(&agent.enrol.client_key));
    assert_eq!(code(world.engine.agent(&run, 1, session, &key).await), Code::Unauthorized);
    assert_eq!(code(world.engine.agent(&other, 2, session, &key).await), Code::Unauthorized);
    // And of nobody without the key that has enrolled.
    world.engine.agent(&other, 1, session, &key).await.unwrap();
    let stranger = world.settings.credentials.digest_of_key(&client_key(77));
    assert_eq!(code(world.engine.agent(&other, 1, session, &stranger).await), Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn what_may_help_is_tried_again_within_its_budget_and_what_cannot_is_not() {
    let mut world = World::new().await;
    let mut new = device("s1", "/dev/a");
    new["max_attempts"] = json!(2);
    let run = world.create(&new).await;
    world.settle().await;
    world.enrol(&run).await.unwrap().send(&world, failed("source", true)).await.unwrap();
    let queued = world.run(&run).await;
    assert_eq!((queued.state, queued.waits.unwrap().what), (RunState::Queued, WaitsFor::BackOff));
    world.wait(11).await;
    let mut second = world.enrol(&run).await.unwrap();
    assert_eq!(second.enrolled.attempt, 2);
    let spec: serde_json::Value = serde_json::from_str(&second.enrolled.spec).unwrap();
    assert_eq!((&spec["epoch"], &spec["options"]["resume"]), (&json!(2), &json!(true)));
    second.send(&world, failed("source", true)).await.unwrap();
    let ended = world.run(&run).await;
    assert_eq!((ended.state, ended.attempts.len()), (RunState::Failed, 2));
    // A person may have it tried again.
    world.engine.retry(&run).await.unwrap();
    world.wait(1).await;
    world.enrol(&run).await.unwrap().send(&world, failed("image", false)).await.unwrap();
    let ended = world.run(&run).await;
    assert_eq!((ended.state, ended.attempts.len(), ended.max_attempts), (RunState::Failed, 3, 4));
    assert_eq!(ended.failure.unwrap().exit_code, 3);
}

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
async fn what_a_launcher_says_is_the_reason_until_the_agent_enrols() {
    let world = World::new().await;
    let run = world.create(&in_cluster(device("s1", "/dev/a"))).await;
    world.settle().await;
    world.fake.say(&run, 1, "ImagePullBackOff: no such image");
    world.settle().await;
    assert_eq!(world.run(&run).await.reason, "ImagePullBackOff: no such image");
    assert_eq!(world.run(&run).await.waits.unwrap().detail, "ImagePullBackOff: no such image");
    // Patience does not begin anew with each word, and says what it has waited for.
    world.wait(ENROL_WITHIN + 1).await;
    let found = world.run(&run).await;
    let reason = found.attempts[0].reason.clone().unwrap();
    assert!(reason.contains("did not enrol") && reason.ends_with("ImagePullBackOff: no such image"), "{reason}");
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

#[tokio::test(start_paused = true)]
async fn a_run_can_be_called_off_in_each_state() {
    let mut world = World::with(|settings, _| settings.limits.runs = 2).await;
    let launching = world.create(&device("s1", "/dev/a")).await;
    let running = world.create(&device("s2", "/dev/b")).await;
    let queued = world.create(&device("s3", "/dev/c")).await;
    world.settle().await;
    let mut agent = world.enrol(&running).await.unwrap();
    assert_eq!(world.run(&queued).await.waits.unwrap().what, WaitsFor::Limit);
    for run in [&queued, &launching, &running] {
        world.engine.cancel(run, "no longer wanted").await.unwrap();
        // Twice is once.
        let again = world.engine.cancel(run, "no longer wanted").await;
        assert!(again.is_ok() || again.unwrap_err().code == Code::Conflict);
    }
    world.is(&queued, RunState::Cancelled).await;
    world.is(&launching, RunState::Cancelled).await;
    world.is(&running, RunState::Running).await;
    assert!(agent.renew(&world).await.unwrap().orders.cancel);
    agent.send(&world, failed("cancelled", false)).await.unwrap();
    world.is(&running, RunState::Cancelled).await;
    assert_eq!(world.run(&running).await.attempts[0].outcome, Some(Outcome::Cancelled));
    assert_eq!(code(world.engine.cancel(&running, "again").await), Code::Conflict);
    let killed = world.fake.handle(&launching, 1).unwrap();
    world.settle().await;
    assert!(world.fake.0.lock().unwrap().all[&killed].2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_obey_loses_its_lease() {
    let mut world = World::new().await;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.settle().await;
    let agent = world.enrol(&run).await.unwrap();
    world.engine.cancel(&run, "no longer wanted").await.unwrap();
    for _ in 0..10 {
        agent.renew(&world).await.unwrap();
        world.wait(30).await;
    }
    world.wait(1).await;
    assert_eq!(code(agent.renew(&world).await), Code::AttemptOver);
    world.wait(LEASE + GRACE).await;
    world.is(&run, RunState::Cancelled).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_run() {
    let mut world = World::new().await;
    let mut new = external("s1", "/dev/vda");
    new["deadline"] = json!(100);
    let run = world.create(&new).await;
    world.wait(99).await;
    world.is(&run, RunState::Launching).await;
    world.wait(2).await;
    world.is(&run, RunState::Failed).await;
    assert!(world.run(&run).await.reason.contains("deadline"));
    assert_eq!(code(world.enrol(&run).await), Code::Conflict);
}

#[tokio::test(start_paused = true)]
async fn limits_priorities_and_locks_decide_who_is_next() {
    let mut world = World::with(|settings, _| {
        settings.limits.runs = 4;
        settings.limits.per_source = 2;
        settings.limits.fabrics.insert("blue".to_owned().try_into().unwrap(), 1);
    })
    .await;
    let of = |server: &str, host: &str, fabric: &str, priority: i32| {
        let mut new = external(server, "/dev/vda");
        new["image"]["sources"] = json!([format!("http://{host}/x/")]);
        new["fabric"] = json!(fabric);
        new["priority"] = json!(priority);
        new
    };
    let mut runs = Vec::new();
    for (server, host, fabric, priority) in [
        ("s1", "a", "red", 0),
        ("s1", "b", "red", 0),
        ("s2", "a", "red", 0),
        ("s3", "a", "red", 0),
        ("s4", "b", "blue", 0),
        ("s5", "b", "blue", 9),
        ("s6", "c", "red", -9),
    ] {
        // All are there before the first is started.
        runs.push(world.create(&of(server, host, fabric, priority)).await);
    }
    world.settle().await;
    let mut seen = Vec::new();
    for run in &runs {
        let run = world.run(run).await;
        seen.push((run.state, run.waits.map(|wait| wait.what.name().to_owned()).unwrap_or_default()));
    }
    let launching = seen.iter().filter(|(state, _)| *state == RunState::Launching).count();
    assert_eq!(launching, 4, "{seen:?}");
    let waits: Vec<&str> = seen.iter().map(|(_, wait)| wait.as_str()).collect();
    assert_eq!(waits[1], "server");
    // Whichever of the two came first has the fabric; the other waits for it, or for room.
    assert_eq!([waits[4], waits[5]].iter().filter(|wait| **wait == "agent").count(), 1, "{seen:?}");
    let mut agent = world.enrol(&runs[0]).await.unwrap();
    agent.send(&world, finished()).await.unwrap();
    world.settle().await;
    world.is(&runs[1], RunState::Launching).await;
}

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

#[tokio::test(start_paused = true)]
async fn launches_that_fail_are_tried_again() {
    let mut world = World::new().await;
    world.fake.0.lock().unwrap().refuse = 1;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.wait(12).await;
    let found = world.run(&run).await;
    assert_eq!(found.attempts[0].outcome, Some(Outcome::NotLaunched));
    assert_eq!(world.enrol(&run).await.unwrap().enrolled.attempt, 2);
}

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
