//! One thing at a time: what happens to a run in each of its states.

use protocol::control::Code;
use protocol::control::run::{NewRun, Outcome, RunState, WaitsFor};
use serde_json::json;

use crate::world::*;

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
async fn launches_that_fail_are_tried_again() {
    let mut world = World::new().await;
    world.fake.0.lock().unwrap().refuse = 1;
    let run = world.create(&device("s1", "/dev/a")).await;
    world.wait(12).await;
    let found = world.run(&run).await;
    assert_eq!(found.attempts[0].outcome, Some(Outcome::NotLaunched));
    assert_eq!(world.enrol(&run).await.unwrap().enrolled.attempt, 2);
}
