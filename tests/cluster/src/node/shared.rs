//! What all parts of a node's agent have in common: who it is, its way to the API server, and whether it is cut off from it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::engine::Engine;

/// Until an API server that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(300);

/// What a pod's life is told from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Seconds for an end of its own accord, where the pod is being deleted.
    pub delete: Option<i64>,
    /// It is evicted, as by a node under pressure.
    pub evict: bool,
}

/// One agent.
pub struct Shared {
    /// The node's name.
    pub name: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Resources of device plugins, and the devices of each.
    pub devices: BTreeMap<String, Vec<PathBuf>>,
    /// Folder with seccomp profiles.
    pub profiles: PathBuf,
    /// Folder with pods' volumes.
    pub pods: PathBuf,
    /// What runs containers.
    pub engine: Engine,
    /// The administrator of the cluster.
    pub client: Client,
    /// Host and port of the API server.
    pub server: (String, u16),
    /// Whether the node is cut off.
    pub frozen: watch::Receiver<bool>,
    /// What pods are told, by their uid; the names are there for people.
    pub wishes: Mutex<HashMap<String, (String, watch::Sender<Wish>)>>,
}

impl Shared {
    /// Waits until the node is not cut off.
    pub async fn reachable(&self) {
        let mut frozen = self.frozen.clone();
        // The sender lives as long as the agent does.
        let _ = frozen.wait_for(|frozen| !frozen).await;
    }

    /// Asks the API server until it answers; a refusal is an answer.
    ///
    /// # Errors
    /// The refusal.
    pub async fn insist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, kube::Error>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        loop {
            self.reachable().await;
            match ask().await {
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    return Err(kube::Error::Api(status));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
                Ok(answer) => return Ok(answer),
            }
        }
    }

    /// The pods of a namespace.
    pub fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reports a pod's status; one that is gone needs none.
    pub async fn report(&self, pod: &Pod, status: &Value) {
        let (namespace, name) = place(pod);
        let api = self.api(&namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        let merge = PatchParams::default();
        let refused = self.insist(|| api.patch_status(&name, &merge, &patch)).await;
        if let Err(kube::Error::Api(status)) = refused
            && status.code != 404
            && status.code != 409
        {
            eprintln!("node {}: the status of pod {name} is refused: {}", self.name, status.message);
        }
    }

    /// The same without waiting for it: what must be done now is more urgent.
    pub fn event_apart(self: &Arc<Self>, pod: &Pod, kind: &'static str, reason: &'static str, message: &str) {
        let (shared, pod, message) = (Arc::clone(self), pod.clone(), message.to_owned());
        tokio::spawn(async move { shared.event(&pod, kind, reason, &message).await });
    }

    /// Records an event of a pod.
    pub async fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = place(pod);
        let now = stamp(SystemTime::now());
        let nanos = Timestamp::now().as_nanosecond();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{name}.{nanos:x}"), "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": pod.metadata.uid},
            "reason": reason, "message": message, "type": kind, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "kubelet", "host": self.name},
        });
        let Ok(event) = serde_json::from_value::<Event>(event) else { return };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let post = PostParams::default();
        // A namespace that is being deleted takes none.
        let _ = self.insist(|| api.create(&post, &event)).await;
    }

    /// What pods are told.
    pub fn wishes(&self) -> MutexGuard<'_, HashMap<String, (String, watch::Sender<Wish>)>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Namespace and name.
pub fn place(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// A time as the API has it.
pub fn stamp(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| format!("{time:.0}")).unwrap_or_default()
}
