//! `kubectl apply -k` is the install.

use std::path::Path;
use std::time::{Duration, Instant};

use cluster::{Cluster, lane};
use e2e::command::Run;
use e2e::document::example;
use e2e::lab::Lab;
use serde_json::{Value, json};

use crate::site::{NAMESPACE, Site};

/// With a device plugin, over an overlay.
const WITH_A_DEVICE_PLUGIN: &str = "
resources: [../../overlays/sqlite]
components: [../../components/device-plugin]
";

#[test]
fn each_overlay_is_accepted_and_a_second_time_changes_nothing() {
    let (lab, cluster) = started();
    let site = Site::new(&lab);
    let own = site.above("examples/own", WITH_A_DEVICE_PLUGIN);
    for overlay in ["overlays/postgres", "overlays/sqlite", &own, "examples/site"] {
        let first = site.apply(&cluster, overlay);
        assert!(first.len() >= 12, "{overlay}: {first:?}");
        let again = site.apply(&cluster, overlay);
        assert!(again.iter().all(|line| line.ends_with(" unchanged")), "{overlay}: {again:?}");
        nothing_is_elsewhere(&objects(&cluster, &site.folder(overlay)), overlay);
        let enforced = &cluster.get("namespace", "", NAMESPACE).unwrap()["metadata"]["labels"];
        let level = if overlay == own { "restricted" } else { "privileged" };
        assert_eq!(enforced["pod-security.kubernetes.io/enforce"], level, "{overlay}");
        // Agents with the node's network come from addresses that no selector finds.
        let policy = cluster.get("networkpolicy", NAMESPACE, "z-orchestrator").unwrap();
        assert_eq!(policy["spec"]["ingress"][0]["from"].is_array(), overlay == own, "{overlay}: {policy:#}");
    }
    the_service_has_a_pod(&cluster);
    // The profile is no file of a pod's: what brings it onto nodes has all of it.
    site.apply(&cluster, "seccomp");
    let carried = objects(&cluster, &site.folder("seccomp"));
    let profile = carried.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let text = std::fs::read_to_string(site.folder("seccomp/z-provisioner.json")).unwrap();
    assert_eq!(profile["data"]["z-provisioner.json"], text);
}

#[test]
fn what_an_operator_types_is_what_the_documentation_says() {
    let (lab, cluster) = started();
    let site = Site::new(&lab);
    let folder = lab.fresh_dir("operator");
    std::fs::copy(site.folder("examples/site").join("image.pub"), folder.join("builder.key.pub")).unwrap();
    std::fs::write(folder.join("database-url"), "postgres://z@db.example/z?sslmode=verify-full").unwrap();
    site.apply(&cluster, "overlays/postgres");
    typed(&cluster, &folder, &example("docs/operating.md", "create configmap z-provisioner-trust"));
    // What was made is what the pod mounts, and has the names of the files that the configuration knows.
    let spec = cluster.get("statefulset", NAMESPACE, "z-orchestrator").unwrap()["spec"]["template"]["spec"].clone();
    let volumes = spec["volumes"].as_array().unwrap();
    let volume = |name: &str| volumes.iter().find(|volume| volume["name"] == name).unwrap();
    let trust = volume("trust")["configMap"]["name"].as_str().unwrap();
    assert!(cluster.get("configmap", NAMESPACE, trust).unwrap()["data"]["image.pub"].is_string());
    let store = volume("store")["secret"]["secretName"].as_str().unwrap();
    assert!(cluster.get("secret", NAMESPACE, store).unwrap()["data"]["url"].is_string());

    // A pod that nobody has seen dead stays when it is deleted, and goes when somebody vouches.
    cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "z-r-1-1", "namespace": NAMESPACE, "finalizers": ["z-provisioner/seen-dead"]},
        "spec": {"containers": [{"name": "agent", "image": "none.example/none"}]},
    })]);
    cluster.kubectl(&format!("delete pod z-r-1-1 -n {NAMESPACE} --force --grace-period=0 --wait=false"));
    assert!(cluster.get("pod", NAMESPACE, "z-r-1-1").is_some(), "it went unseen");
    typed(&cluster, &folder, &example("docs/operating.md", "patch pod POD").replace("POD", "z-r-1-1"));
    assert!(cluster.get("pod", NAMESPACE, "z-r-1-1").is_none());
}

fn started() -> (Lab, Cluster) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab);
    (lab, cluster)
}

/// The objects that a folder is made of, as they are in the cluster.
fn objects(cluster: &Cluster, folder: &Path) -> Vec<Value> {
    let list = cluster.kubectl_run("get -o json -k").arg(folder).text();
    let list: Value = serde_json::from_str(&list).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// All but a namespace and a class of pods is in the one namespace, and what protects the service was kept by this old server.
fn nothing_is_elsewhere(objects: &[Value], overlay: &str) {
    for object in objects {
        let (kind, name) = (object["kind"].as_str().unwrap(), &object["metadata"]["name"]);
        let whole_cluster = ["Namespace", "PriorityClass"].contains(&kind);
        let namespace = object["metadata"]["namespace"].as_str();
        assert_eq!(namespace, Some(NAMESPACE).filter(|_| !whole_cluster), "{overlay}: {kind} {name}");
    }
    let of = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("ClusterRole").len(), of("ClusterRoleBinding").len()), (0, 0), "{overlay}");
    assert!(of("ServiceAccount").iter().all(|account| account["automountServiceAccountToken"] == false), "{overlay}");
    let [service] = of("StatefulSet")[..] else { panic!("{overlay} has no one service") };
    let (pod, container) =
        (&service["spec"]["template"]["spec"], &service["spec"]["template"]["spec"]["containers"][0]);
    assert_eq!(service["spec"]["replicas"], 1, "{overlay}");
    assert_eq!(pod["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch", "{overlay}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{overlay}");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{overlay}");
    assert_eq!(container["startupProbe"]["httpGet"]["scheme"], "HTTPS", "{overlay}");
}

/// The controllers make it, and the admission of service accounts gives it its token: what the manifests say of each other fits.
fn the_service_has_a_pod(cluster: &Cluster) {
    let began = Instant::now();
    let pod = loop {
        match cluster.get("pod", NAMESPACE, "z-orchestrator-0") {
            Some(pod) => break pod,
            None if began.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_millis(100)),
            None => panic!("no pod: {}", cluster.kubectl(&format!("describe statefulset -n {NAMESPACE}"))),
        }
    };
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert!(mounts.iter().any(|mount| mount["mountPath"] == token), "{mounts:?}");
    let selected = cluster.kubectl(&format!("get networkpolicy z-orchestrator -n {NAMESPACE} -o json"));
    let selected: Value = serde_json::from_str(&selected).unwrap();
    for (label, value) in selected["spec"]["podSelector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][label], value, "its policy does not find it");
    }
}

/// What somebody types into a shell whose kubectl knows the cluster.
fn typed(cluster: &Cluster, folder: &Path, text: &str) {
    let kubectl = lane::program("kubectl");
    let path = format!("{}:{}", kubectl.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = Run::tool("sh").args(["-euc", text]).within(folder).env("PATH", path);
    shell.env("KUBECONFIG", cluster.kubeconfig()).done().ok();
}
