//! The node as an object: registered, and its heart beat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::shared::{Shared, stamp};

/// Between two beats; a real one takes ten seconds.
const BEAT: Duration = Duration::from_secs(1);

/// Registers the node and beats for ever.
pub async fn beat(shared: Arc<Shared>) {
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let leases: Api<Lease> = Api::namespaced(shared.client.clone(), "kube-node-lease");
    let (post, merge) = (PostParams::default(), PatchParams::default());
    let force = PatchParams::apply("kubelet").force();
    loop {
        // The object may have been deleted meanwhile: a kubelet makes it again, too.
        let there = shared.insist(|| nodes.get_opt(&shared.name)).await.ok().flatten();
        if there.is_none()
            && let Ok(node) = serde_json::from_value::<Node>(object(&shared))
        {
            let _ = shared.insist(|| nodes.create(&post, &node)).await;
        }
        let status = Patch::Merge(json!({"status": status(&shared, there.as_ref())}));
        let _ = shared.insist(|| nodes.patch_status(&shared.name, &merge, &status)).await;
        let lease = Patch::Apply(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": shared.name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": shared.name, "leaseDurationSeconds": 40, "renewTime": format!("{:.6}", Timestamp::now())},
        }));
        let _ = shared.insist(|| leases.patch(&shared.name, &force, &lease)).await;
        tokio::time::sleep(BEAT).await;
    }
}

fn object(shared: &Shared) -> Value {
    let fixed = [("hostname", shared.name.as_str()), ("os", "linux"), ("arch", "amd64")];
    let fixed = fixed.map(|(name, value)| (format!("kubernetes.io/{name}"), value.to_owned()));
    let labels: BTreeMap<String, String> = fixed.into_iter().chain(shared.labels.clone()).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": shared.name, "labels": labels}})
}

fn status(shared: &Shared, before: Option<&Node>) -> Value {
    let now = stamp(SystemTime::now());
    let conditions = before.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|one| one.type_ == "Ready" && one.status == "True"));
    let since = ready
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map_or_else(|| now.clone(), |time| format!("{:.0}", time.0));
    let mut capacity = json!({"cpu": "64", "memory": "64Gi", "pods": "1000", "ephemeral-storage": "100Gi"});
    for (resource, devices) in &shared.devices {
        capacity[resource] = json!(devices.len().to_string());
    }
    json!({
        "capacity": capacity, "allocatable": capacity,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the agent of the tests is ready",
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        }],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": shared.name}],
        "nodeInfo": {
            "kubeletVersion": "v1.20.2", "kubeProxyVersion": "v1.20.2", "operatingSystem": "linux", "architecture": "amd64",
            "containerRuntimeVersion": "tests://1", "osImage": "", "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}
