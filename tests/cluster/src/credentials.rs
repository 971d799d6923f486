//! Keys, certificates and tokens of a control plane.

use std::path::{Path, PathBuf};

use e2e::command::Run;
use serde_json::json;

/// What the API server knows its callers by.
const ADMIN: &str = "administrator-of-the-tests";
const CONTROLLERS: &str = "controllers-of-the-tests";

/// The files of one cluster.
#[derive(Debug)]
pub struct Credentials {
    /// The administrator's kubeconfig.
    pub admin: PathBuf,
}

impl Credentials {
    /// Makes all of them in a folder: `ca.pem`, `api.{pem,key}`, `accounts.{key,pub}`, `tokens.csv`, kubeconfigs.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn new(dir: &Path, port: u16) -> Self {
        let openssl = |words: &str| drop(Run::tool("openssl").words(words).within(dir).done().ok());
        openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 2 -subj /CN=cluster -keyout ca.key -out ca.pem \
             -addext keyUsage=critical,keyCertSign",
        );
        let names =
            "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1";
        let extensions = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth\n");
        std::fs::write(dir.join("api.ext"), extensions).expect("writing extensions");
        openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=kube-apiserver -keyout api.key -out api.csr",
        );
        openssl(
            "x509 -req -in api.csr -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 2 -extfile api.ext -out api.pem",
        );
        openssl("ecparam -name prime256v1 -genkey -noout -out accounts.key");
        openssl("ec -in accounts.key -pubout -out accounts.pub");
        let tokens = format!(
            "{ADMIN},admin,1,\"system:masters\"\n{CONTROLLERS},system:kube-controller-manager,2,\"system:authenticated\"\n"
        );
        std::fs::write(dir.join("tokens.csv"), tokens).expect("writing tokens");
        let (url, ca) = (format!("https://127.0.0.1:{port}"), dir.join("ca.pem"));
        kubeconfig(&dir.join("controllers.json"), &url, &ca, CONTROLLERS, "default");
        let admin = dir.join("admin.json");
        kubeconfig(&admin, &url, &ca, ADMIN, "default");
        Credentials { admin }
    }
}

/// Writes a kubeconfig with a token.
///
/// # Panics
/// When it cannot be written.
pub fn kubeconfig(file: &Path, url: &str, ca: &Path, token: &str, namespace: &str) {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "caller", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "caller", "namespace": namespace}}],
        "current-context": "tests",
    });
    std::fs::write(file, config.to_string()).unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
}
