//! The demo's own folder above the manifests, as every site has one, and the install.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Cluster, NAMESPACE, PORT};
use crate::demo::Stage;
use crate::demo::steps::Steps;
use crate::fail::{Outcome, Tried};
use crate::interrupt::interrupted;
use crate::shell::{run, tool, workspace};

/// Whom the manifests let the service run as.
const USER: u32 = 65532;

const KUSTOMIZATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../overlays/sqlite
  - volume.json
images:
  - name: registry.example.com/z-provisioner/z-orchestrator
    newName: localhost/z-orchestrator
    newTag: demo
configMapGenerator:
  - name: z-orchestrator-config
    namespace: z-provisioner
    behavior: merge
    files:
      - config.json
  - name: z-provisioner-trust
    namespace: z-provisioner
    files:
      - image.pub
";

/// What an image is called in the cluster.
pub(super) fn image(name: &str) -> String {
    format!("localhost/{name}:demo")
}

/// Installs the service, waits until it is ready, and says where its data folder is.
pub(super) fn install(stage: &mut Stage, cluster: &Cluster) -> Outcome<PathBuf> {
    let Stage { steps, scratch, trusted, .. } = stage;
    steps.start("Install the service: the manifests, and a folder of one's own above them");
    let manifests = scratch.path("manifests");
    steps.run(tool("cp").arg("-r").arg(workspace().join("containers/kubernetes")).arg(&manifests))?;
    let site = manifests.join("demo");
    steps.run(tool("mkdir").arg(&site))?;
    steps.run(tool("cp").arg(trusted).arg(site.join("image.pub")))?;
    let state = volume(scratch.path("state"))?;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "state"},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": state, "type": "Directory"},
            "claimRef": {"namespace": NAMESPACE, "name": "z-orchestrator"},
        },
    });
    let config = json!({
        "listen": [format!("127.0.0.1:{PORT}")],
        "names": ["z-orchestrator.z-provisioner.svc", "localhost"],
        "kubernetes": {
            "image": image("z-provisioner"),
            "namespace": NAMESPACE,
            "trust": ["/etc/z-provisioner/trust/image.pub"],
        },
    });
    let write = |name: &str, text: &str| write(steps, &site.join(name), text);
    write("kustomization.yaml", KUSTOMIZATION)?;
    write("config.json", &format!("{config:#}\n"))?;
    write("volume.json", &format!("{volume:#}\n"))?;
    steps.run(cluster.kubectl().arg("apply").arg("-k").arg(&site))?;
    let ready = ["rollout", "status", "statefulset/z-orchestrator", "--timeout=120s"];
    let ready = steps.run(cluster.kubectl().args(ready));
    if ready.is_err() && !interrupted() {
        // Whatever it says is of more use than that it took too long.
        run(cluster.kubectl().args(["describe", "pods"]))?;
    }
    ready?;
    Ok(state.join("z-orchestrator"))
}

/// A folder of this machine that is a volume of the cluster. A kubelet gives no such volume to the pod's group.
fn volume(folder: PathBuf) -> Outcome<PathBuf> {
    let made = std::fs::create_dir(&folder).and_then(|()| chown(&folder, Some(USER), Some(USER)));
    made.tried(format_args!("make {} a folder of user {USER}", folder.display()))?;
    Ok(folder)
}

fn write(steps: &Steps, file: &Path, text: &str) -> Outcome<()> {
    std::fs::write(file, text).tried(format_args!("write {}", file.display()))?;
    steps.say(&format!("{} holds", file.display()));
    text.lines().for_each(|line| steps.say(&format!("  {line}")));
    Ok(())
}
