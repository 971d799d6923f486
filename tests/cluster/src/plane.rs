//! The control plane: etcd, the API server and the controllers, real ones, on this machine's loopback.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::command::{Done, Run};
use e2e::lab::Lab;
use e2e::server::free_port;
use serde_json::{Value, json};

use crate::credentials::{self, Credentials};
use crate::lane;
use crate::process::Leashed;

/// How long any part may take to start.
const START: Duration = Duration::from_secs(60);

/// How soon the cluster notices that a node is gone. Real clusters take 40 seconds and then five minutes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Seconds between two looks at nodes.
    pub period: u32,
    /// Seconds without a heart beat after which a node is not ready. Nodes of this crate have one each second.
    pub grace: u32,
    /// Seconds for which a pod stays on a node that is not ready, unless it says itself for how long.
    pub toleration: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { period: 1, grace: 6, toleration: 2 }
    }
}

/// A cluster without nodes. All of it ends when this is dropped, and when this process does.
///
/// The admission plugins of a real one are on, `ServiceAccount` among them; so is RBAC.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    ports: [u16; 3],
    pace: Pace,
    credentials: Credentials,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    // In this order they are dropped.
    controllers: Option<Leashed>,
    api: Option<Leashed>,
    etcd: Option<Leashed>,
}

