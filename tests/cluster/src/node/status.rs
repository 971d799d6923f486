//! What a kubelet reports of a pod.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::engine::State;
use super::shared::stamp;

/// One container.
#[derive(Debug, Clone)]
pub struct Contained {
    /// Its name in the pod.
    pub name: String,
    /// Its image.
    pub image: String,
    /// How it is; [`State::Absent`] is one that waits.
    pub state: State,
    /// Why it waits, and what there is to say about that.
    pub waiting: (String, String),
    /// How it ended the last time.
    pub last: State,
    /// How often it was started again.
    pub restarts: u32,
    /// Its probe says so, or it has none.
    pub ready: bool,
    /// Its name on this machine.
    pub id: String,
}

/// The phase of a pod whose containers are not started again.
pub fn phase(containers: &[Contained]) -> &'static str {
    let code = |one: &Contained| match one.state {
        State::Ended { code, .. } => Some(code),
        _ => None,
    };
    match containers.iter().map(code).collect::<Option<Vec<i32>>>() {
        Some(codes) if codes.iter().all(|code| *code == 0) => "Succeeded",
        Some(_) => "Failed",
        None if containers.iter().all(|one| one.state == State::Absent && one.restarts == 0) => "Pending",
        None => "Running",
    }
}

/// The whole status; `ended` is said instead of what the containers show: a phase, a reason, a message.
pub fn status(pod: &Pod, containers: &[Contained], ended: Option<(&str, &str, &str)>) -> Value {
    let phase = ended.map_or_else(|| phase(containers), |ended| ended.0);
    let over = matches!(phase, "Succeeded" | "Failed");
    let ready = !over && containers.iter().all(|one| one.ready && matches!(one.state, State::Running { .. }));
    let why = if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" };
    let conditions =
        [("Initialized", true, ""), ("Ready", ready, why), ("ContainersReady", ready, why), ("PodScheduled", true, "")];
    let conditions = conditions.map(|(name, so, why)| condition(pod, name, so, why));
    let mut status = json!({
        "phase": phase,
        "conditions": conditions,
        "hostIP": "127.0.0.1", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
        "startTime": started(pod),
        "containerStatuses": containers.iter().map(contained).collect::<Vec<_>>(),
        // Null takes it away.
        "reason": ended.map(|ended| ended.1), "message": ended.map(|ended| ended.2),
    });
    if containers.iter().all(|one| one.state == State::Absent) {
        // As long as nothing runs there is no network, and so no address.
        ["podIP", "podIPs"].into_iter().for_each(|name| status[name] = Value::Null);
    }
    status
}

/// When the node first saw the pod.
fn started(pod: &Pod) -> String {
    let before = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    before.map_or_else(|| stamp(SystemTime::now()), |time| format!("{:.0}", time.0))
}

fn condition(pod: &Pod, name: &str, so: bool, why: &str) -> Value {
    let word = if so { "True" } else { "False" };
    let before = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same =
        before.filter(|one| one.type_ == name && one.status == word).find_map(|one| one.last_transition_time.as_ref());
    let since = same.map_or_else(|| stamp(SystemTime::now()), |time| format!("{:.0}", time.0));
    let mut condition = json!({"type": name, "status": word, "lastTransitionTime": since});
    if !so {
        condition["reason"] = json!(why);
    }
    condition
}

fn contained(one: &Contained) -> Value {
    let running = matches!(one.state, State::Running { .. });
    let id = if one.state == State::Absent { String::new() } else { format!("tests://{}", one.id) };
    json!({
        "name": one.name, "image": one.image, "imageID": one.image, "restartCount": one.restarts, "containerID": id,
        "ready": running && one.ready, "started": running,
        "state": state(one, &one.state),
        "lastState": if one.last == State::Absent { json!({}) } else { state(one, &one.last) },
    })
}

fn state(one: &Contained, state: &State) -> Value {
    match state {
        // What is not the case has to be taken away: statuses are merged.
        State::Absent => {
            json!({"waiting": {"reason": one.waiting.0, "message": one.waiting.1}})
        }
        State::Running { since } => json!({"running": {"startedAt": stamp(*since)}}),
        State::Ended { since, at, code, starved } => {
            let reason = match code {
                _ if *starved => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            };
            json!({"terminated": {
                "exitCode": code, "reason": reason, "startedAt": stamp(*since), "finishedAt": stamp(*at),
                "containerID": format!("tests://{}", one.id),
            }})
        }
    }
}

/// A container of which nothing is known any more: as a kubelet reports it.
pub fn lost() -> State {
    let now = SystemTime::now();
    State::Ended { since: now, at: now, code: 137, starved: false }
}
