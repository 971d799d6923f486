//! Pods that are taken away while they write: the next attempt goes on, and the first one writes no more.

use std::time::Duration;

use serde_json::Value;

use crate::stage::{NAMESPACE, Stage, attempt};

#[test]
fn a_run_is_a_job_and_what_is_taken_away_is_gone_on_with() {
    let stage = Stage::new(&["n1"]);
    a_run_is_a_job(&stage);
    a_second_pod_of_an_attempt_gets_nothing(&stage);
    a_deleted_pod_is_replaced_and_the_second_one_gets_nothing(&stage);
    an_eviction_is_refused_while_it_writes_and_a_kubelet_evicts_all_the_same(&stage);
    a_job_deleted_by_hand_is_one_more_attempt(&stage);
    a_run_that_is_called_off_ends_its_job(&stage);
    stage.no_pod_is_kept();
}

fn a_run_is_a_job(stage: &Stage) {
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
    let job: Value = serde_json::from_str(&stage.kubectl(&format!("get job z-{run}-1 -o json"))).unwrap();
    assert_eq!((&job["spec"]["backoffLimit"], &job["spec"]["activeDeadlineSeconds"]), (&0.into(), &86_400.into()));
    let handle = attempt(&ended, 1)["handle"].as_str().unwrap();
    assert!(handle.starts_with(&format!("z-{run}-1:{}:", job["metadata"]["uid"].as_str().unwrap())), "{handle}");
    // What it was given goes with it.
    for kind in ["secret", "poddisruptionbudget"] {
        let owned: Value = serde_json::from_str(&stage.kubectl(&format!("get {kind} z-{run}-1 -o json"))).unwrap();
        assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], job["metadata"]["uid"]);
    }
    let complete = |_: &Value| stage.kubectl(&format!("get job z-{run}-1")).contains("1/1");
    stage.until(&run, "a Job that is complete", complete);
    stage.kubectl(&format!("delete job z-{run}-1"));
    for kind in ["secret", "poddisruptionbudget", "pod"] {
        let gone = |_: &Value| !stage.kubectl(&format!("get {kind} -o name")).contains(&run);
        stage.until(&run, "cleaned up", gone);
    }
}

/// Whoever copies a pod has its token as well, and nothing from that.
fn a_second_pod_of_an_attempt_gets_nothing(stage: &Stage) {
    let (target, order) = stage.slow_order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    let mut second = stage.pods(&run, 1).remove(0);
    second["metadata"] = serde_json::json!({"name": "second", "namespace": NAMESPACE});
    second["status"] = Value::Null;
    stage.cluster.apply(&[second]);
    let failed = |_: &Value| stage.kubectl("get pod second -o json").contains(r#""phase": "Failed""#);
    stage.until(&run, "refused", failed);
    let second: Value = serde_json::from_str(&stage.kubectl("get pod second -o json")).unwrap();
    let said = stage.nodes[0].said(second["metadata"]["uid"].as_str().unwrap(), "agent");
    assert!(said.contains("enrolled by another process"), "{said}");
    stage.kubectl("delete pod second --wait=false");
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
}

/// This server is one that replaces a pod as soon as it is deleted, while it still runs.
fn a_deleted_pod_is_replaced_and_the_second_one_gets_nothing(stage: &Stage) {
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    let pod = stage.pod(&run, 1);
    stage.kubectl(&format!("delete pod {pod} --wait=false"));
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended:#}");
    assert_ne!(attempt(&ended, 1)["outcome"], "succeeded");
    assert!(ended["summary"]["kept_bytes"].as_u64().unwrap() > 0, "it goes on with what is there: {ended:#}");
}

fn an_eviction_is_refused_while_it_writes_and_a_kubelet_evicts_all_the_same(stage: &Stage) {
    let (target, order) = stage.slow_order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    let pod = stage.pod(&run, 1);
    let refused = stage.evict(&pod);
    assert!(refused.contains("disruption budget"), "{refused}");
    stage.nodes[0].evict(NAMESPACE, &pod);
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended:#}");
    assert!(stage.described(&run, 1).contains("Evicted"));
}

fn a_job_deleted_by_hand_is_one_more_attempt(stage: &Stage) {
    for how in ["", "--cascade=orphan", "--cascade=foreground"] {
        let (target, order) = stage.order("n1");
        let run = stage.create(&order);
        stage.until_it_writes(&run);
        stage.kubectl(&format!("delete job z-{run}-1 --wait=false {how}"));
        let ended = stage.succeeded(&run, &target);
        let made = ended["attempts"].as_array().unwrap().len();
        // An orphan goes on, and comes to its end.
        assert_eq!(made, if how == "--cascade=orphan" { 1 } else { 2 }, "{how}: {ended:#}");
    }
}

fn a_run_that_is_called_off_ends_its_job(stage: &Stage) {
    let (_target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    stage.service.client("cancel").arg(&run).done().ok();
    stage.service.until(&run, &["cancelled"], 30);
    let over = |_: &Value| stage.kubectl(&format!("get job z-{run}-1 -o json")).contains("\"Failed\"");
    stage.until(&run, "a Job that has ended", over);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(stage.service.show(&run)["attempts"].as_array().unwrap().len(), 1);
}
