//! One server, provisioned by a Job: a Kubernetes control plane and a node on this machine, the manifests installed as an operator does,
//! the service and the agent in containers.

mod site;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Stage, attach, compare};
use crate::cluster;
use crate::containers::{self, Arch, Kind};
use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::interrupted;
use crate::prerequisites::{Lane, ensure};
use crate::server::{Manners, Server};
use crate::shell::{capture, cargo, search_path, target_folder, tool};

/// Where the manifests install the service.
const NAMESPACE: &str = "z-provisioner";

/// Where it listens: pods of this cluster have the machine's network.
const PORT: u16 = 7443;

/// The node, which is the server.
const NODE: &str = "worker-1";

const CONTROL_PLANE: Manners =
    Manners { ready: "listening on ", start: Duration::from_secs(120), end: Duration::from_secs(20) };

/// It takes the images into its storage first, and ends its containers last.
const WORKER: Manners =
    Manners { ready: "node worker-1 is there", start: Duration::from_secs(240), end: Duration::from_secs(60) };

/// What has to be there before anything is begun.
pub(super) fn prepare() -> Outcome<()> {
    cluster::demand_processor()?;
    for lane in [Lane::Containers, Lane::Cluster, Lane::Kubernetes] {
        ensure(lane)?;
    }
    let free = std::net::TcpListener::bind(("127.0.0.1", PORT));
    free.map(drop).map_err(|error| {
        Fail::usage(format!(
            "the demo's service listens on 127.0.0.1:{PORT}, and cannot ({error}): end what listens there, perhaps another demo"
        ))
    })
}

/// Provisions it; says how it went.
pub(super) fn provision(stage: &mut Stage) -> Outcome<String> {
    stage.steps.start("Build the images of the agent and the service");
    let layouts = stage.scratch.path("containers");
    stage.steps.say(&format!("$ cargo xtask containers --arch amd64 --out {}", layouts.display()));
    containers::make(&[Arch::Amd64], Kind::Release, &layouts)?;

    stage.steps.start("Attach a block device: the server's disk");
    let disk = attach(&stage.scratch, &stage.subject, &stage.steps, "disk.img")?;

    // In this order they are begun, and in the other one they end: the node's containers are gone before the cluster is.
    let cluster = Cluster::start(stage)?;
    let _node = cluster.node(stage, &layouts)?;
    let data = site::install(stage, &cluster)?;

    let Stage { steps, scratch, subject, key_id, server: images, .. } = stage;
    steps.start("Order a run");
    let file = scratch.path("run.json");
    let text = json!({
        "server": NODE,
        "launcher": "kubernetes",
        "image": {"name": subject.name, "sources": [images.url], "trust": [key_id]},
        "target": {"device": disk.device},
    });
    std::fs::write(&file, format!("{text:#}\n")).tried("write the run")?;
    steps.say(&format!("{} holds {text:#}", file.display()));
    let program = containers::released("z-orchestrator")?;
    let client = |command: &str| {
        let mut client = tool(&program);
        client.args(["run", command, "--url", &format!("https://localhost:{PORT}"), "--data"]).arg(&data);
        client
    };
    let mut create = client("create");
    steps.show(create.arg(&file));
    let began = Instant::now();
    let run = capture(&mut create)?.trim().to_owned();
    steps.say(&run);

    steps.start("Watch it until it has ended");
    let watched = steps.run(client("watch").arg(&run));
    let took = began.elapsed();
    if interrupted() {
        return Err(Fail::interrupted());
    }

    steps.start("Look at what came of it");
    let job = format!("z-{run}-1");
    if watched.is_ok() {
        // The agent says that it is done before it ends, and the cluster sees the end later still.
        let complete = ["wait", "--for=condition=complete", &format!("job/{job}"), "--timeout=60s"];
        steps.run(cluster.kubectl().args(complete))?;
    }
    let looked = [
        cluster.kubectl().args(["get", "jobs,pods", "-o", "wide"]),
        cluster.kubectl().args(["describe", "job", &job]),
        client("show").arg(&run),
    ]
    .map(|command| steps.run(command));
    // Of a run that failed there may be no Job, and then that is not what went wrong.
    watched?;
    looked.into_iter().collect::<Outcome<()>>()?;

    steps.start("Compare the device with the raw image, by means that are not ours");
    compare(&disk, subject, steps)?;
    Ok(format!("{:.1} s by a Job onto {}", took.as_secs_f64(), disk.device))
}

/// A cluster without a node, and how one talks to it.
struct Cluster {
    programs: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    _running: Server,
}

impl Cluster {
    fn start(stage: &mut Stage) -> Outcome<Self> {
        let Stage { steps, scratch, .. } = stage;
        steps.start("Get a Kubernetes control plane (from the cache, or build it), and start it (in the background)");
        steps.say("$ cargo xtask cluster");
        let root = cluster::provide()?;
        steps.say(&root.display().to_string());
        steps.run(cargo().args(["build", "--quiet", "-p", "cluster", "--bin", "control-plane", "--bin", "node"]))?;
        let kubeconfig = scratch.path("admin.json");
        let mut start = tool("env");
        start.arg(format!("CLUSTER_ROOT={}", root.display())).arg(debug_binary("control-plane")?);
        steps.show(start.arg("--kubeconfig").arg(&kubeconfig));
        let running = Server::with(&CONTROL_PLANE, &mut start, &scratch.path("control-plane.log"))?;
        steps.say(&format!("listening on {}", running.url));
        let programs = root.join("bin");
        steps.say(&format!("$ export KUBECONFIG={} PATH={}:$PATH", kubeconfig.display(), programs.display()));
        Ok(Cluster { programs, kubeconfig, home: scratch.path("kubectl"), _running: running })
    }

    /// A node that runs containers of these images, with podman and a storage of its own.
    fn node(&self, stage: &mut Stage, layouts: &std::path::Path) -> Outcome<Server> {
        let Stage { steps, scratch, .. } = stage;
        steps.start("Start a node with these images: the server (in the background)");
        let mut start = tool(debug_binary("node")?);
        start.arg("--kubeconfig").arg(&self.kubeconfig).args(["--name", NODE, "--storage"]).arg(scratch.path("node"));
        for name in ["z-provisioner", "z-orchestrator"] {
            start.arg("--image").arg(format!("{}={}", site::image(name), layouts.join(name).display()));
        }
        steps.show(&start);
        let node = Server::with(&WORKER, &mut start, &scratch.path("node.log"))?;
        steps.say(WORKER.ready);
        Ok(node)
    }

    /// kubectl, in the service's namespace.
    fn kubectl(&self) -> Command {
        let mut kubectl = tool("kubectl");
        let mut path = self.programs.clone().into_os_string();
        path.push(":");
        path.push(search_path());
        // What it caches of a cluster goes with the cluster.
        kubectl.env("KUBECONFIG", &self.kubeconfig).env("PATH", path).env("HOME", &self.home);
        kubectl.args(["-n", NAMESPACE]);
        kubectl
    }
}

/// A program of the tests.
fn debug_binary(name: &str) -> Outcome<PathBuf> {
    Ok(target_folder()?.join("debug").join(name))
}
