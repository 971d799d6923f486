//! What can be told of an attempt from its Job and its pods, and above all: whether it is dead. Nothing here asks a server.
//!
//! That a pod is gone from the API server's sight proves nothing: a node that is cut off runs on, and its pod may be deleted by force. So
//! each pod has a finalizer, which keeps it to be seen, and it is dead when its node has said that its containers have ended.

use std::collections::HashMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use super::informer::Warned;
use super::manifest::CONTAINER;
use crate::launch::{Death, ended};

/// What is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is not dead; how it is, and what it waits for.
    Alive(String),
    /// A pod is being taken away. Kubernetes may put another one in its place, which must not be: the Job is to go.
    Doomed(String),
    /// It is dead, with all that it has started.
    Dead(Death),
    /// Its Job has ended, and no pod of it is seen. Pods may be seen later than their Jobs: it is dead if the server knows none.
    Podless(Death),
    /// There is neither Job nor pod.
    Nothing,
}

/// Looks. `pods`: the first one that was made is the first. `warnings`: the last warning about an object, by its UID.
pub fn look(job: Option<&Job>, pods: &[&Pod], warnings: &HashMap<String, Warned>) -> Sight {
    let is_ending = job.is_none_or(|job| job.metadata.deletion_timestamp.is_some());
    let verdict = job.and_then(verdict);
    let living: Vec<&&Pod> = pods.iter().filter(|pod| !is_dead(pod)).collect();
    let deleted = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_some());
    match (living.first(), pods.first(), job) {
        (_, Some(_), Some(_)) if !is_ending && verdict.is_none() && deleted.is_some() => {
            let (name, why) = deleted.map(|pod| (called(pod), reasons(pod))).unwrap_or_default();
            Sight::Doomed(format!("its pod {name} is being deleted{why}"))
        }
        (Some(pod), ..) if is_ending => Sight::Alive(format!("its Job is being deleted; {}", still(pod))),
        (Some(pod), ..) if pod.metadata.deletion_timestamp.is_some() => Sight::Alive(still(pod)),
        (Some(pod), ..) => Sight::Alive(waits(pod, warnings)),
        (None, Some(pod), _) => Sight::Dead(death(pod, verdict)),
        (None, None, Some(_)) if verdict.is_some() => {
            Sight::Podless(Death { how: verdict.unwrap_or_default(), retryable: true })
        }
        (None, None, Some(_)) if is_ending => Sight::Alive("its Job is being deleted".into()),
        (None, None, Some(job)) => Sight::Alive(match warning(&job.metadata.uid, warnings) {
            Some(warning) => format!("its Job has no pod: {warning}"),
            None => "its Job has no pod yet".into(),
        }),
        (None, None, None) => Sight::Nothing,
    }
}

/// Whether nothing of it runs any more, and nothing ever will. A phase alone is no proof of that for a pod that a node has: kubelets before
/// 1.22 say that they have evicted a pod before they have ended it, and the collector of garbage says that pods have failed whose node is
/// gone.
pub fn is_dead(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    if !containers.is_empty() && containers.iter().all(|container| terminated(container).is_some()) {
        return true;
    }
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    // Nobody can assign one that is being deleted.
    !assigned && (pod.metadata.deletion_timestamp.is_some() || is_over(status))
}

fn is_over(status: Option<&PodStatus>) -> bool {
    status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

fn condition<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = status?.conditions.as_deref().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    found.map(|of| (of.reason.as_deref().unwrap_or_default(), of.message.as_deref().unwrap_or_default()))
}

/// How a Job has ended, in its own words; `None` if it has not.
pub fn verdict(job: &Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let ended =
        conditions.iter().find(|of| matches!(of.type_.as_str(), "Failed" | "Complete") && of.status == "True")?;
    let reason = ended.reason.as_deref().unwrap_or(&ended.type_);
    Some(match ended.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!("its Job has ended: {reason}: {message}"),
        None => format!("its Job has ended: {reason}"),
    })
}