impl Cluster {
    /// Starts one, and waits until it can be used.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(lab: &Lab) -> Self {
        Self::at_pace(lab, Pace::default())
    }

    /// The same with another idea of when a node is gone.
    ///
    /// # Panics
    /// When it does not start.
    pub fn at_pace(lab: &Lab, pace: Pace) -> Self {
        let dir = lab.fresh_dir("cluster");
        let ports = [free_port(), free_port(), free_port()];
        let credentials = Credentials::new(&dir, ports[1]);
        let cluster = Cluster { dir, ports, pace, credentials, parts: Mutex::default() };
        let etcd = cluster.part("etcd", &cluster.etcd());
        cluster.parts().etcd = Some(etcd);
        cluster.start_api();
        let controllers = cluster.part("kube-controller-manager", &cluster.controllers());
        cluster.parts().controllers = Some(controllers);
        // The last that a new cluster makes before a pod can be created.
        cluster.until("the default service account's token", || {
            let found = cluster.kubectl_run("get serviceaccount default -o jsonpath={.secrets[0].name}").done();
            found.status.success() && !found.stdout.is_empty()
        });
        cluster
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.credentials.admin
    }

    /// A kubeconfig with a real token of a service account, which must be there. The namespace is its default.
    ///
    /// # Panics
    /// When no token is given.
    #[track_caller]
    pub fn kubeconfig_of(&self, service_account: &str, namespace: &str) -> PathBuf {
        let token = self.kubectl(&format!("create token {service_account} -n {namespace} --duration 24h"));
        let file = self.dir.join(format!("{namespace}-{service_account}.json"));
        credentials::kubeconfig(&file, &self.url(), &self.dir.join("ca.pem"), token.trim(), namespace);
        file
    }

    /// Where the API server is.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[1])
    }

    /// The certificate of its authority.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A client of the administrator, for the runtime that this is called in.
    ///
    /// # Panics
    /// When there can be none.
    pub async fn client(&self) -> kube::Client {
        crate::client(self.kubeconfig()).await.expect("a client of the cluster")
    }

    /// Runs kubectl with words parted by spaces; what it prints. It must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> String {
        self.kubectl_run(words).text()
    }

    /// kubectl, not started yet.
    pub fn kubectl_run(&self, words: &str) -> Run {
        let run = Run::program(&lane::program("kubectl")).env("HOME", &self.dir);
        run.arg("--kubeconfig").arg(self.kubeconfig()).words(words)
    }

    /// Applies objects.
    ///
    /// # Panics
    /// When one is refused.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = self.dir.join(format!("apply-{:x}.json", fingerprint(&list.to_string())));
        std::fs::write(&file, list.to_string()).expect("writing what is to be applied");
        self.kubectl_run("apply -f").arg(file).done().ok();
    }

    /// An object as it is, `None` where there is none: `get("job", "default", "name")`. An object that is in no namespace has an empty one.
    ///
    /// # Panics
    /// When the API server does not answer.
    #[track_caller]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let within = if namespace.is_empty() { String::new() } else { format!("-n {namespace}") };
        let found = self.kubectl_run(&format!("get {kind} {name} {within} --ignore-not-found -o json")).text();
        (!found.trim().is_empty()).then(|| serde_json::from_str(&found).expect("an object"))
    }

    /// Kills the API server as a power switch would.
    pub fn kill_api(&self) {
        self.parts().api = None;
    }

    /// Starts the API server, at its old place, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_api(&self) {
        let api = self.part("kube-apiserver", &self.api());
        self.parts().api = Some(api);
        self.until("the API server", || {
            let ready = Run::tool("curl").words("--silent --fail --max-time 5 --cacert").arg(self.ca());
            ready.arg(format!("{}/readyz", self.url())).done().status.success()
        });
    }

    /// Makes the cluster forget the past: whoever goes on watching from a resource version of before is told 410. The API server
    /// answers from memory what etcd has forgotten, so it starts anew.
    ///
    /// # Panics
    /// When etcd does not do it, or the API server does not start.
    pub fn compact(&self) {
        self.kill_api();
        let now = self.etcd_call("range", &json!({"key": "AA=="}));
        let revision = now["header"]["revision"].clone();
        self.etcd_call("compaction", &json!({"revision": revision, "physical": true}));
        self.start_api();
    }

    /// Kills the controllers: nothing makes pods of Jobs, or looks at nodes, until they are started again.
    pub fn kill_controllers(&self) {
        self.parts().controllers = None;
    }

    /// Starts the controllers.
    pub fn start_controllers(&self) {
        let controllers = self.part("kube-controller-manager", &self.controllers());
        self.parts().controllers = Some(controllers);
    }

    /// The process numbers of all parts that run.
    pub fn pids(&self) -> Vec<u32> {
        let parts = self.parts();
        [&parts.controllers, &parts.api, &parts.etcd].into_iter().flatten().map(Leashed::pid).collect()
    }

    /// Ends all of it.
    pub fn stop(&self) {
        *self.parts() = Parts::default();
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn part(&self, name: &str, arguments: &[String]) -> Leashed {
        Leashed::start(&lane::program(name), arguments, &self.dir.join(format!("{name}.log")))
    }

    /// Waits until something is so while every part runs.
    fn until(&self, what: &str, so: impl Fn() -> bool) {
        let began = Instant::now();
        while !so() {
            let late = began.elapsed() > START;
            let parts = &mut *self.parts();
            for part in [&mut parts.etcd, &mut parts.api, &mut parts.controllers].into_iter().flatten() {
                let ended = part.ended();
                assert!(
                    ended.is_none(),
                    "waiting for {what}: a part of the cluster ended ({ended:?}):\n{}",
                    part.said()
                );
                assert!(!late, "{what} did not come within {START:?}; one part says:\n{}", part.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn etcd_call(&self, method: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/v3/kv/{method}", self.ports[0]);
        let call = Run::tool("curl").words("--silent --show-error --fail --data").arg(body.to_string()).arg(url);
        serde_json::from_str(&call.text()).expect("etcd's answer")
    }

    fn etcd(&self) -> Vec<String> {
        let [client, _, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let data = self.dir.join("etcd").display().to_string();
        let options = [
            ("data-dir", data),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("default={peer}")),
            // What a test writes need not outlive a power failure.
            ("unsafe-no-fsync", "true".into()),
        ];
        flags(&options)
    }

    fn api(&self) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let toleration = self.pace.toleration.to_string();
        let options = [
            ("etcd-servers", format!("http://127.0.0.1:{}", self.ports[0])),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.ports[1].to_string()),
            // Loopback is refused as an address that is told to others, and a machine without a route has no other: one that nobody has.
            ("advertise-address", "192.0.2.1".into()),
            ("endpoint-reconciler-type", "none".into()),
            ("tls-cert-file", file("api.pem")),
            ("tls-private-key-file", file("api.key")),
            ("token-auth-file", file("tokens.csv")),
            ("service-account-issuer", "https://kubernetes.default.svc".into()),
            ("service-account-key-file", file("accounts.pub")),
            ("service-account-signing-key-file", file("accounts.key")),
            ("authorization-mode", "Node,RBAC".into()),
            ("allow-privileged", "true".into()),
            ("service-cluster-ip-range", "10.96.0.0/24".into()),
            // In 1.20 what later servers have without being asked.
            ("feature-gates", "TTLAfterFinished=true".into()),
            ("default-not-ready-toleration-seconds", toleration.clone()),
            ("default-unreachable-toleration-seconds", toleration),
            // Hundreds of runs at once are a test, too.
            ("max-requests-inflight", "2000".into()),
            ("max-mutating-requests-inflight", "1000".into()),
        ];
        flags(&options)
    }

    fn controllers(&self) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let seconds = |seconds: u32| format!("{seconds}s");
        let options = [
            ("kubeconfig", file("controllers.json")),
            ("service-account-private-key-file", file("accounts.key")),
            ("root-ca-file", file("ca.pem")),
            ("use-service-account-credentials", "true".into()),
            ("feature-gates", "TTLAfterFinished=true".into()),
            // Only one: whoever starts again after a kill must not wait for the lease of the dead.
            ("leader-elect", "false".into()),
            ("port", "0".into()),
            ("secure-port", "0".into()),
            ("kube-api-qps", "400".into()),
            ("kube-api-burst", "800".into()),
            ("concurrent-gc-syncs", "20".into()),
            ("node-monitor-period", seconds(self.pace.period)),
            ("node-monitor-grace-period", seconds(self.pace.grace)),
            ("node-startup-grace-period", seconds(self.pace.grace)),
            // At the real pace a cluster in which every node is gone evicts nobody, since it suspects itself.
            ("unhealthy-zone-threshold", "1".into()),
            ("large-cluster-size-threshold", "0".into()),
            ("node-eviction-rate", "10".into()),
            ("secondary-node-eviction-rate", "10".into()),
            ("pvclaimbinder-sync-period", "1s".into()),
        ];
        flags(&options)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn flags<const N: usize>(options: &[(&str, String); N]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Demands that a command was refused by RBAC.
///
/// # Panics
/// When it was not.
#[track_caller]
pub fn forbidden(done: Done) -> Done {
    assert!(!done.status.success(), "{} was allowed", done.line);
    done.says("forbidden")
}
