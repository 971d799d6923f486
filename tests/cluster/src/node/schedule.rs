//! The scheduler, of which each node plays its own part: it takes the pending pods that fit it better than the other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, Pod, Taint, Toleration};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::shared::{Shared, place, stamp};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);

/// Looks for pods for ever.
pub async fn schedule(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let every = ListParams::default();
    let waiting = ListParams::default().fields("spec.nodeName=,status.phase=Pending");
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(pending) = shared.insist(|| pods.list(&waiting)).await else { continue };
        if pending.items.is_empty() {
            continue;
        }
        let (Ok(nodes), Ok(all)) =
            (shared.insist(|| nodes.list(&every)).await, shared.insist(|| pods.list(&every)).await)
        else {
            continue;
        };
        let mut load = load(&all.items);
        for pod in pending.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let fit = nodes.items.iter().filter(|node| fits(node, pod, &load)).map(name_of);
            match fit.min_by_key(|name| (load.get(name).map_or(0, |used| used.pods), name.clone())) {
                Some(best) => {
                    load.entry(best.clone()).or_default().add(pod);
                    if best == shared.name {
                        bind(&shared, pod).await;
                    }
                }
                None => refuse(&shared, pod, nodes.items.len()).await,
            }
        }
    }
}

/// What a node's pods take of it.
#[derive(Debug, Default)]
struct Used {
    pods: u32,
    devices: BTreeMap<String, usize>,
}

impl Used {
    fn add(&mut self, pod: &Pod) {
        self.pods += 1;
        for (resource, count) in asked(pod) {
            *self.devices.entry(resource).or_default() += count;
        }
    }
}

fn load(pods: &[Pod]) -> BTreeMap<String, Used> {
    let mut load = BTreeMap::<String, Used>::new();
    for pod in pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if let (Some(node), None | Some("Pending" | "Running")) = (node, phase) {
            load.entry(node).or_default().add(pod);
        }
    }
    load
}

/// Resources of device plugins that a pod asks for.
pub fn asked(pod: &Pod) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        // Those of Kubernetes itself have no domain.
        for (resource, quantity) in limits.filter(|(resource, _)| resource.contains('/')) {
            *all.entry(resource.clone()).or_default() += quantity.0.parse::<usize>().unwrap_or(0);
        }
    }
    all
}

fn name_of(node: &Node) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

fn fits(node: &Node, pod: &Pod, load: &BTreeMap<String, Used>) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let matched = |rules: &Vec<NodeSelectorRequirement>| rules.iter().all(|rule| holds(rule, &labels));
    let wanted = required.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| term.match_expressions.as_ref().is_some_and(&matched))
    });
    let tolerations = spec.tolerations.clone().unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerated = taints
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)));
    let open = node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
    let used = load.get(&name_of(node));
    let free = asked(pod).iter().all(|(resource, count)| {
        let there = node.status.iter().flat_map(|status| status.allocatable.iter().flatten());
        let there =
            there.filter(|(name, _)| *name == resource).map(|(_, all)| all.0.parse::<usize>().unwrap_or(0)).sum();
        used.and_then(|used| used.devices.get(resource)).map_or(0, |used| *used) + count <= there
    });
    selected && wanted && tolerated && open && free
}

fn holds(rule: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&rule.key);
    let among = value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
    match rule.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let same = toleration.operator.as_deref() == Some("Exists")
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && same
}

async fn bind(shared: &Shared, pod: &Pod) {
    let (namespace, name) = place(pod);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": shared.name},
    });
    let api = shared.api(&namespace);
    let post = PostParams::default();
    let bound = shared.insist(|| api.create_subresource::<Value, Value>("binding", &name, &post, &binding)).await;
    if bound.is_ok() {
        let message = format!("Successfully assigned {namespace}/{name} to {}", shared.name);
        shared.event(pod, "Normal", "Scheduled", &message).await;
    }
}

async fn refuse(shared: &Shared, pod: &Pod, nodes: usize) {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let said = conditions.is_some_and(|all| all.iter().any(|one| one.reason.as_deref() == Some("Unschedulable")));
    if said {
        return;
    }
    let message = format!(
        "0/{nodes} nodes are available: none has the labels, the tolerations and the resources that are asked for."
    );
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": stamp(SystemTime::now()),
    });
    shared.report(pod, &json!({"conditions": [condition]})).await;
    shared.event(pod, "Warning", "FailedScheduling", &message).await;
}