fn called(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn still(pod: &Pod) -> String {
    match node(pod) {
        "" => format!("its pod {} is being deleted", called(pod)),
        node => format!("node {node} has not said yet that the containers of its pod {} have ended", called(pod)),
    }
}

/// Who takes a pod away, and why, as far as it says so.
fn reasons(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let own = status.map(|of| (of.reason.as_deref().unwrap_or_default(), of.message.as_deref().unwrap_or_default()));
    let own = own.filter(|(reason, _)| !reason.is_empty());
    match own.or_else(|| condition(status, "DisruptionTarget")) {
        Some((reason, "")) => format!(": {reason}"),
        Some((reason, message)) => format!(": {reason}: {message}"),
        None => String::new(),
    }
}

/// What a pod waits for that has not started: its own word, else the last warning about it.
fn waits(pod: &Pod, warnings: &HashMap<String, Warned>) -> String {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let (name, node) = (called(pod), node(pod));
    if is_over(status) {
        return format!("{}{}", still(pod), reasons(pod));
    }
    if containers.iter().any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some())) {
        return format!("its pod {name} runs on node {node}");
    }
    let waiting = containers.iter().find_map(|container| container.state.as_ref()?.waiting.as_ref());
    let waiting =
        waiting.map(|of| (of.reason.as_deref().unwrap_or_default(), of.message.as_deref().unwrap_or_default()));
    // These say only that it has not started, and a warning says why.
    let waiting = waiting.filter(|(reason, _)| !matches!(*reason, "" | "ContainerCreating" | "PodInitializing"));
    let unscheduled = status.and_then(|of| of.conditions.as_deref()).unwrap_or_default().iter();
    let mut unscheduled = unscheduled.filter(|of| of.type_ == "PodScheduled" && of.status == "False");
    if let Some((reason, message)) = waiting {
        format!("its pod {name} waits on node {node}: {reason}: {message}")
    } else if let Some(condition) = unscheduled.next() {
        format!("no node takes its pod {name}: {}", condition.message.as_deref().unwrap_or("unschedulable"))
    } else if let Some(warning) = warning(&pod.metadata.uid, warnings) {
        format!("its pod {name} waits: {warning}")
    } else if node.is_empty() {
        format!("its pod {name} has no node yet")
    } else {
        format!("its pod {name} is being started on node {node}")
    }
}

fn warning<'a>(uid: &Option<String>, warnings: &'a HashMap<String, Warned>) -> Option<&'a String> {
    warnings.get(uid.as_ref()?).map(|warned| &warned.text)
}

/// How it died, as far as anybody says so.
fn death(pod: &Pod, verdict: Option<String>) -> Death {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let agent = containers.iter().find(|container| container.name == CONTAINER).and_then(terminated);
    let (name, why) = (called(pod), reasons(pod));
    let code = agent.map(|agent| agent.exit_code);
    let by = agent.and_then(|agent| agent.reason.as_deref()).filter(|reason| *reason == "OOMKilled");
    let how = match (why.as_str(), by, code, pod.metadata.deletion_timestamp.is_some()) {
        ("", Some(_), ..) => {
            format!("its agent ran out of memory (pod {name}): give it more with `kubernetes.memory_mib`")
        }
        ("", None, code, true) => {
            let code = code.map(|code| format!(", and its agent ended with exit code {code}")).unwrap_or_default();
            match &verdict {
                Some(verdict) => format!("{verdict}; its pod {name} was deleted{code}"),
                None => format!("its pod {name} was deleted{code}"),
            }
        }
        ("", None, Some(code), false) => format!("{} (pod {name})", ended(code)),
        ("", None, None, false) => verdict.unwrap_or_else(|| format!("its pod {name} has ended and started nothing")),
        (why, ..) => format!("its pod {name} was ended{why}"),
    };
    let was_taken_away = !why.is_empty() || pod.metadata.deletion_timestamp.is_some();
    Death { how, retryable: was_taken_away || !matches!(code, Some(2 | 3)) }
}

#[cfg(test)]
mod tests;
