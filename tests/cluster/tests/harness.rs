//! The harness itself: a cluster that starts, pods that run as a kubelet runs them, trouble that looks as it does in a real cluster.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cluster::{Cluster, Machine, Node, Podman, image, plane};
use e2e::command::Run;
use e2e::lab::Lab;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What all tests have in common that leave it whole. It goes away with the last of those that run at the same time.
struct Common {
    // In this order they are dropped.
    node: Node,
    cluster: Cluster,
    _lab: Lab,
}

fn common() -> Arc<Common> {
    static SHARED: Mutex<Weak<Common>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = shared.upgrade() {
        return there;
    }
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    let storage = Podman::new(&lab.fresh_dir("storage"));
    image::busybox(&lab, &storage, "localhost/busybox:1");
    let node = Machine::new("one", &lab.fresh_dir("one"), storage).label("fabric", "red");
    let node = node.device("tests/null", Path::new("/dev/null")).start(cluster.kubeconfig());
    let made = Arc::new(Common { node, cluster, _lab: lab });
    *shared = Arc::downgrade(&made);
    made
}

/// A pod's specification of one container of busybox that runs a script.
fn script(script: &str) -> Value {
    json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 20, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": "localhost/busybox:1", "command": ["sh", "-c", script]}],
    })
}

fn pod(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn job(name: &str, spec: &Value) -> Value {
    let spec = json!({"backoffLimit": 0, "template": {"spec": spec}});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

/// Waits until an object, null where there is none, is as it should be.
#[track_caller]
fn until(cluster: &Cluster, kind: &str, name: &str, so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let found = cluster.get(kind, "default", name).unwrap_or(Value::Null);
        if so(&found) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{kind} {name} is not so: {found:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["phase"] == phase
}

fn condition(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == name);
    found.and_then(|one| one["status"].as_str()).unwrap_or_default().to_owned()
}

fn said(common: &Common, pod: &Value) -> String {
    common.node.said(pod["metadata"]["uid"].as_str().unwrap_or_default(), "main")
}

#[test]
fn an_exit_code_becomes_the_jobs_condition() {
    let common = common();
    let cluster = &common.cluster;
    cluster.apply(&[job("fine", &script("exit 0")), job("broken", &script("exit 7"))]);
    until(cluster, "job", "fine", |job| condition(job, "Complete") == "True");
    until(cluster, "job", "broken", |job| condition(job, "Failed") == "True");
    let pods: Value = serde_json::from_str(&cluster.kubectl("get pods -l job-name=broken -o json")).expect("pods");
    let ended = &pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(7), &json!("Error")));
}

