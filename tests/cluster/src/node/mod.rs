//! A node: an agent that does for real what a kubelet does, with what tests need to make it fail.
//!
//! It plays the scheduler's part as well. What it does not have: a network between pods (all have the machine's), init containers,
//! probes other than of readiness, a server for `kubectl logs` and `exec`.

mod engine;
mod environment;
mod heart;
mod life;
mod probe;
mod schedule;
mod shared;
mod status;
mod volumes;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio::sync::watch as channel;

use crate::podman::Podman;
use engine::{Containers, Engine, Programs};
use shared::Shared;

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    folder: PathBuf,
    labels: BTreeMap<String, String>,
    devices: BTreeMap<String, Vec<PathBuf>>,
    profiles: PathBuf,
    engine: Engine,
}

impl Machine {
    /// One that runs containers from a storage. `folder` is for what it keeps.
    ///
    /// # Panics
    /// When there is no shell.
    pub fn new(name: &str, folder: &Path, storage: Podman) -> Self {
        Self::with(name, folder, Engine::Podman(Containers::new(storage)))
    }

    /// One that runs a program of this machine in the place of every container, with the container's arguments. Arguments that are
    /// paths below a mount are replaced by where that is.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn of_programs(name: &str, folder: &Path, program: &Path) -> Self {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).unwrap_or_else(|error| panic!("making {}: {error}", logs.display()));
        Self::with(name, folder, Engine::Programs(Programs::new(program, &logs)))
    }

    fn with(name: &str, folder: &Path, engine: Engine) -> Self {
        let (labels, devices) = Default::default();
        Machine {
            name: name.to_owned(),
            folder: folder.to_owned(),
            labels,
            devices,
            profiles: folder.join("seccomp"),
            engine,
        }
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a device plugin that has one more device of this resource. Who asks for the resource is given all of its devices.
    #[must_use]
    pub fn device(mut self, resource: &str, path: &Path) -> Self {
        self.devices.entry(resource.to_owned()).or_default().push(path.to_owned());
        self
    }

    /// With seccomp profiles from another folder than `seccomp` in its own.
    #[must_use]
    pub fn profiles(mut self, folder: &Path) -> Self {
        self.profiles = folder.to_owned();
        self
    }

    /// Starts its agent.
    ///
    /// # Panics
    /// When the kubeconfig, the administrator's, makes no sense.
    pub fn start(self, kubeconfig: &Path) -> Node {
        let mut node = Node { machine: self, kubeconfig: kubeconfig.to_owned(), agent: None };
        node.start_agent();
        node
    }
}

/// A machine in the cluster. Its containers end when it is dropped, and when this process does.
pub struct Node {
    machine: Machine,
    kubeconfig: PathBuf,
    agent: Option<Agent>,
}

struct Agent {
    shared: Arc<Shared>,
    frozen: channel::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Not waiting for what does not end, such as a look at a container.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Cuts it off: no heart beat and no report any more, while its containers go on.
    ///
    /// # Panics
    /// When its agent does not run.
    pub fn freeze(&self) {
        self.agent().frozen.send_replace(true);
    }

    /// Ends that.
    ///
    /// # Panics
    /// When its agent does not run.
    pub fn thaw(&self) {
        self.agent().frozen.send_replace(false);
    }

    /// Ends the agent at once; the containers go on.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// The power fails: no agent and no containers any more, and no report of that.
    pub fn kill_machine(&mut self) {
        self.agent = None;
        self.machine.engine.kill_all();
    }

    /// Starts the agent, again where it had been: it takes over what runs.
    ///
    /// # Panics
    /// When the cluster's kubeconfig makes no sense.
    pub fn start_agent(&mut self) {
        self.agent = None;
        self.agent = Some(Agent::start(&self.machine, &self.kubeconfig));
    }

    /// Evicts a pod, as a kubelet does that runs out of memory: it is asked to end, killed after its grace period, and has failed.
    ///
    /// # Panics
    /// When it is not here.
    #[track_caller]
    pub fn evict(&self, namespace: &str, pod: &str) {
        let name = format!("{namespace}/{pod}");
        let wishes = self.agent().shared.wishes();
        let found = wishes.values().find(|(one, _)| *one == name);
        let (_, wish) = found.unwrap_or_else(|| panic!("there is no pod {name} on {}", self.machine.name));
        wish.send_modify(|wish| wish.evict = true);
    }

    /// What a container has said. `uid` is the pod's.
    pub fn said(&self, uid: &str, container: &str) -> String {
        self.machine.engine.said(&format!("{uid}-{container}"))
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("a running agent")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_machine();
    }
}

impl Agent {
    fn start(machine: &Machine, kubeconfig: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime for the node's agent");
        let client = runtime.block_on(crate::client(kubeconfig)).expect("a client of the cluster");
        let (frozen, receiver) = channel::channel(false);
        let shared = Arc::new(Shared {
            name: machine.name.clone(),
            labels: machine.labels.clone(),
            devices: machine.devices.clone(),
            profiles: machine.profiles.clone(),
            pods: machine.folder.join("pods"),
            engine: machine.engine.clone(),
            server: server(kubeconfig),
            client,
            frozen: receiver,
            wishes: Mutex::new(HashMap::new()),
        });
        runtime.spawn(heart::beat(Arc::clone(&shared)));
        runtime.spawn(schedule::schedule(Arc::clone(&shared)));
        runtime.spawn(watch::watch(Arc::clone(&shared)));
        Agent { shared, frozen, runtime: Some(runtime) }
    }
}

/// Host and port of the API server, for pods.
fn server(kubeconfig: &Path) -> (String, u16) {
    let text = std::fs::read(kubeconfig).unwrap_or_default();
    let config: serde_json::Value =
        serde_json::from_slice(&text).expect("a kubeconfig in JSON, as a cluster of the tests has it");
    let url = config["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default();
    let parts = url.trim_start_matches("https://").split_once(':');
    let parts = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.expect("a kubeconfig with https://HOST:PORT")
}
