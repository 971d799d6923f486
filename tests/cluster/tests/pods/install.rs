//! The install, as the documentation has it: the service is a pod of its own image, with the rights that the manifests give it; it is
//! upgraded while a run is under way, and taken away again.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, Machine, Node, Podman};
use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Run, Target, sample};
use serde_json::{Value, json};

use crate::site::{NAMESPACE, Site};
use crate::{storage, tag};

const SIZE: u64 = 6 * MIB;
/// Whom the service runs as.
const USER: u32 = 65532;
const ROLLOUT: &str = "rollout status statefulset/z-orchestrator --timeout 90s";

/// A cluster with a node, and a site that was never installed.
struct Scene {
    node: Node,
    cluster: Cluster,
    podman: Podman,
    site: Site,
    /// The folder that is the claim's volume.
    volume: PathBuf,
    image: Image,
    raw: PathBuf,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        until_the_port_is_free();
        let lab = Lab::new();
        let cluster = Cluster::start(&lab);
        let podman = storage(&lab, &["z-orchestrator", "z-provisioner"]);
        let raw = lab.file("raw", &sample::noise(73, SIZE as usize));
        let image = lab.pack(&raw, "--chunk-size 64KiB");
        let site = Site::new(&lab);
        own(&site.folder("examples/site"), &image);
        let volume = lab.fresh_dir("volume");
        chown(&volume, Some(USER), Some(USER)).unwrap();
        cluster
            .apply(&[json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": volume}}})]);
        let machine = Machine::new("lpar-18", &lab.fresh_dir("node"), podman.clone());
        let node = machine.label("example.org/fabric", "a").start(cluster.kubeconfig());
        Scene { node, cluster, podman, site, volume, image, raw, lab }
    }

    fn apply(&self) {
        self.site.apply(&self.cluster, "examples/site");
        self.kubectl(ROLLOUT);
    }

    #[track_caller]
    fn kubectl(&self, words: &str) -> String {
        self.cluster.kubectl(&format!("-n {NAMESPACE} {words}"))
    }

    /// `z-orchestrator run …` from outside of the cluster. The operator's token is in the volume: where `kubectl exec` finds it, too.
    fn client(&self, words: &str) -> Run {
        let (command, options) = words.split_once(' ').unwrap_or((words, ""));
        let run = Run::orchestrator().arg("run").arg(command).words("--url https://localhost:7443 --data");
        run.arg(self.volume.join("z-orchestrator")).words(options)
    }

    /// The order of the examples, for this image and device.
    fn create(&self, source: &Server, target: &Target) -> String {
        let example = std::fs::read(self.site.folder("examples/run-device.json")).unwrap();
        let mut order: Value = serde_json::from_slice(&example).unwrap();
        order["image"]["name"] = json!("sample");
        order["image"]["sources"] = json!([source.url()]);
        order["target"]["device"] = json!(target.path());
        order["fabric"] = json!("fabric-a");
        order["options"] = json!({"connections": 1, "request_size": 64 * KIB});
        let file = self.lab.file("order.json", order.to_string().as_bytes());
        self.client("create").arg(file).text().trim().to_owned()
    }

    #[track_caller]
    fn until(&self, run: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.client("show --json").arg(run).done().ok().json().remove(0);
            if is_so(&shown) {
                return shown;
            }
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!late, "not {what}: {shown:#}\n{}", self.kubectl("get jobs,pods,events"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn succeeded(&self, run: &str, target: &Target) -> Value {
        let ended = self.until(run, "over", |shown| !shown["ended"].is_null());
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
        e2e::lab::cmp(&self.raw, target.path(), SIZE).ok();
        ended
    }

    /// The image that the service's container was made of, by the word of what runs it.
    fn serving(&self) -> String {
        self.podman
            .bounded(["ps", "--filter", "name=z-orchestrator", "--format", "{{.Image}}"])
            .text()
            .trim()
            .to_owned()
    }
}

/// The manifests have one port, and here every pod has the machine's network: a demonstration or another such test may have it.
fn until_the_port_is_free() {
    let began = Instant::now();
    while let Err(error) = std::net::TcpListener::bind("0.0.0.0:7443") {
        assert!(began.elapsed() < Duration::from_secs(60), "the service's port, 7443, is not free: {error}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a site changes of the example: names of images, the key, the policy.
fn own(site: &Path, image: &Image) {
    std::fs::copy(&image.key.public, site.join("image.pub")).unwrap();
    let policy = json!({"images": {"sample": {"trust": [image.key.id()], "threshold": 1}}});
    std::fs::write(site.join("policy.json"), policy.to_string()).unwrap();
    replace(&site.join("kustomization.yaml"), "registry.example.org/mirror/", "localhost/");
    replace(&site.join("kustomization.yaml"), "newTag: 0.1.0", "newTag: test");
    replace(
        &site.join("config.json"),
        "registry.example.org/mirror/z-provisioner:0.1.0",
        "localhost/z-provisioner:test",
    );
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{} has no {old}", file.display());
    std::fs::write(file, text.replace(old, new)).unwrap();
}

#[test]
fn a_site_is_installed_upgraded_under_a_run_and_taken_away() {
    let scene = Scene::new();
    scene.apply();
    assert_eq!(scene.serving(), "localhost/z-orchestrator:test");
    a_run_is_launched_by_the_pod(&scene);
    an_upgrade_adopts_what_is_under_way(&scene);
    nothing_is_left(&scene);
}

fn a_run_is_launched_by_the_pod(scene: &Scene) {
    let source = Server::imgstream(&scene.image.dir);
    let target = Target::device(&scene.lab, SIZE, "");
    let run = scene.create(&source, &target);
    scene.succeeded(&run, &target);
    // The agent has told the service how it ended before it has.
    let shown = || scene.kubectl("get jobs,pods --label-columns z-provisioner/server,z-provisioner/attempt");
    scene.until(&run, "Completed", |_| shown().contains("Completed"));
    let shown = shown();
    assert!(shown.contains(&format!("z-{run}-1")) && shown.contains("lpar-18"), "{shown}");
}

fn an_upgrade_adopts_what_is_under_way(scene: &Scene) {
    let source = Server::nginx(&scene.lab, &scene.image.dir, Some("400k"));
    let target = Target::device(&scene.lab, SIZE, "");
    let run = scene.create(&source, &target);
    scene.until(&run, "writing", |shown| shown["progress"]["bytes"].as_u64().unwrap_or(0) >= 256 * KIB);
    for name in ["z-orchestrator", "z-provisioner"] {
        tag(&scene.podman, &format!("localhost/{name}:test"), &format!("localhost/{name}:next"));
    }
    let site = scene.site.folder("examples/site");
    replace(&site.join("kustomization.yaml"), "newTag: test", "newTag: next");
    replace(&site.join("config.json"), "z-provisioner:test", "z-provisioner:next");
    scene.apply();
    let pod = scene.kubectl("get pod z-orchestrator-0 -o jsonpath={.spec.containers[0].image}");
    assert_eq!(pod, "localhost/z-orchestrator:next");
    let shown = scene.client("show --json").arg(&run).done().ok().json().remove(0);
    assert!(shown["ended"].is_null(), "it was over before the service was upgraded: {shown:#}");
    scene.succeeded(&run, &target);
    // The attempt has kept the agent it had.
    let agent = scene.kubectl(&format!("get job z-{run}-1 -o jsonpath={{.spec.template.spec.containers[0].image}}"));
    assert_eq!(agent, "localhost/z-provisioner:test");

    scene.kubectl("rollout restart statefulset/z-orchestrator");
    scene.kubectl(ROLLOUT);
    let target = Target::device(&scene.lab, SIZE, "");
    let source = Server::imgstream(&scene.image.dir);
    let run = scene.create(&source, &target);
    scene.succeeded(&run, &target);
    let agent = scene.kubectl(&format!("get job z-{run}-1 -o jsonpath={{.spec.template.spec.containers[0].image}}"));
    assert_eq!(agent, "localhost/z-provisioner:next");
}

fn nothing_is_left(scene: &Scene) {
    for run in scene.client("list --all --json").done().ok().json() {
        assert!(!run["ended"].is_null(), "it is still active: {run:#}");
    }
    let uninstall = scene.cluster.kubectl_run("delete --timeout 90s -k").arg(scene.site.folder("examples/site"));
    uninstall.limit(120).done().ok();
    assert!(scene.cluster.get("namespace", "", NAMESPACE).is_none());
    let kinds =
        "priorityclasses,clusterroles,clusterrolebindings,customresourcedefinitions,validatingwebhookconfigurations";
    let left = scene.cluster.kubectl(&format!("get {kinds} -o name"));
    assert!(!left.contains("z-provisioner") && !left.contains("z-orchestrator"), "{left}");
    assert_eq!(scene.cluster.kubectl("get pods --all-namespaces -o name"), "");
    let began = Instant::now();
    while !scene.podman.bounded(["ps", "--all", "--quiet"]).text().trim().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "containers are left on {}", scene.node.name());
        std::thread::sleep(Duration::from_millis(200));
    }
    // What was not of the manifests' making, the volume, is its owner's to empty.
    assert!(scene.volume.join("z-orchestrator").is_dir());
}