#[test]
fn a_missing_secret_holds_the_pod_until_it_is_there() {
    let common = common();
    let cluster = &common.cluster;
    let mut spec = script("cat /run/s/token; stat -c %a:%g /run/s/token");
    spec["volumes"] = json!([{"name": "s", "secret": {"secretName": "late", "defaultMode": 256}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "s", "mountPath": "/run/s", "readOnly": true}]);
    spec["securityContext"] = json!({"fsGroup": 4711});
    cluster.apply(&[pod("holds", &spec)]);
    let began = Instant::now();
    while !cluster.kubectl("get events --field-selector involvedObject.name=holds").contains("FailedMount") {
        assert!(began.elapsed() < Duration::from_secs(20), "no event tells of the missing secret");
    }
    let waits = cluster.get("pod", "default", "holds").expect("the pod");
    assert_eq!(waits["status"]["phase"], "Pending");
    assert_eq!(waits["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    cluster.kubectl("create secret generic late --from-literal=token=open");
    let done = until(cluster, "pod", "holds", phase("Succeeded"));
    assert_eq!(said(&common, &done).trim(), "open440:4711", "as a kubelet has it: readable for the group, too");
}

#[test]
fn what_confines_a_container_does() {
    let common = common();
    let cluster = &common.cluster;
    let mut spec = script(
        "id -u; id -G; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo read-only; touch /tmp/x && ls /dev/null; echo $0 $A",
    );
    spec["containers"][0]["securityContext"] = json!({
        "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "runAsUser": 65532, "runAsGroup": 65532,
        "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    spec["securityContext"] = json!({"supplementalGroups": [6]});
    spec["containers"][0]["args"] = json!(["arg-$(A)"]);
    spec["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    spec["containers"][0]["resources"] = json!({"limits": {"tests/null": "1", "memory": "64Mi"}});
    spec["containers"][0]["volumeMounts"] = json!([{"name": "t", "mountPath": "/tmp"}]);
    spec["volumes"] = json!([{"name": "t", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    cluster.apply(&[pod("confined", &spec)]);
    let done = until(cluster, "pod", "confined", phase("Succeeded"));
    let text = said(&common, &done);
    for line in [
        "65532",
        "65532 6",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "read-only",
        "/dev/null",
        "arg-confined confined",
    ] {
        assert!(text.lines().any(|one| one == line), "no line {line:?} in {text}");
    }
}

#[test]
fn what_cannot_be_started_waits_and_says_why() {
    let common = common();
    let cluster = &common.cluster;
    let mut unknown = script("exit 0");
    unknown["containers"][0]["image"] = json!("registry.example/none:1");
    let mut nowhere = script("exit 0");
    nowhere["nodeSelector"] = json!({"fabric": "blue"});
    cluster.apply(&[pod("unknown", &unknown), pod("nowhere", &nowhere)]);
    let reason = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    until(cluster, "pod", "unknown", |pod| reason(pod) == "ImagePullBackOff");
    let unscheduled = until(cluster, "pod", "nowhere", |pod| condition(pod, "PodScheduled") == "False");
    assert_eq!(unscheduled["status"]["conditions"][0]["reason"], "Unschedulable");
    cluster.kubectl("delete pod unknown nowhere --wait=true");
}

#[test]
fn a_deleted_pod_is_asked_to_end_and_a_finalizer_shows_that_it_did() {
    let common = common();
    let cluster = &common.cluster;
    let mut patient =
        pod("patient", &script("trap 'echo asked; exit 8' TERM; echo up; while true; do sleep 0.1; done"));
    patient["metadata"]["finalizers"] = json!(["tests/seen"]);
    cluster.apply(&[patient]);
    let running = until(cluster, "pod", "patient", phase("Running"));
    assert_eq!(condition(&running, "Ready"), "True");
    let began = Instant::now();
    while !said(&common, &running).contains("up") {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not run");
    }
    cluster.kubectl("delete pod patient --wait=false");
    let dead =
        until(cluster, "pod", "patient", |pod| !pod["status"]["containerStatuses"][0]["state"]["terminated"].is_null());
    assert_eq!(dead["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 8);
    assert_eq!(dead["status"]["phase"], "Failed");
    cluster.kubectl_run("patch pod patient --type merge -p").arg(r#"{"metadata":{"finalizers":null}}"#).done().ok();
    until(cluster, "pod", "patient", Value::is_null);
}

#[test]
fn an_evicted_pod_has_failed_for_that_reason() {
    let common = common();
    let cluster = &common.cluster;
    cluster.apply(&[pod("evicted", &script("trap 'exit 0' TERM; while true; do sleep 0.1; done"))]);
    until(cluster, "pod", "evicted", phase("Running"));
    common.node.evict("default", "evicted");
    let failed = until(cluster, "pod", "evicted", phase("Failed"));
    assert_eq!(failed["status"]["reason"], "Evicted");
    cluster.kubectl("delete pod evicted");
}

#[test]
fn a_service_account_has_its_own_rights_and_the_past_can_be_forgotten() {
    let common = common();
    let cluster = &common.cluster;
    cluster.kubectl("create serviceaccount somebody");
    let config = cluster.kubeconfig_of("somebody", "default");
    let nodes = || Run::program(&cluster::lane::program("kubectl")).words("get nodes --kubeconfig").arg(&config).done();
    plane::forbidden(nodes());
    cluster.kubectl("create clusterrolebinding somebody --clusterrole=view --serviceaccount=default:somebody");
    cluster.kubectl("create clusterrole looks --verb=list --resource=nodes");
    cluster.kubectl("create clusterrolebinding looks --clusterrole=looks --serviceaccount=default:somebody");
    nodes().ok();
}

#[test]
fn a_deployment_with_a_claim_runs_on_the_node_program() {
    let common = common();
    let (cluster, lab) = (&common.cluster, Lab::new());
    let folder = lab.fresh_dir("third");
    image::busybox(&lab, &Podman::new(&folder), "localhost/busybox:1");
    let node =
        Run::program(Path::new(env!("CARGO_BIN_EXE_node"))).words("--name three --label fabric=green --kubeconfig");
    let mut node = node.arg(cluster.kubeconfig()).arg("--storage").arg(&folder).start();
    let disk = lab.fresh_dir("disk");
    let mut spec = script("echo kept > /data/file; trap 'exit 0' TERM; while true; do sleep 0.1; done");
    spec["restartPolicy"] = json!("Always");
    spec["nodeSelector"] = json!({"fabric": "green"});
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let size = json!({"storage": "1Gi"});
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
            "capacity": size, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": disk}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "storageClassName": "", "accessModes": ["ReadWriteOnce"], "resources": {"requests": size}}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "serves"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "serves"}},
            "template": {"metadata": {"labels": {"app": "serves"}}, "spec": spec}}}),
    ]);
    until(cluster, "deployment", "serves", |deployment| condition(deployment, "Available") == "True");
    assert_eq!(std::fs::read_to_string(disk.join("file")).unwrap_or_default(), "kept\n");
    cluster.kubectl("delete deployment serves --cascade=foreground --timeout=30s");
    node.signal(Signal::SIGTERM);
    node.finish().ok();
    cluster.kubectl("delete node three");
}

/// Trouble has a cluster of its own, with programs in the containers' place.
#[test]
fn trouble_is_seen_and_survived_and_nothing_is_left() {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    assert!(cluster.kubectl("version").contains("Server Version: v1.20.2"));
    let sleeper = lab.file("sleeper", b"#!/bin/sh\necho up \"$@\"\nexec sleep 1000\n");
    Run::tool("chmod").arg("755").arg(&sleeper).done().ok();
    let mut node = Machine::of_programs("two", &lab.fresh_dir("two"), &sleeper).start(cluster.kubeconfig());
    let ready = |node: &Value| condition(node, "Ready");
    until(&cluster, "node", "two", |node| ready(node) == "True");
    cluster.apply(&[pod("long", &script("of no importance"))]);
    until(&cluster, "pod", "long", phase("Running"));

    node.freeze();
    until(&cluster, "node", "two", |node| ready(node) == "Unknown");
    node.thaw();
    until(&cluster, "node", "two", |node| ready(node) == "True");

    let before = cluster.get("pod", "default", "long").expect("the pod")["metadata"]["resourceVersion"].clone();
    let before = before.as_str().expect("a version").to_owned();
    cluster.compact();
    let path = format!("/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=2&resourceVersion={before}");
    let watched = cluster.kubectl_run("get --raw").arg(path).text();
    assert!(watched.contains("\"code\":410"), "the past is not forgotten: {watched}");

    // What runs is taken over by the next agent.
    node.kill_agent();
    node.start_agent();
    cluster.kubectl("delete pod long --grace-period=3");
    assert!(cluster.get("pod", "default", "long").is_none());

    cluster.apply(&[pod("dies", &script("of no importance"))]);
    until(&cluster, "pod", "dies", phase("Running"));
    node.kill_machine();
    node.start_agent();
    let failed = until(&cluster, "pod", "dies", phase("Failed"));
    assert_eq!(failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);

    let folder = lab.dir().display().to_string();
    let running = || {
        let listed = Command::new("ps").args(["-eo", "args"]).output().expect("a list of processes");
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(&folder)).count()
    };
    assert!(running() >= 3, "etcd, the API server, the controllers");
    drop(node);
    drop(cluster);
    assert_eq!(running(), 0, "processes are left");
}
