//! The API server goes away, the service goes away, what was watched is too old: nothing is started twice, and nothing is forgotten.

use std::time::{Duration, Instant};

use e2e::Target;
use serde_json::Value;

use crate::stage::{Stage, attempt};

#[test]
fn neither_the_api_server_nor_the_service_need_be_there_all_the_time() {
    let mut stage = Stage::new(&["n1"]);
    what_an_old_server_does_not_heed_is_said(&mut stage);
    launches_wait_for_the_api_server(&stage);
    watches_that_are_too_old_are_begun_anew(&mut stage);
    a_service_that_ends_between_creating_and_watching_leaves_nothing(&mut stage);
    a_service_that_starts_again_adopts_what_runs(&mut stage);
    stage.no_pod_is_kept();
}

/// It drops it, and says nothing.
fn what_an_old_server_does_not_heed_is_said(stage: &mut Stage) {
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.succeeded(&run, &target);
    let said = stage.service_said();
    for field in ["podFailurePolicy", "podReplacementPolicy"] {
        let line = said.lines().find(|line| line.contains("does not heed a field of Jobs") && line.contains(field));
        assert!(line.is_some_and(|line| line.contains("v1.20.2")), "{said}");
        assert!(!stage.kubectl(&format!("get job z-{run}-1 -o json")).contains(field));
    }
    assert!(
        said.contains("up to the enrolment, which takes one process per attempt, to the lease, and to the reservation"),
        "{said}"
    );
}

fn launches_wait_for_the_api_server(stage: &Stage) {
    let orders: Vec<(Target, Value)> = (0..3).map(|_| stage.order("n1")).collect();
    stage.cluster.kill_api();
    let (target, mut order) = stage.order("n1");
    order["server"] = "n1".into();
    let run = stage.create(&order);
    stage.until_no_kubectl(&run, "is not created yet");
    stage.cluster.start_api();
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "an outage is no attempt: {ended:#}");
    // Killed while launches are under way, whatever each has come to.
    for (target, order) in &orders {
        let run = stage.create(order);
        std::thread::sleep(Duration::from_millis(120));
        stage.cluster.kill_api();
        std::thread::sleep(Duration::from_millis(500));
        stage.cluster.start_api();
        let ended = stage.succeeded(&run, target);
        let made = ended["attempts"].as_array().unwrap().len();
        assert_eq!(made, 1, "{ended:#}");
    }
}

fn watches_that_are_too_old_are_begun_anew(stage: &mut Stage) {
    stage.cluster.compact();
    let (target, order) = stage.slow_order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    let pod = stage.pod(&run, 1);
    stage.kubectl(&format!("delete pod {pod} --wait=false"));
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "its death was seen: {ended:#}");
    let said = stage.service_said();
    assert!(said.contains("the watch of a cluster broke off") && said.contains("too old resource version"), "{said}");
}

fn a_service_that_ends_between_creating_and_watching_leaves_nothing(stage: &mut Stage) {
    // Its Job is there, and its Secret is not.
    for attempt_of in 0..4 {
        let (target, order) = stage.order("n1");
        let run = stage.create(&order);
        let began = Instant::now();
        let created = || stage.kubectl("get jobs -o name").contains(&run);
        while attempt_of > 0 && !created() {
            assert!(began.elapsed() < Duration::from_secs(20));
        }
        stage.service.kill();
        stage.service.go();
        let ended = stage.succeeded(&run, &target);
        let last = ended["attempts"].as_array().unwrap().len();
        assert!(last <= 2, "{ended:#}");
        if last == 2 {
            let reason = attempt(&ended, 1)["reason"].as_str().unwrap();
            assert!(reason.contains("the service ended while"), "{reason}");
        }
        let left = |_: &Value| last == 1 || !stage.kubectl("get jobs -o name").contains(&format!("z-{run}-1"));
        stage.until(&run, "cleaned up", left);
    }
}

fn a_service_that_starts_again_adopts_what_runs(stage: &mut Stage) {
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    stage.service.kill();
    stage.service.go();
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
    // It dies while nobody looks.
    let (target, order) = stage.slow_order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    let pod = stage.pod(&run, 1);
    stage.service.kill();
    stage.kubectl(&format!("delete pod {pod} --wait=false"));
    // This server puts another pod in its place. It has the token as well, and comes too late.
    let second = stage.second_pod(&run, &pod);
    stage.service.go();
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended:#}");
    let said = stage.nodes[0].said(&second, "agent");
    assert!(said.contains("enrolled by another process") || said.contains("cancelled while enrolling"), "{said}");
}

impl Stage {
    /// What the service has said since it was started.
    fn service_said(&mut self) -> String {
        self.service.running().stderr()
    }

    /// The UID of the pod that came in the place of another one, once it has begun.
    #[track_caller]
    fn second_pod(&self, run: &str, first: &str) -> String {
        let began = Instant::now();
        loop {
            let pods = self.pods(run, 1);
            let second =
                pods.iter().find(|pod| pod["metadata"]["name"] != *first && pod["status"]["phase"] == "Running");
            if let Some(second) = second {
                return second["metadata"]["uid"].as_str().unwrap().to_owned();
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{pods:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As [`Stage::until_said`], while kubectl has nobody to ask.
    #[track_caller]
    fn until_no_kubectl(&self, run: &str, words: &str) {
        let began = Instant::now();
        loop {
            let shown = self.service.show(run);
            if shown["reason"].as_str().is_some_and(|reason| reason.contains(words)) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{shown:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
