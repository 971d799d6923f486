//! Runs in containers: with the node's own devices, with a device plugin's, evicted, called off, and without an image.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};

use cluster::{Machine, Podman};
use e2e::loopdev::Mount;
use e2e::{Run, Service, Target, exit};
use serde_json::{Value, json};

use crate::stage::{NAMESPACE, SIZE, Stage, attempt, configuration, merge};
use crate::{site, storage, tag};

/// The resource of the device plugin.
const RESOURCE: &str = "z-provisioner.test/disk";
/// Group `disk` of Debian.
const DISK: u32 = 6;

/// A stage with one node that runs containers, and a device plugin there.
struct Scene {
    stage: Stage,
    podman: Podman,
    plugged: Target,
}

impl Scene {
    fn new() -> Self {
        let mut made = None;
        let stage = Stage::of(json!({}), |lab, cluster| {
            let podman = storage(lab, &["z-provisioner"]);
            let plugged = Target::device(lab, SIZE, "");
            // As udev makes disks.
            chown(plugged.path(), Some(0), Some(DISK)).unwrap();
            std::fs::set_permissions(plugged.path(), Permissions::from_mode(0o660)).unwrap();
            let machine = Machine::new("n1", &lab.fresh_dir("node"), podman.clone());
            let machine = machine.device(RESOURCE, plugged.path()).profiles(&lab.path("seccomp"));
            let node = machine.start(cluster.kubeconfig());
            made = Some((podman, plugged));
            vec![node]
        });
        let (podman, plugged) = made.unwrap();
        Scene { stage, podman, plugged }
    }

    /// Puts another service in the place of the one before, with more configuration.
    fn serve(&mut self, more: Value) {
        let kubeconfig = self.stage.cluster.kubeconfig_of("z-orchestrator", NAMESPACE);
        let mut config = configuration(&kubeconfig, &self.stage.image);
        merge(&mut config, more);
        self.stage.service = Service::new(&self.stage.lab, config);
    }

    /// A run that writes the device plugin's device.
    fn create_plugged(&self) -> String {
        let (_, mut order) = self.stage.order("n1");
        order["target"]["device"] = json!(self.plugged.path());
        self.stage.create(&order)
    }

    /// What the container runtime says of the container of a run's first attempt.
    fn container(&self, run: &str) -> Value {
        let uid = self.stage.pods(run, 1)[0]["metadata"]["uid"].as_str().unwrap().to_owned();
        let inspected = self.podman.bounded(["container", "inspect"]).arg(format!("{uid}-agent")).text();
        serde_json::from_str::<Value>(&inspected).unwrap()[0].take()
    }

    /// Writes a seccomp profile where the node looks for it: that of the manifests, perhaps with another answer to one call.
    fn profile(&self, name: &str, refused: Option<&str>) {
        let file = site::repository().join("containers/kubernetes/seccomp/z-provisioner.json");
        let mut profile: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        if let Some(refused) = refused {
            let rules = profile["syscalls"].as_array_mut().unwrap();
            for rule in rules.iter_mut() {
                rule["names"].as_array_mut().unwrap().retain(|name| name != refused);
            }
            rules.push(json!({"names": [refused], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
        }
        let folder = self.stage.lab.path("seccomp").join("profiles");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), profile.to_string()).unwrap();
    }
}

#[test]
fn runs_are_provisioned_by_containers_of_the_agents_image() {
    let mut scene = Scene::new();
    with_the_nodes_own_devices(&scene);
    a_device_that_the_node_has_mounted_is_refused(&scene.stage);
    what_is_evicted_is_gone_on_with(&scene.stage);
    a_run_that_is_called_off_ends_its_container(&scene.stage);
    an_image_that_comes_late(&mut scene);
    with_a_device_plugin_and_a_profile_that_comes_late(&mut scene);
    where_io_uring_is_refused(&mut scene);
    scene.stage.no_pod_is_kept();
}

fn with_the_nodes_own_devices(scene: &Scene) {
    let stage = &scene.stage;
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["summary"]["engine"], "io_uring (O_DIRECT)", "{ended:#}");
    let complete = |_: &Value| stage.kubectl(&format!("get job z-{run}-1")).contains("1/1");
    stage.until(&run, "a Job that is complete", complete);
    // Nothing keeps a pod that is known to be dead: else nobody could let it go when the service has been taken away.
    let is_let_go = |_: &Value| stage.pods(&run, 1)[0]["metadata"]["finalizers"].is_null();
    stage.until(&run, "let go", is_let_go);
    let shown = stage.kubectl(&format!("get jobs,pods -l z-provisioner/run={run}"));
    assert!(shown.contains(&format!("job.batch/z-{run}-1")) && shown.contains("Completed"), "{shown}");
    let described = stage.described(&run, 1);
    for part in
        ["localhost/z-provisioner:test", "memory:  128Mi", "cpu:", "Completed", "HostPath", "z-provisioner-agent"]
    {
        assert!(described.contains(part), "{part} is not in:\n{described}");
    }
    // What LUKS and multipath need of it, by the word of what runs it.
    let container = scene.container(&run);
    let host = &container["HostConfig"];
    assert_eq!((&host["Privileged"], &host["ReadonlyRootfs"]), (&true.into(), &true.into()), "{container:#}");
    // podman's own word for the IPC is not to be trusted; that of what it tells the runtime is.
    let told = std::fs::read(container["OCIConfigPath"].as_str().unwrap()).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let own = told["linux"]["namespaces"].as_array().unwrap().iter().filter_map(|of| of["type"].as_str());
    let own: Vec<&str> = own.collect();
    assert!(own.contains(&"mount") && !own.contains(&"ipc") && !own.contains(&"network"), "{own:?}");
    let mounts: Vec<&str> =
        container["Mounts"].as_array().unwrap().iter().filter_map(|of| of["Destination"].as_str()).collect();
    for path in ["/dev", "/sys", "/run/udev", "/etc/multipath", "/run/z-provisioner"] {
        assert!(mounts.contains(&path), "{path} is not in {mounts:?}");
    }
    assert!(host["Tmpfs"]["/run/cryptsetup"].is_string(), "{container:#}");
}

