//! What is known of the paths to a target: of each run, to whoever asks for all of them, and after a restart.

use orchestrator::store::Filter;
use protocol::RunId;
use protocol::control::run::{Run, RunState, WaitsFor};
use protocol::event::PathState::{Down, Gone, Up};
use protocol::event::Paths;

use crate::world::*;

/// As the list has it.
async fn listed(world: &World, run: &RunId) -> Run {
    let page = world.engine.list(&Filter::default(), None, 10).await.unwrap();
    page.runs.into_iter().find(|of| of.run == *run).unwrap()
}

fn counted(run: &Run) -> Option<(u32, u32)> {
    run.paths.as_ref().map(|paths| (paths.live, paths.total))
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_lost_stand_in_the_list_also_after_a_restart() {
    let mut world = World::new().await;
    let run = world.create(&lun("s1", "3600a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    assert_eq!(counted(&listed(&world, &run).await), None);
    agent.send(&world, progress(10)).await.unwrap();
    assert_eq!(world.engine.fleet(0).1[0].paths, None, "where all is well nobody is told of it each second");
    agent.send(&world, path(Down, 3)).await.unwrap();
    let lost = listed(&world, &run).await;
    assert_eq!((counted(&lost), lost.waits), (Some((3, 4)), None));
    assert_eq!(world.engine.fleet(0).1[0].paths, Some(Paths { live: 3, total: 4 }));
    world.crash().await;
    assert_eq!(listed(&world, &run).await.paths, lost.paths, "since when as well");
    agent.send(&world, progress(20)).await.unwrap();
    assert_eq!(world.engine.fleet(0).1[0].paths, Some(Paths { live: 3, total: 4 }));
    // One that failed and was back before anybody looked: it is these many for as long as before.
    world.wait(10).await;
    agent.renew(&world).await.unwrap();
    let flapped = [Down, Up].map(|state| agent.event(path(state, 3))).to_vec();
    agent.report(&world, flapped).await.unwrap();
    assert_eq!(listed(&world, &run).await.paths, lost.paths);
    // What the kernel has taken away is lost all the same.
    agent.send(&world, path(Gone, 3)).await.unwrap();
    assert_eq!(listed(&world, &run).await.paths, lost.paths);
    agent.send(&world, path(Up, 4)).await.unwrap();
    let whole = listed(&world, &run).await;
    assert_eq!(counted(&whole), Some((4, 4)));
    assert!(whole.paths.unwrap().since > lost.paths.unwrap().since);
    assert_eq!(world.engine.fleet(0).1[0].paths, None);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_path_waits_for_one_since_it_was_lost() {
    let mut world = World::new().await;
    let run = world.create(&external("s1", "/dev/a")).await;
    world.settle().await;
    let mut agent = world.enrol(&run).await.unwrap();
    world.wait(10).await;
    agent.send(&world, path(Down, 0)).await.unwrap();
    let waiting = listed(&world, &run).await;
    let (wait, paths) = (waiting.waits.as_ref().unwrap(), waiting.paths.as_ref().unwrap());
    assert_eq!(wait.what, WaitsFor::Path);
    assert!(wait.detail.contains("none of the 4 paths from server s1"), "{}", wait.detail);
    assert!(waiting.waits_since() == paths.since && paths.since > waiting.since);
    agent.send(&world, path(Up, 1)).await.unwrap();
    assert_eq!(listed(&world, &run).await.waits, None);
    let other = world.create(&external("s2", "/dev/b")).await;
    world.settle().await;
    world.enrol(&other).await.unwrap().send(&world, path(Gone, 3)).await.unwrap();
    assert_eq!(counted(&listed(&world, &other).await), Some((3, 4)), "it was there before it went");
    // Whoever is lost has them still, for that may be why; the next attempt knows nothing of them yet.
    world.wait(LEASE + GRACE + 60).await;
    let lost = listed(&world, &run).await;
    assert_eq!((counted(&lost), lost.state), (Some((1, 4)), RunState::Lost));
    world.engine.confirm_death(&run, 1).await.unwrap();
    assert_eq!(counted(&listed(&world, &run).await), None);
    world.wait(60).await;
    world.enrol(&run).await.unwrap();
    assert_eq!(counted(&listed(&world, &run).await), None);
}
