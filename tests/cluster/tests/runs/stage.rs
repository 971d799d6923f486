//! A cluster with a service, a node, an image and devices.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, Machine, Node};
use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Service, Target, sample};
use serde_json::{Value, json};

/// Where Jobs are.
pub const NAMESPACE: &str = "z-provisioner";
/// Bytes of the image.
pub const SIZE: u64 = 6 * MIB;

/// All that a run in a cluster takes. What is first is dropped first.
pub struct Stage {
    pub service: Service,
    pub nodes: Vec<Node>,
    pub cluster: Cluster,
    pub image: Image,
    pub raw: Vec<u8>,
    servers: [Server; 2],
    pub lab: Lab,
}

impl Stage {
    /// With nodes of these names, where programs run in the place of containers: the agent's.
    pub fn new(nodes: &[&str]) -> Self {
        Self::with(nodes, &e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN"), json!({}))
    }

    /// With another program in the agent's place, and more configuration.
    pub fn with(nodes: &[&str], program: &Path, more: Value) -> Self {
        Self::of(more, |lab, cluster| {
            let machine = |name: &&str| {
                let machine = Machine::of_programs(name, &lab.fresh_dir("node"), program);
                machine.start(cluster.kubeconfig())
            };
            nodes.iter().map(machine).collect()
        })
    }

    /// With nodes of any kind.
    pub fn of(more: Value, nodes: impl FnOnce(&Lab, &Cluster) -> Vec<Node>) -> Self {
        let lab = Lab::new();
        let cluster = Cluster::start(&lab);
        let kubeconfig = install(&cluster);
        let raw = sample::noise(71, SIZE as usize);
        let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
        let servers = [Some("1m"), Some("500k")].map(|rate| Server::nginx(&lab, &image.dir, rate));
        let nodes = nodes(&lab, &cluster);
        let mut config = configuration(&kubeconfig, &image);
        merge(&mut config, more);
        let service = Service::new(&lab, config);
        Stage { service, nodes, cluster, image, raw, servers, lab }
    }

    /// A device, and the order to write the image onto it on a server: a node has its name.
    pub fn order(&self, server: &str) -> (Target, Value) {
        self.order_from(&self.servers[0], server)
    }

    /// The same, and it takes twice as long: something else that takes long is to happen meanwhile.
    pub fn slow_order(&self, server: &str) -> (Target, Value) {
        self.order_from(&self.servers[1], server)
    }

    fn order_from(&self, source: &Server, server: &str) -> (Target, Value) {
        let target = Target::device(&self.lab, SIZE, "");
        let order = json!({
            "server": server,
            "launcher": "kubernetes",
            "image": {"name": "sample", "sources": [source.url()], "trust": [self.image.key.id()]},
            "target": {"device": target.path()},
            "options": {"connections": 1, "request_size": 64 * KIB},
        });
        (target, order)
    }

    pub fn create(&self, order: &Value) -> String {
        self.service.create(&self.lab, order)
    }

    /// Waits until a run's reason has these words.
    #[track_caller]
    pub fn until_said(&self, run: &str, words: &str) -> Value {
        self.until(run, words, |shown| shown["reason"].as_str().is_some_and(|reason| reason.contains(words)))
    }

    /// Waits until a run is as it is wanted.
    #[track_caller]
    pub fn until(&self, run: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.service.show(run);
            if is_so(&shown) {
                return shown;
            }
            let pods = self.cluster.kubectl("-n z-provisioner get jobs,pods,events -o wide");
            assert!(began.elapsed() < Duration::from_secs(60), "not {what}: {shown:#}\n{pods}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the current attempt writes.
    #[track_caller]
    pub fn until_it_writes(&self, run: &str) {
        let far = |shown: &Value| shown["progress"]["bytes"].as_u64().unwrap_or(0) >= 256 * KIB;
        self.until(run, "writing", far);
    }

    /// Waits until a run has succeeded, and compares.
    #[track_caller]
    pub fn succeeded(&self, run: &str, target: &Target) -> Value {
        let ended = self.until(run, "succeeded", |shown| shown["state"] == "succeeded" || shown["state"] == "failed");
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        e2e::lab::cmp(&self.lab.file("raw", &self.raw), target.path(), SIZE).ok();
        ended
    }

    /// The pods of a run's attempt.
    pub fn pods(&self, run: &str, attempt: u32) -> Vec<Value> {
        let of = format!("-n {NAMESPACE} get pods -o json -l z-provisioner/run={run},z-provisioner/attempt={attempt}");
        let list: Value = serde_json::from_str(&self.cluster.kubectl(&of)).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// The name of the one pod of a run's attempt.
    #[track_caller]
    pub fn pod(&self, run: &str, attempt: u32) -> String {
        let pods = self.pods(run, attempt);
        assert_eq!(pods.len(), 1, "{pods:#?}");
        pods[0]["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// What `kubectl describe` shows of a Job, and of its pods.
    pub fn described(&self, run: &str, attempt: u32) -> String {
        let job = self.cluster.kubectl(&format!("-n {NAMESPACE} describe job z-{run}-{attempt}"));
        let pods = self.cluster.kubectl(&format!("-n {NAMESPACE} describe pods -l z-provisioner/run={run}"));
        job + &pods
    }

    /// kubectl in the namespace of the Jobs.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> String {
        self.cluster.kubectl(&format!("-n {NAMESPACE} {words}"))
    }

    /// Asks the API server to evict a pod, as whoever drains a node does; how it is refused.
    #[track_caller]
    pub fn evict(&self, pod: &str) -> String {
        let meta = json!({"name": pod, "namespace": NAMESPACE});
        let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": meta});
        let file = self.lab.file("eviction.json", eviction.to_string().as_bytes());
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        let done = self.cluster.kubectl_run("create --raw").arg(path).arg("-f").arg(file).done();
        assert!(!done.status.success(), "it was evicted");
        done.stderr
    }

    /// Nothing is left that waits for the service: no pod that is being deleted.
    #[track_caller]
    pub fn no_pod_is_kept(&self) {
        let began = Instant::now();
        loop {
            let pods: Value = serde_json::from_str(&self.kubectl("get pods -o json")).unwrap();
            let deleted = |pod: &&Value| !pod["metadata"]["deletionTimestamp"].is_null();
            if pods["items"].as_array().unwrap().iter().find(deleted).is_none() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{pods:#}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Gives the service its rights, as the manifests say; a kubeconfig with them.
fn install(cluster: &Cluster) -> PathBuf {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../containers/kubernetes/base");
    for file in ["namespace.yaml", "accounts.yaml", "rights.yaml"] {
        cluster.kubectl(&format!("apply -f {}", base.join(file).display()));
    }
    cluster.kubeconfig_of("z-orchestrator", NAMESPACE)
}

/// What the service is configured with, unless a test wants something else.
pub fn configuration(kubeconfig: &Path, image: &Image) -> Value {
    json!({
        "lease": {"seconds": 6, "renew_after": 1, "grace": 2},
        "retry": {"first_seconds": 1, "most_seconds": 2},
        "report_within": 20,
        "names": ["127.0.0.1"],
        "kubernetes": {
            "image": "localhost/z-provisioner:test",
            "kubeconfig": kubeconfig,
            "trust": [image.key.public],
            "cpu_milli": 10,
            "memory_mib": 128,
        },
    })
}

/// Puts values into others.
pub fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// What is said of a run's attempt.
pub fn attempt(shown: &Value, number: usize) -> &Value {
    &shown["attempts"][number - 1]
}
