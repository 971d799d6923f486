//! What an attempt is made of in a cluster: a Job, which can start nothing without its Secret; the Secret; and a budget that keeps whoever
//! empties a node from evicting an agent that writes.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::{RunId, Token};
use serde_json::{Value, json};

use super::Settings;
use super::handle::name;
use crate::config::HOST_DEVICES;
use crate::launch::Order;

/// The container.
pub const CONTAINER: &str = "agent";
/// Keeps a pod to be seen until its containers are known to have ended, also when it is deleted by force. Only the launcher removes it.
pub const FINALIZER: &str = "z-provisioner/seen-dead";
/// Label: the run.
pub const RUN: &str = "z-provisioner/run";
/// Label: the attempt.
pub const ATTEMPT: &str = "z-provisioner/attempt";
/// Label: which service's it is.
pub const SERVICE: &str = "z-provisioner/service";
/// Label, and annotation for those that are too long for one: the server.
const SERVER: &str = "z-provisioner/server";
/// Where the Secret's files are in the container.
const FILES: &str = "/run/z-provisioner";
/// What a pod with its node's own devices has of the node: name, path, type. udev's database says which device a WWID is; mpathpersist
/// reads the keys of reservations where multipathd has written them.
const OF_THE_NODE: [(&str, &str, &str); 4] = [
    ("dev", "/dev", "Directory"),
    ("sys", "/sys", "Directory"),
    ("udev", "/run/udev", "DirectoryOrCreate"),
    ("multipath", "/etc/multipath", "DirectoryOrCreate"),
];
/// Longest value of a label, in bytes.
const MAX_LABEL: usize = 63;
/// What an agent that is told to end may take, in seconds: it closes what it has opened.
const GRACE: u32 = 120;

/// Exit codes with which trying again does not help.
const PERMANENT: [i32; 3] = [2, 3, 4];
/// Those with which the service tries again. Not Kubernetes: each attempt has a fencing epoch, and a token, of its own.
const PASSING: [i32; 4] = [5, 6, 7, 8];

/// The attempt that an object is of, by its labels.
pub fn attempt_of(metadata: &ObjectMeta) -> Option<(RunId, u32)> {
    let labels = metadata.labels.as_ref()?;
    Some((labels.get(RUN)?.clone().try_into().ok()?, labels.get(ATTEMPT)?.parse().ok()?))
}

/// The selector of what is one service's.
pub fn selector(service: &str) -> String {
    format!("app.kubernetes.io/managed-by=z-orchestrator,{SERVICE}={service}")
}

/// The Job.
///
/// # Errors
/// The configuration has something in it that no Job can have.
pub fn job(settings: &Settings, order: &Order, trusted: usize) -> Result<Job, String> {
    let name = name(&order.run, order.attempt);
    let labels = labels(settings, order);
    let annotations = json!({
        SERVER: order.server.as_str(),
        // The same for the autoscaler as the budget is for whoever drains a node.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    });
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name, "labels": labels, "annotations": annotations },
        "spec": {
            // The service tries again, under another name, with another epoch.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": { "rules": [
                { "action": "FailJob", "onExitCodes": { "containerName": CONTAINER, "operator": "In", "values": PERMANENT } },
                { "action": "FailJob", "onExitCodes": { "containerName": CONTAINER, "operator": "In", "values": PASSING } },
                { "action": "FailJob", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            ] },
            "activeDeadlineSeconds": settings.config.run_within,
            "ttlSecondsAfterFinished": settings.config.keep,
            "template": {
                "metadata": { "labels": labels, "annotations": annotations, "finalizers": [FINALIZER] },
                "spec": pod(settings, order, &name, trusted),
            },
        },
    });
    serde_json::from_value(job).map_err(|error| error.to_string())
}

fn labels(settings: &Settings, order: &Order) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "z-provisioner".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "z-orchestrator".to_owned()),
        (SERVICE.to_owned(), settings.service.clone()),
        (RUN.to_owned(), order.run.to_string()),
        (ATTEMPT.to_owned(), order.attempt.to_string()),
    ]);
    let server = order.server.as_str();
    if server.len() <= MAX_LABEL && server.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        labels.insert(SERVER.to_owned(), server.to_owned());
    }
    labels
}

