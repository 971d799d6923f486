//! The manifests of this repository, and a site's own folder above them.

use std::path::{Path, PathBuf};

use cluster::Cluster;
use e2e::command::Run;
use e2e::lab::Lab;

/// The namespace in the manifests.
pub const NAMESPACE: &str = "z-provisioner";

/// A copy of `containers/kubernetes`, to which a test adds what an operator would.
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// With a public key as those who sign images have one.
    pub fn new(lab: &Lab) -> Self {
        let folder = lab.fresh_dir("site");
        Run::tool("cp").arg("-r").arg(repository().join("containers/kubernetes/.")).arg(&folder).done().ok();
        let site = Site { folder };
        let key = lab.path("image.key");
        Run::tool("openssl").words("genpkey -algorithm ed25519 -out").arg(&key).done().ok();
        let public = site.folder("examples/site").join("image.pub");
        Run::tool("openssl").words("pkey -pubout -in").arg(&key).arg("-out").arg(public).done().ok();
        site
    }

    /// A folder of it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file of its own above an overlay; the name of its folder.
    pub fn above(&self, name: &str, kustomization: &str) -> String {
        let folder = self.folder(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("kustomization.yaml"), kustomization).unwrap();
        name.to_owned()
    }

    /// `kubectl apply -k`: a line for each object.
    #[track_caller]
    pub fn apply(&self, cluster: &Cluster, name: &str) -> Vec<String> {
        let said = cluster.kubectl_run("apply -k").arg(self.folder(name)).text();
        said.lines().map(str::to_owned).collect()
    }
}

/// The folder of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The chapter on Kubernetes.
pub fn chapter() -> String {
    let text = std::fs::read_to_string(repository().join("docs/operating.md")).unwrap();
    let (_, rest) = text.split_once("\n## Kubernetes\n").unwrap();
    rest.split_once("\n## ").unwrap().0.to_owned()
}
