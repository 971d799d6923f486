//! Keys of disks: made, given, shown and destroyed, whatever the store and the keeper do meanwhile.

use orchestrator::metrics::{Now, Tally};
use protocol::control::key::KeyAction;
use protocol::control::run::{NewRun, RunState, What};
use protocol::control::{Code, Problem};
use protocol::spec::KeySource;
use protocol::{RunId, RunSpec};
use serde_json::json;

use crate::memory::Fault;
use crate::world::*;

fn code<T: std::fmt::Debug>(answer: Result<T, Problem>) -> Code {
    answer.unwrap_err().code
}

fn actions(world: &World, run: &RunId) -> Vec<KeyAction> {
    let kept = world.memory.0.lock().unwrap();
    let of = kept.told.iter().filter(|told| told.happening.run == *run);
    of.filter_map(|told| match &told.happening.what {
        What::Key(event) => Some(event.action.clone()),
        _ => None,
    })
    .collect()
}

async fn running() -> (World, RunId, Agent) {
    let mut world = World::new().await;
    let run = world.create(&encrypted(device("s1", "/dev/a"))).await;
    world.settle().await;
    let agent = world.enrol(&run).await.unwrap();
    (world, run, agent)
}

#[tokio::test(start_paused = true)]
async fn a_key_is_made_with_its_run_given_to_its_attempt_and_shown_to_its_owner() {
    let (world, run, mut agent) = running().await;
    assert_eq!(RunSpec::parse(agent.enrolled.spec.as_bytes()).unwrap().key, KeySource::Service);
    let given = agent.key(&world).await.unwrap();
    assert_eq!(code(agent.key(&world).await), Code::KeyReleased);
    assert_eq!(world.engine.show_key(&run, "ada").await.unwrap().key, given);
    assert_eq!(code(world.engine.show_key(&run, "bob").await), Code::KeyShown);
    assert_eq!(code(world.engine.destroy_key(&run, "ada").await), Code::Conflict);
    agent.send(&world, finished()).await.unwrap();
    assert_eq!(code(agent.key(&world).await), Code::AttemptOver);
    let shown = world.engine.destroy_key(&run, "bob").await.unwrap().key.unwrap();
    assert_eq!((shown.source, shown.released), (KeySource::Service, vec![1]));
    assert_eq!((shown.shown.unwrap().by, shown.destroyed.unwrap().by), ("ada".into(), "bob".into()));
    world.settle().await;
    assert!(world.desk.0.lock().unwrap().keys.is_empty(), "what lies elsewhere is destroyed as well");
    let all = [KeyAction::Made, KeyAction::Released, KeyAction::Shown, KeyAction::Destroyed, KeyAction::Erased];
    assert_eq!(actions(&world, &run), all);
    assert!(world.memory.0.lock().unwrap().elsewhere.is_empty());
}

