//! The agent in a container: it provisions a loop device, with as little as it can be given, and says what it could not have.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cluster::podman::Podman;
use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Target, exit, sample};
use nix::unistd::Gid;
use serde_json::{Value, json};

use crate::image;

const SIZE: u64 = 6 * MIB + 512;
/// Group `disk` of Debian, of which disks are.
const DISK: u32 = 6;
/// Nobody in particular, with nothing but that group: what a pod without rights is.
const STRANGER: &[&str] =
    &["--user", "65532:65532", "--group-add", "6", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];

/// An image on a server, a device, and podman with the agent's image.
struct Scene {
    lab: Lab,
    raw: PathBuf,
    packed: Image,
    server: Server,
    podman: Podman,
    agent: String,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let raw = lab.file("raw", &sample::noise(71, SIZE as usize));
        let packed = lab.pack(&raw, "--chunk-size 64KiB");
        let server = Server::imgstream(&packed.dir);
        let podman = Podman::new(&lab.fresh_dir("podman"));
        let agent = podman.load(&image("z-provisioner"));
        Scene { lab, raw, packed, server, podman, agent }
    }

    /// What a pod is given: the run spec and the key, to be read by everybody.
    fn handed_in(&self, target: &Path) -> PathBuf {
        let folder = self.lab.fresh_dir("in");
        let spec = json!({
            "run": "e2e-1",
            "image": {"name": "sample", "sources": [self.server.url()], "trust": ["/in/key.pub"]},
            "target": {"device": target},
        });
        std::fs::write(folder.join("spec.json"), spec.to_string()).unwrap();
        std::fs::copy(&self.packed.key.public, folder.join("key.pub")).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        for file in ["spec.json", "key.pub"] {
            std::fs::set_permissions(folder.join(file), Permissions::from_mode(0o644)).unwrap();
        }
        folder
    }

    fn run(&self, target: &Target, options: &[&str]) -> e2e::Run {
        let device = target.path().display();
        let mounted = format!("{}:/in:ro", self.handed_in(target.path()).display());
        let always = ["--network", "host", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:size=16m"];
        let run = self.podman.run(
            &self.agent,
            always.iter().chain(options).copied().chain(["--volume", &mounted, &format!("--device={device}")]),
        );
        run.words("run --spec /in/spec.json --json")
    }

    /// Provisions a new device, compares it. Returns the last event.
    #[track_caller]
    fn provisions(&self, options: &[&str]) -> Value {
        let target = self.device();
        let done = self.run(&target, options).done().ok();
        let last = done.json().pop().expect("events")["event"].take();
        assert_eq!(last["kind"], "run-finished", "{last}");
        assert_eq!(last["proof"]["read-back"]["bytes"], SIZE, "{last}");
        e2e::lab::cmp(&self.raw, target.path(), SIZE).ok();
        last
    }

    /// As udev makes disks: of root and the group `disk`.
    fn device(&self) -> Target {
        let target = Target::device(&self.lab, SIZE + 256 * KIB, "");
        chown(target.path(), Some(0), Some(Gid::from_raw(DISK).as_raw())).unwrap();
        std::fs::set_permissions(target.path(), Permissions::from_mode(0o660)).unwrap();
        target
    }

    /// The profile of the manifests, or that with another answer to one call.
    fn profile(&self, refused: Option<&str>) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../containers/kubernetes/seccomp/z-provisioner.json");
        let mut profile: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let rules = profile["syscalls"].as_array_mut().unwrap();
        if let Some(refused) = refused {
            for rule in rules.iter_mut() {
                rule["names"].as_array_mut().unwrap().retain(|name| name != refused);
            }
            rules.push(json!({"names": [refused], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
        }
        format!("seccomp={}", self.lab.file("profile.json", profile.to_string().as_bytes()).display())
    }
}

fn fallback(last: &Value) -> &str {
    last["fallback"].as_str().unwrap_or_default()
}

#[test]
fn a_stranger_with_the_disk_group_provisions_by_io_uring() {
    let scene = Scene::new();
    let profile = scene.profile(None);
    let more: &[&str] = &["--security-opt", &profile, "--cap-add", "IPC_LOCK", "--ulimit", "memlock=0:0"];
    let last = scene.provisions(&[STRANGER, more].concat());
    assert_eq!((&last["engine"], fallback(&last)), (&"io_uring (O_DIRECT)".into(), ""), "{last}");
}

#[test]
fn without_locked_memory_the_agent_does_with_less_and_says_so() {
    let scene = Scene::new();
    let profile = scene.profile(None);
    // Enough for the ring, on kernels that count that, and not for the buffers.
    let some: &[&str] = &["--security-opt", &profile, "--ulimit", "memlock=1048576:1048576"];
    let last = scene.provisions(&[STRANGER, some].concat());
    assert_eq!(last["engine"], "io_uring (O_DIRECT)", "{last}");
    assert!(
        fallback(&last).contains("without registered buffers") && fallback(&last).contains("RLIMIT_MEMLOCK"),
        "{last}"
    );
    let none: &[&str] = &["--security-opt", &profile, "--ulimit", "memlock=0:0"];
    let last = scene.provisions(&[STRANGER, none].concat());
    assert!(!fallback(&last).is_empty(), "{last}");
}

#[test]
fn where_io_uring_is_refused_the_agent_writes_with_threads_and_says_so() {
    let scene = Scene::new();
    for call in ["io_uring_setup", "io_uring_register"] {
        let profile = scene.profile(Some(call));
        let last = scene.provisions(&[STRANGER, &["--security-opt", &profile]].concat());
        assert_eq!(last["engine"], "pwrite threads (O_DIRECT)", "{last}");
        assert!(fallback(&last).contains("io_uring is not available here (Operation not permitted"), "{last}");
    }
}

#[test]
fn with_the_defaults_of_a_runtime_it_works_as_well() {
    let scene = Scene::new();
    scene.provisions(&[]);
    scene.provisions(STRANGER);
}

#[test]
fn a_stranger_without_the_group_is_refused_by_the_device_and_told_so() {
    let scene = Scene::new();
    let target = scene.device();
    let options = ["--user", "65532:65532", "--cap-drop", "ALL"];
    let done = scene.run(&target, &options).done();
    assert!([exit::TARGET, exit::DEVICE].contains(&done.status.code().unwrap()), "{done:?}");
    let done = done.says("permission denied");
    assert_eq!(done.json().pop().expect("events")["event"]["kind"], "run-failed");
    target.is_untouched();
}
