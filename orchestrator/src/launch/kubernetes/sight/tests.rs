//! What is concluded from Jobs and pods, as API servers of several versions show them.

use serde_json::{Value, json};

use super::*;

fn job(more: Value) -> Job {
    let mut job = json!({ "metadata": { "name": "z-r-1-1", "uid": "J" } });
    merge(&mut job, more);
    serde_json::from_value(job).unwrap()
}

/// On node n1, and running.
fn pod(more: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "z-r-1-1-x", "uid": "P", "finalizers": ["z-provisioner/seen-dead"] },
        "spec": { "nodeName": "n1", "containers": [{ "name": "agent" }] },
        "status": { "phase": "Running", "containerStatuses": [container(json!({ "running": {} }))] },
    });
    merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn container(state: Value) -> Value {
    json!({ "name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state })
}

fn terminated(code: i32, more: Value) -> Value {
    let mut terminated = json!({ "exitCode": code });
    merge(&mut terminated, more);
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    json!({ "status": { "phase": phase, "containerStatuses": [container(json!({ "terminated": terminated }))] } })
}

fn deleted() -> Value {
    json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })
}

fn over(kind: &str, reason: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": kind, "status": "True", "reason": reason, "message": "it is so" }] } })
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn with(mut one: Value, two: Value) -> Value {
    merge(&mut one, two);
    one
}

fn sees(job: Option<Job>, pods: &[Pod]) -> Sight {
    let warnings = HashMap::from([
        ("P".to_owned(), Warned::saying("FailedMount: no such secret")),
        ("J".into(), Warned::saying("FailedCreate: quota")),
    ]);
    look(job.as_ref(), &pods.iter().collect::<Vec<_>>(), &warnings)
}

#[track_caller]
fn alive(sight: Sight, words: &str) {
    assert!(matches!(&sight, Sight::Alive(how) if how.contains(words)), "{sight:?}");
}

#[track_caller]
fn dead(sight: Sight, words: &str, retryable: bool) {
    let is_so = |death: &Death| death.how.contains(words) && death.retryable == retryable;
    assert!(matches!(&sight, Sight::Dead(death) if is_so(death)), "{sight:?}");
}

#[test]
fn what_a_pod_waits_for_is_said_in_the_words_of_whoever_keeps_it() {
    alive(sees(Some(job(json!({}))), &[]), "has no pod: FailedCreate: quota");
    let pending = |more| pod(with(json!({ "status": { "phase": "Pending", "containerStatuses": [] } }), more));
    alive(sees(Some(job(json!({}))), &[pending(json!({}))]), "waits: FailedMount: no such secret");
    let unscheduled = json!({ "spec": { "nodeName": null }, "status": {
        "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" }],
    } });
    alive(sees(Some(job(json!({}))), &[pending(unscheduled)]), "no node takes its pod z-r-1-1-x: 0/3 nodes");
    let pull = container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }));
    let pull = json!({ "status": { "containerStatuses": [pull] } });
    alive(sees(Some(job(json!({}))), &[pending(pull)]), "on node n1: ImagePullBackOff: no such image");
    let creating = json!({ "status": { "containerStatuses": [container(json!({ "waiting": { "reason": "ContainerCreating" } }))] } });
    alive(sees(Some(job(json!({}))), &[pending(creating)]), "FailedMount");
    alive(sees(Some(job(json!({}))), &[pod(json!({}))]), "runs on node n1");
}

#[test]
fn an_agent_that_has_ended_is_dead_and_its_exit_code_says_whether_to_try_again() {
    for (code, retryable) in [(0, true), (2, false), (3, false), (4, true), (5, true), (8, true), (137, true)] {
        let words = if code == 0 { "ended well" } else { "exit code" };
        dead(sees(Some(job(json!({}))), &[pod(terminated(code, json!({})))]), words, retryable);
    }
    dead(sees(Some(job(json!({}))), &[pod(terminated(137, json!({ "reason": "OOMKilled" })))]), "out of memory", true);
    let evicted =
        with(terminated(137, json!({})), json!({ "status": { "reason": "Evicted", "message": "low on memory" } }));
    dead(sees(Some(job(json!({}))), &[pod(evicted)]), "was ended: Evicted: low on memory", true);
}

#[test]
fn a_pod_that_is_deleted_must_not_be_replaced() {
    let sight = sees(Some(job(json!({}))), &[pod(deleted())]);
    assert!(matches!(&sight, Sight::Doomed(why) if why.contains("z-r-1-1-x is being deleted")), "{sight:?}");
    // Also where the second one is there already.
    let second = pod(json!({ "metadata": { "name": "second", "uid": "Q" } }));
    assert!(matches!(sees(Some(job(json!({}))), &[pod(deleted()), second.clone()]), Sight::Doomed(_)));
    // Then the Job goes, and it is waited for both.
    alive(sees(Some(job(deleted())), &[pod(with(deleted(), terminated(8, json!({})))), second]), "n1 has not said");
    dead(
        sees(Some(job(deleted())), &[pod(with(deleted(), terminated(8, json!({}))))]),
        "was deleted, and its agent ended with exit code 8",
        true,
    );
}

#[test]
fn a_pod_whose_node_says_nothing_is_not_dead_whatever_has_become_of_its_objects() {
    alive(sees(None, &[pod(deleted())]), "node n1 has not said yet");
    // Deleted by force; or collected, because its node is gone.
    alive(sees(None, &[pod(with(deleted(), json!({ "metadata": { "deletionGracePeriodSeconds": 0 } })))]), "node n1");
    let collected = with(
        deleted(),
        json!({ "status": { "phase": "Failed", "conditions":
        [{ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC" }] } }),
    );
    alive(sees(None, &[pod(collected.clone())]), "node n1");
    let evicted = json!({ "status": { "phase": "Failed", "reason": "Evicted", "containerStatuses": [] } });
    alive(sees(Some(job(json!({}))), &[pod(evicted)]), "n1 has not said");
    let unstarted = json!({ "status": { "containerStatuses": [container(json!({ "waiting": {} }))] } });
    alive(sees(None, &[pod(with(collected, unstarted))]), "node n1");
}

#[test]
fn a_pod_that_no_node_has_taken_has_started_nothing() {
    let unassigned = json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending", "containerStatuses": [] } });
    dead(sees(Some(job(deleted())), &[pod(with(deleted(), unassigned))]), "was deleted", true);
    let refused =
        json!({ "status": { "phase": "Failed", "reason": "OutOfcpu", "message": "no room", "containerStatuses": [] } });
    // Whether a node that has it has started something is not known from that.
    alive(sees(Some(job(json!({}))), &[pod(refused)]), "OutOfcpu: no room");
}

#[test]
fn a_job_that_has_ended_says_why() {
    let podless = sees(Some(job(over("Failed", "DeadlineExceeded"))), &[]);
    assert!(
        matches!(&podless, Sight::Podless(death) if death.how.contains("DeadlineExceeded: it is so")),
        "{podless:?}"
    );
    let late = pod(with(deleted(), terminated(8, json!({}))));
    dead(sees(Some(job(over("Failed", "DeadlineExceeded"))), &[late]), "DeadlineExceeded", true);
    alive(sees(Some(job(over("Failed", "DeadlineExceeded"))), &[pod(deleted())]), "has not said yet");
    alive(sees(Some(job(deleted())), &[]), "its Job is being deleted");
    assert_eq!(sees(None, &[]), Sight::Nothing);
}