fn pod(settings: &Settings, order: &Order, name: &str, trusted: usize) -> Value {
    let config = &settings.config;
    let mut volumes = vec![
        json!({ "name": "run", "secret": { "secretName": name, "defaultMode": 0o400 } }),
        json!({ "name": "tmp", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } }),
    ];
    let mut mounts = vec![
        json!({ "name": "run", "mountPath": FILES, "readOnly": true }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    if config.devices == HOST_DEVICES {
        for (name, path, kind) in OF_THE_NODE {
            volumes.push(json!({ "name": name, "hostPath": { "path": path, "type": kind } }));
            mounts.push(json!({ "name": name, "mountPath": path }));
        }
        // Where cryptsetup keeps its locks.
        volumes.push(json!({ "name": "cryptsetup", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }));
        mounts.push(json!({ "name": "cryptsetup", "mountPath": "/run/cryptsetup" }));
    }
    let mut pod = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "serviceAccountName": "z-provisioner-agent",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "containers": [{
            "name": CONTAINER,
            "image": config.image,
            "args": arguments(settings, order, trusted),
            "resources": resources(settings),
            "securityContext": security(settings),
            "volumeMounts": mounts,
            // The last lines of a failure stand in `kubectl describe`.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }],
        "volumes": volumes,
        "nodeSelector": nodes(settings, order),
        "tolerations": config.tolerations,
        "imagePullSecrets": config.pull_secrets.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
    });
    if let Some(class) = &config.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    if config.devices == HOST_DEVICES {
        // multipathd listens on an abstract socket, which is its network namespace's.
        pod["hostNetwork"] = json!(true);
        pod["dnsPolicy"] = json!("ClusterFirstWithHostNet");
        // The device mapper's tools wait for the node's udev by semaphores, which are its IPC namespace's: in another they wait for ever.
        pod["hostIPC"] = json!(true);
    } else {
        let [user, disk] = config.user;
        pod["securityContext"] = json!({ "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user, "supplementalGroups": [disk] });
    }
    pod
}

fn arguments(settings: &Settings, order: &Order, trusted: usize) -> Vec<String> {
    let file = |name: &str| format!("{FILES}/{name}");
    let mut arguments: Vec<String> =
        ["run", "--json", "--orchestrator", settings.url.as_str()].map(str::to_owned).to_vec();
    arguments.extend(["--orchestrator-ca".to_owned(), file("ca.pem"), "--ticket-key".to_owned(), file("ticket.pub")]);
    arguments.extend((0..trusted).flat_map(|at| ["--trust".to_owned(), file(&trust(at))]));
    if settings.config.registry_auth.is_some() {
        arguments.extend(["--registry-auth".to_owned(), file("registry.json")]);
    }
    arguments.extend(["--report-within".to_owned(), settings.report_within.to_string()]);
    arguments.extend(settings.config.args.iter().cloned());
    let of = [("--run", order.run.as_str()), ("--server", order.server.as_str()), ("--token", &file("token"))];
    arguments.extend(of.iter().flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()]));
    arguments
}

fn resources(settings: &Settings) -> Value {
    let config = &settings.config;
    let memory = format!("{}Mi", config.memory_mib);
    let mut limits = json!({ "memory": memory });
    if config.devices != HOST_DEVICES {
        limits[config.devices.as_str()] = json!("1");
    }
    json!({ "requests": { "memory": memory, "cpu": format!("{}m", config.cpu_milli) }, "limits": limits })
}

/// A container of a node's own devices is privileged: nothing less lets it open them, or make the device mapper's.
fn security(settings: &Settings) -> Value {
    let config = &settings.config;
    if config.devices == HOST_DEVICES {
        return json!({ "privileged": true, "readOnlyRootFilesystem": true });
    }
    let seccomp = match config.seccomp.as_str() {
        "default" => json!({ "type": "RuntimeDefault" }),
        "unconfined" => json!({ "type": "Unconfined" }),
        profile => json!({ "type": "Localhost", "localhostProfile": profile }),
    };
    json!({
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        // Not even IPC_LOCK, for the buffers that io_uring registers: Kubernetes gives no capability to a user other than root. The limit
        // of locked memory is the runtime's, and where it is too low the agent does without.
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": seccomp,
    })
}

/// A LUN is where its fabric is; a device with a path is on its server and nowhere else.
fn nodes(settings: &Settings, order: &Order) -> BTreeMap<String, String> {
    let fabrics = &settings.config.fabrics;
    let labels = fabrics.get(order.fabric.as_str()).or_else(|| fabrics.get(crate::config::EVERY_FABRIC));
    let mut nodes = labels.cloned().unwrap_or_default();
    if order.is_local {
        nodes.insert("kubernetes.io/hostname".into(), order.server.to_string());
    }
    nodes
}

fn trust(at: usize) -> String {
    format!("trust-{at}.pem")
}

/// What an agent is given besides its token.
pub struct Files {
    /// The certificates by which it knows the service (PEM).
    pub ca: Vec<u8>,
    /// The public key of tickets (PEM).
    pub ticket: Vec<u8>,
    /// The public keys that it trusts for images (PEM).
    pub trusted: Vec<Vec<u8>>,
    /// Registry credentials.
    pub registry: Option<Vec<u8>>,
}

/// The Secret, of a Job, which takes it along when it goes.
pub fn secret(job: &Job, files: &Files, token: &Token) -> Value {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    let mut data = json!({
        "token": encode(token.reveal().as_bytes()),
        "ca.pem": encode(&files.ca),
        "ticket.pub": encode(&files.ticket),
    });
    for (at, key) in files.trusted.iter().enumerate() {
        data[trust(at)] = encode(key);
    }
    if let Some(registry) = &files.registry {
        data["registry.json"] = encode(registry);
    }
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": owned(job), "type": "Opaque", "immutable": true, "data": data })
}

/// The budget, of a Job.
pub fn budget(job: &Job, version: &str) -> Value {
    let labels = job.metadata.labels.clone().unwrap_or_default();
    let of: BTreeMap<_, _> =
        labels.into_iter().filter(|(label, _)| [RUN, ATTEMPT, SERVICE].contains(&label.as_str())).collect();
    json!({
        "apiVersion": format!("policy/{version}"),
        "kind": "PodDisruptionBudget",
        "metadata": owned(job),
        // For pods of a Job nothing else counts.
        "spec": { "minAvailable": 1, "selector": { "matchLabels": of } },
    })
}

fn owned(job: &Job) -> Value {
    let (name, labels) = (&job.metadata.name, &job.metadata.labels);
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.metadata.uid });
    json!({ "name": name, "labels": labels, "ownerReferences": [owner] })
}

#[cfg(test)]
mod tests;
