//! Agents that a Kubernetes cluster starts: where it is, and what each Job is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Agents that the service starts as Jobs of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// The agent's image, best by digest. Default: none, and then no run can be launched in a cluster.
    pub image: Option<String>,
    /// Where pods find the service: `https://NAME:PORT`, with one of `names`. Default: the first of `names`, with the port of `listen`.
    pub url: Option<String>,
    /// A kubeconfig file. Default: the service account of the pod that the service runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the Jobs. Default: that of the service's pod, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Names of Secrets with which the image is pulled. Default: none.
    pub pull_secrets: Vec<String>,
    /// Files with the public keys that such agents trust for images (PEM). Default: every file in `trust` in the data folder.
    pub trust: Vec<PathBuf>,
    /// File with the certificates by which they know the service (PEM). Default: the service's own authority.
    pub ca: Option<PathBuf>,
    /// File with registry credentials, in the format of docker's `config.json`. Default: none.
    pub registry_auth: Option<PathBuf>,
    /// More arguments for `z-provisioner run`. Default: none.
    pub args: Vec<String>,
    /// Labels of the nodes that reach a fabric, by the fabric's name; `*` is every fabric that is not named. Default: none, every node does.
    pub fabrics: BTreeMap<String, BTreeMap<String, String>>,
    /// Tolerations of the pods, as Kubernetes has them. Default: none.
    pub tolerations: Vec<Value>,
    /// How pods come by the devices: `host`, the node's own, in a privileged container; or the resource of a device plugin, which the
    /// container asks for one of. Default: `host`.
    pub devices: String,
    /// With a device plugin: the user and group that the agent runs as, and the group that may write the devices. Default: `[65532, 6]`.
    pub user: [u32; 2],
    /// The seccomp profile of a container that is not privileged: `default`, the runtime's; `unconfined`; or the path of a file below the
    /// kubelet's folder of profiles. Default: `profiles/z-provisioner.json`.
    pub seccomp: String,
    /// MiB of memory that each pod asks for, and gets at most, 128 to 65536. Default: 512.
    pub memory_mib: u32,
    /// Thousandths of a processor that each pod asks for, 10 to 64000. Default: 1000.
    pub cpu_milli: u32,
    /// Name of the pods' PriorityClass. Default: none.
    pub priority_class: Option<String>,
    /// Seconds after which Kubernetes itself ends an attempt, 60 to 604800. Default: 86400, a day.
    pub run_within: u32,
    /// Seconds for which a Job that has ended can still be looked at, 0 to 604800. Default: 3600.
    pub keep: u32,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Kubernetes {
            image: None,
            url: None,
            kubeconfig: None,
            namespace: None,
            pull_secrets: Vec::new(),
            trust: Vec::new(),
            ca: None,
            registry_auth: None,
            args: Vec::new(),
            fabrics: BTreeMap::new(),
            tolerations: Vec::new(),
            devices: HOST_DEVICES.into(),
            user: [65532, 6],
            seccomp: "profiles/z-provisioner.json".into(),
            memory_mib: 512,
            cpu_milli: 1000,
            priority_class: None,
            run_within: 86_400,
            keep: 3600,
        }
    }
}

/// The value of [`Kubernetes::devices`] for the node's own.
pub const HOST_DEVICES: &str = "host";