#[tokio::test(start_paused = true)]
async fn runs_without_a_key_of_the_service_have_none() {
    let mut world = World::new().await;
    let mut own = encrypted(device("s1", "/dev/a"));
    own["key"] = json!("agent");
    for (new, source) in [(own, Some(KeySource::Agent)), (device("s2", "/dev/b"), None)] {
        let run = world.create(&new).await;
        world.settle().await;
        let agent = world.enrol(&run).await.unwrap();
        assert_eq!(RunSpec::parse(agent.enrolled.spec.as_bytes()).unwrap().key, KeySource::Agent);
        assert_eq!(world.run(&run).await.key.map(|key| key.source), source);
        assert_eq!(code(agent.key(&world).await), Code::NotFound);
        assert_eq!(code(world.engine.show_key(&run, "ada").await), Code::NotFound);
    }
    assert!(world.desk.0.lock().unwrap().keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_request_makes_one_key() {
    let world = World::new().await;
    let new = NewRun::parse(encrypted(device("s1", "/dev/a")).to_string().as_bytes()).unwrap();
    let creates = (0..10).map(|_| world.engine.create(new.clone(), Some("k".into())));
    let made = futures_util::future::join_all(creates).await;
    world.settle().await;
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 1);
    let run = made[0].as_ref().unwrap().0.run.clone();
    assert_eq!(actions(&world, &run), [KeyAction::Made]);
    world.engine.show_key(&run, "ada").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_called_off_gives_nothing_and_begins_anew_under_another_key() {
    let (mut world, run, mut agent) = running().await;
    let first = agent.key(&world).await.unwrap();
    world.engine.cancel(&run, "no longer wanted").await.unwrap();
    assert_eq!(code(agent.key(&world).await), Code::KeyGone);
    assert_eq!(code(world.engine.show_key(&run, "ada").await), Code::KeyGone);
    assert_eq!(world.run(&run).await.state, RunState::Running, "its agent has not obeyed yet");
    agent.send(&world, failed("cancelled", false)).await.unwrap();
    world.crash().await;
    let retried = world.engine.retry(&run).await.unwrap().key.unwrap();
    assert!(retried.destroyed.is_none() && retried.released.is_empty(), "{retried:?}");
    world.settle().await;
    let second = world.enrol(&run).await.unwrap().key(&world).await.unwrap();
    assert!(first != second && world.desk.0.lock().unwrap().keys.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_is_tried_again_under_its_key() {
    let (mut world, run, mut agent) = running().await;
    let first = agent.key(&world).await.unwrap();
    agent.send(&world, failed("source", true)).await.unwrap();
    world.wait(11).await;
    let mut next = world.enrol(&run).await.unwrap();
    assert_eq!(next.key(&world).await.unwrap(), first);
    next.send(&world, failed("image", false)).await.unwrap();
    world.engine.retry(&run).await.unwrap();
    world.settle().await;
    assert_eq!(world.enrol(&run).await.unwrap().key(&world).await.unwrap(), first);
    assert_eq!(world.run(&run).await.key.unwrap().released, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_and_not_answered_is_given_to_nobody() {
    let (world, run, agent) = running().await;
    // The fault after the commit; the first two reads are of who asks.
    world.memory.0.lock().unwrap().faults = vec![Fault::After];
    assert_eq!(code(agent.key(&world).await), Code::Unavailable);
    world.wait(1).await;
    assert_eq!(code(agent.key(&world).await), Code::KeyReleased);
    // What was not stored has not happened.
    world.memory.0.lock().unwrap().faults = vec![Fault::Before];
    assert_eq!(code(world.engine.show_key(&run, "ada").await), Code::Unavailable);
    world.wait(1).await;
    world.engine.show_key(&run, "ada").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_opened_is_not_marked_as_given() {
    let (world, run, agent) = running().await;
    world.desk.0.lock().unwrap().shut = true;
    let problem = agent.key(&world).await.unwrap_err();
    assert_eq!((problem.code, problem.hint.as_deref()), (Code::KeyShut, Some("open it")));
    assert_eq!(code(world.engine.show_key(&run, "ada").await), Code::KeyShut);
    world.desk.0.lock().unwrap().shut = false;
    assert_eq!(agent.key(&world).await.unwrap(), world.engine.show_key(&run, "ada").await.unwrap().key);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_called_off_while_its_agent_finishes_is_no_success_without_its_key() {
    let (world, run, mut agent) = running().await;
    agent.key(&world).await.unwrap();
    world.engine.cancel(&run, "called off").await.unwrap();
    agent.send(&world, finished()).await.unwrap();
    let shown = world.run(&run).await;
    assert_eq!(shown.state, RunState::Cancelled, "{}", shown.reason);
    assert!(shown.reason.contains("under the key that is destroyed") && shown.summary.is_some(), "{}", shown.reason);
    // It can be tried again, and gets another one.
    assert_eq!(world.engine.retry(&run).await.unwrap().key.unwrap().destroyed, None);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_late_can_be_called_off_as_well_and_its_key_goes() {
    let mut world = World::new().await;
    let mut order = encrypted(device("s1", "/dev/a"));
    order["deadline"] = json!(30);
    let run = world.create(&order).await;
    world.settle().await;
    let agent = world.enrol(&run).await.unwrap();
    while !world.run(&run).await.cancel {
        world.wait(5).await;
        agent.renew(&world).await.unwrap();
    }
    assert!(world.run(&run).await.key.unwrap().destroyed.is_none(), "late alone is no reason");
    world.engine.cancel(&run, "called off").await.unwrap();
    assert!(world.run(&run).await.key.unwrap().destroyed.is_some());
    assert_eq!(code(world.engine.show_key(&run, "ada").await), Code::KeyGone);
}

#[tokio::test(start_paused = true)]
async fn whoever_destroys_the_key_of_a_disk_that_is_done_is_told_what_is_left() {
    let (world, run, mut agent) = running().await;
    agent.send(&world, finished()).await.unwrap();
    world.engine.show_key(&run, "ada").await.unwrap();
    let hint = |problem: Problem| problem.hint.unwrap_or_default();
    assert!(hint(world.engine.show_key(&run, "ada").await.unwrap_err()).contains("a new run"));
    world.engine.destroy_key(&run, "ada").await.unwrap();
    assert!(hint(world.engine.show_key(&run, "ada").await.unwrap_err()).contains("a new run"));
    assert_eq!(code(world.engine.retry(&run).await), Code::Conflict);
}

fn to_erase(world: &World) -> usize {
    let text = world.settings.metrics.text(&Tally::default(), Now { watchers: 0, store_up: true });
    let line = text.lines().find_map(|line| line.strip_prefix("z_orchestrator_keys_to_erase ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_destroyed_is_given_to_nobody_at_once_and_is_gone_elsewhere_however_long_that_takes() {
    let (mut world, run, mut agent) = running().await;
    world.desk.0.lock().unwrap().shut = true;
    world.engine.cancel(&run, "called off").await.unwrap();
    assert_eq!(code(agent.key(&world).await), Code::KeyGone);
    agent.send(&world, failed("cancelled", false)).await.unwrap();
    let remains = async |world: &World| world.run(&run).await.key.unwrap().remains;
    world.wait(300).await;
    assert_eq!((remains(&world).await, to_erase(&world)), (1, 1));
    assert_eq!(actions(&world, &run), [KeyAction::Made, KeyAction::Destroyed]);
    // The service is killed, and the next one knows; of a retried run as well, which has another key by now.
    world.crash().await;
    world.wait(300).await;
    world.engine.retry(&run).await.unwrap();
    let retried = world.run(&run).await.key.unwrap();
    assert_eq!((retried.destroyed, retried.remains, to_erase(&world)), (None, 1, 1));
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 2);
    world.crash().await;
    world.desk.0.lock().unwrap().shut = false;
    world.wait(61).await;
    assert_eq!((remains(&world).await, to_erase(&world)), (0, 0));
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 1, "the one that the run has");
    assert!(world.memory.0.lock().unwrap().elsewhere.is_empty());
    assert_eq!(actions(&world, &run), [KeyAction::Made, KeyAction::Destroyed, KeyAction::Made, KeyAction::Erased]);
    world.engine.show_key(&run, "ada").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_for_no_run_is_destroyed() {
    let mut world = World::new().await;
    let new = || NewRun::parse(encrypted(device("s1", "/dev/a")).to_string().as_bytes()).unwrap();
    // It was made, and nobody has heard of it.
    world.desk.0.lock().unwrap().loses = true;
    assert_eq!(code(world.engine.create(new(), None).await), Code::KeyShut);
    world.desk.0.lock().unwrap().loses = false;
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 1);
    world.wait(121).await;
    assert!(world.desk.0.lock().unwrap().keys.is_empty());
    // Whether the run was created is not known: it was not.
    world.memory.0.lock().unwrap().faults = vec![Fault::Before, Fault::None];
    assert_eq!(code(world.engine.create(new(), None).await), Code::Unavailable);
    world.wait(60).await;
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 1, "it could still become one");
    world.wait(61).await;
    assert!(world.desk.0.lock().unwrap().keys.is_empty());
    // Nobody waits any more for what he asked for, and it is followed up all the same.
    world.desk.0.lock().unwrap().loses = true;
    let gone = tokio::time::timeout(std::time::Duration::ZERO, world.engine.create(new(), None)).await;
    world.settle().await;
    world.desk.0.lock().unwrap().loses = false;
    assert!(gone.is_err() && world.desk.0.lock().unwrap().keys.len() == 1);
    world.wait(121).await;
    assert!(world.desk.0.lock().unwrap().keys.is_empty());
    // It was.
    world.memory.0.lock().unwrap().faults = vec![Fault::After, Fault::None, Fault::None];
    assert_eq!(code(world.engine.create(new(), Some("k".into())).await), Code::Unavailable);
    world.crash().await;
    world.settle().await;
    assert_eq!(world.desk.0.lock().unwrap().keys.len(), 1);
    let (run, is_new) = world.engine.create(new(), Some("k".into())).await.unwrap();
    assert!(!is_new);
    world.engine.show_key(&run.run, "ada").await.unwrap();
    // Another request under the same key gets none.
    let other = NewRun::parse(encrypted(device("s2", "/dev/a")).to_string().as_bytes()).unwrap();
    assert_eq!(code(world.engine.create(other, Some("k".into())).await), Code::KeyReused);
    world.settle().await;
    let kept = world.memory.0.lock().unwrap();
    assert_eq!((world.desk.0.lock().unwrap().keys.len(), kept.elsewhere.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_goes_keeps_no_other_back() {
    let world = World::new().await;
    let runs = [("s1", "/dev/a"), ("s2", "/dev/b"), ("s3", "/dev/c")];
    let mut created = Vec::new();
    for (server, path) in runs {
        created.push(world.create(&encrypted(external(server, path))).await);
    }
    world.desk.0.lock().unwrap().stuck = Some(created[0].clone());
    for run in &created {
        world.engine.cancel(run, "called off").await.unwrap();
    }
    world.wait(10).await;
    assert_eq!((to_erase(&world), world.desk.0.lock().unwrap().keys.len()), (1, 1));
    assert_eq!(world.run(&created[0]).await.key.unwrap().remains, 1);
    assert_eq!(world.run(&created[2]).await.key.unwrap().remains, 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_run_has_is_not_destroyed_whatever_the_list_says() {
    let mut world = World::new().await;
    let run = world.create(&encrypted(external("s1", "/dev/a"))).await;
    let place = world.desk.0.lock().unwrap().keys.keys().next().unwrap().clone();
    world.memory.0.lock().unwrap().elsewhere.insert(place, run.clone());
    world.crash().await;
    world.settle().await;
    assert!(world.memory.0.lock().unwrap().elsewhere.is_empty());
    world.engine.show_key(&run, "ada").await.unwrap();
}