/// The container does not see the mount, and the kernel tells it all the same that somebody has the device.
fn a_device_that_the_node_has_mounted_is_refused(stage: &Stage) {
    let (target, order) = stage.order("n1");
    Run::tool("mke2fs").words("-q -F -t ext4").arg(target.path()).done().ok();
    target.settle();
    let mount = Mount::new("-o ro,noload", target.path(), &stage.lab.path("mnt"));
    let before = target.now();
    let run = stage.create(&order);
    let ended = stage.until(&run, "over", |shown: &Value| !shown["ended"].is_null());
    assert_eq!(
        (&ended["state"], attempt(&ended, 1)["outcome"].as_str()),
        (&"failed".into(), Some("failed")),
        "{ended:#}"
    );
    let shown = stage.pods(&run, 1)[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].clone();
    assert_eq!(shown, exit::TARGET, "{ended:#}");
    assert!(target.now() == before, "it was written");
    drop(mount);
}

fn what_is_evicted_is_gone_on_with(stage: &Stage) {
    let (target, order) = stage.slow_order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    stage.nodes[0].evict(NAMESPACE, &stage.pod(&run, 1));
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended:#}");
    assert!(ended["summary"]["kept_bytes"].as_u64().unwrap() > 0, "it goes on with what is there: {ended:#}");
    let described = stage.described(&run, 1);
    assert!(described.contains("Evicted"), "{described}");
}

fn a_run_that_is_called_off_ends_its_container(stage: &Stage) {
    let (_target, order) = stage.order("n1");
    let run = stage.create(&order);
    stage.until_it_writes(&run);
    stage.service.client("cancel").arg(&run).done().ok();
    stage.service.until(&run, &["cancelled"], 30);
    // By itself, and in its own words: nobody had to kill it.
    let ended = |_: &Value| {
        let pods = stage.pods(&run, 1);
        pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 8
    };
    stage.until(&run, "a container that has ended", ended);
}

fn an_image_that_comes_late(scene: &mut Scene) {
    let late = "localhost/z-provisioner:late";
    scene.serve(json!({"kubernetes": {"image": late}}));
    let stage = &scene.stage;
    let (target, order) = stage.order("n1");
    let run = stage.create(&order);
    let shown = stage.until_said(&run, "ImagePullBackOff");
    assert!(shown["reason"].as_str().unwrap().contains(late), "{shown:#}");
    let described = stage.described(&run, 1);
    assert!(described.contains("ImagePullBackOff") && described.contains("Failed to pull image"), "{described}");
    tag(&scene.podman, "localhost/z-provisioner:test", late);
    let ended = stage.succeeded(&run, &target);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
}

fn with_a_device_plugin_and_a_profile_that_comes_late(scene: &mut Scene) {
    scene.serve(json!({"kubernetes": {"devices": RESOURCE}}));
    let stage = &scene.stage;
    let run = scene.create_plugged();
    let shown = stage.until_said(&run, "seccomp profile");
    assert!(shown["reason"].as_str().unwrap().contains("profiles/z-provisioner.json"), "{shown:#}");
    scene.profile("z-provisioner.json", None);
    let ended = stage.succeeded(&run, &scene.plugged);
    assert_eq!(ended["summary"]["engine"], "io_uring (O_DIRECT)", "{ended:#}");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
    let described = stage.described(&run, 1);
    assert!(described.contains(&format!("{RESOURCE}:  1")), "{described}");
    // By the word of what runs it: nobody in particular, with nothing.
    let container = scene.container(&run);
    assert_eq!(container["Config"]["User"], "65532:65532", "{container:#}");
    assert_eq!(container["HostConfig"]["Privileged"], false, "{container:#}");
    assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true, "{container:#}");
    assert!(container["EffectiveCaps"].as_array().is_none_or(Vec::is_empty), "{container:#}");
}

fn where_io_uring_is_refused(scene: &mut Scene) {
    scene.profile("without.json", Some("io_uring_setup"));
    let seccomp = "profiles/without.json";
    scene.serve(json!({"kubernetes": {"devices": RESOURCE, "seccomp": seccomp}}));
    let stage = &scene.stage;
    // So that there is something to write again.
    std::fs::write(scene.plugged.path(), vec![0; 65536]).unwrap();
    let run = scene.create_plugged();
    let ended = stage.succeeded(&run, &scene.plugged);
    assert_eq!(ended["summary"]["engine"], "pwrite threads (O_DIRECT)", "{ended:#}");
    let fallback = ended["summary"]["fallback"].as_str().unwrap_or_default();
    assert!(fallback.contains("io_uring is not available here (Operation not permitted"), "{ended:#}");
    let profile = scene.stage.lab.path("seccomp").join(seccomp);
    assert!(scene.container(&run).to_string().contains(&profile.display().to_string()), "under another profile");
}
