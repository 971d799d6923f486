//! What keeps a pod from starting is the reason that people are shown, here and by kubectl.

use serde_json::{Value, json};

use crate::stage::{NAMESPACE, Stage, attempt};

#[test]
fn what_keeps_a_pod_from_starting_is_said_by_the_run_and_by_kubectl() {
    let program = e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN");
    let more = json!({"patience": {"enrol": 8}, "kubernetes": {"fabrics": {"dark": {"fabric": "dark"}}}});
    let stage = Stage::with(&["n1"], &program, more);
    no_node_reaches_a_fabric(&stage);
    a_quota_on_pods_and_one_on_jobs(&stage);
    a_secret_that_is_taken_away(&stage);
}

fn no_node_reaches_a_fabric(stage: &Stage) {
    let (target, mut order) = stage.order("n1");
    order["fabric"] = json!("dark");
    let run = stage.create(&order);
    let shown = stage.until_said(&run, "no node takes its pod");
    assert_eq!(shown["state"], "launching");
    assert!(stage.described(&run, 1).contains("nodes are available"), "{}", stage.described(&run, 1));
    // Nobody enrols in time, and the reason stands.
    let next = stage.until(&run, "tried again", |shown| shown["attempts"].as_array().unwrap().len() == 2);
    let reason = attempt(&next, 1)["reason"].as_str().unwrap();
    assert!(reason.contains("did not enrol within 8 s") && reason.contains("no node takes"), "{reason}");
    stage.cluster.kubectl("label node n1 fabric=dark");
    stage.succeeded(&run, &target);
    stage.no_pod_is_kept();
}

fn a_quota_on_pods_and_one_on_jobs(stage: &Stage) {
    let quota = |hard: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": NAMESPACE}, "spec": {"hard": hard}});
    stage.cluster.apply(&[quota(json!({"pods": "0"}))]);
    stage.until_quota("pods");
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    let shown = stage.until_said(&run, "exceeded quota");
    assert!(shown["reason"].as_str().unwrap().contains("its Job has no pod"), "{shown:#}");
    assert!(stage.described(&run, 1).contains("exceeded quota"));
    stage.kubectl("delete resourcequota q");
    stage.succeeded(&run, &target);

    stage.cluster.apply(&[quota(json!({"count/jobs.batch": "0"}))]);
    stage.until_quota("count/jobs.batch");
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    let shown = stage.until_said(&run, "exceeded quota");
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("its Job z-{run}-1 is not created yet")), "{reason}");
    stage.kubectl("delete resourcequota q");
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["max_attempts"], 3, "what was not even begun is no attempt: {ended:#}");
}

/// Between the service and the node somebody deletes it.
fn a_secret_that_is_taken_away(stage: &Stage) {
    stage.nodes[0].freeze();
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.until(&run, "let go", |_| stage.kubectl("get secrets -o name").contains(&format!("z-{run}-1")));
    stage.kubectl(&format!("delete secret z-{run}-1"));
    stage.nodes[0].thaw();
    stage.until_said(&run, "FailedMount");
    assert!(stage.described(&run, 1).contains("FailedMount"), "{}", stage.described(&run, 1));
    let ended = stage.succeeded(&run, &target);
    let reason = attempt(&ended, 1)["reason"].as_str().unwrap();
    assert!(reason.contains("FailedMount") && reason.contains("did not enrol"), "{reason}");
}

impl Stage {
    /// Waits until the controller has counted.
    fn until_quota(&self, what: &str) {
        let counted = |_: &Value| {
            let quota: Value = serde_json::from_str(&self.kubectl("get resourcequota q -o json")).unwrap();
            !quota["status"]["used"][what].is_null()
        };
        let began = std::time::Instant::now();
        while !counted(&Value::Null) {
            assert!(began.elapsed().as_secs() < 30, "the quota is not counted");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
