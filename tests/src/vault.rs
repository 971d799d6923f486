//! OpenBao: a server of a test's own, which keeps all in memory, over TLS with an authority of the test's; gone when dropped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{Run, Running};
use crate::lab::Lab;
use crate::server::free_port;
use crate::tls::Client;

/// A server's time is the test's time.
const LIMIT: u64 = 600;
/// What the documentation says.
const OPERATING: &str = include_str!("../../docs/operating.md");
/// The policy that it is given.
const POLICY: &str = "z-orchestrator";
/// The folder of keys, as it is by default.
const FOLDER: &str = "z-provisioner/keys";

/// A server with a KV engine of version 2 at `secret`, one of version 1 at `old`, and the policy of the documentation.
pub struct Vault {
    dir: PathBuf,
    port: u16,
    running: Running,
    root: String,
    unseal: String,
}

impl Vault {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn new(lab: &Lab) -> Self {
        // Somebody may take the port between our look and the server's.
        (0..5).find_map(|_| Self::try_at(lab, free_port())).expect("OpenBao does not start; what it said is above")
    }

    /// Starts one at this port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn at(lab: &Lab, port: u16) -> Self {
        Self::try_at(lab, port).expect("OpenBao does not start; what it said is above")
    }

    fn try_at(lab: &Lab, port: u16) -> Option<Self> {
        let dir = lab.path("vault");
        if !dir.exists() {
            std::fs::create_dir(&dir).expect("a directory");
            certify(&dir);
        }
        let config = json!({
            "storage": {"inmem": {}}, "raw_storage_endpoint": true, "log_level": "warn",
            "listener": {"tcp": {
                "address": format!("127.0.0.1:{port}"),
                "tls_cert_file": dir.join("server.pem"), "tls_key_file": dir.join("server.key"),
            }},
        });
        let file = dir.join("config.json");
        std::fs::write(&file, config.to_string()).expect("writing its configuration");
        let mut running = Run::program(&program()).arg("server").arg("-config").arg(file).limit(LIMIT).start();
        let client = Client::new(&format!("https://127.0.0.1:{port}"), &dir.join("ca.pem"));
        while client.get("/v1/sys/seal-status").is_err() {
            if running.exit_status().is_some() {
                eprintln!("OpenBao did not start:\n{}", running.finish().stderr);
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let init = json!({"secret_shares": 1, "secret_threshold": 1}).to_string();
        let init = client.send("PUT", "/v1/sys/init", &[], &init).expect("an answer").json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (root, unseal) = (text(&init["root_token"]), text(&init["keys_base64"][0]));
        let vault = Vault { dir, port, running, root, unseal };
        vault.unseal();
        for (mount, version) in [("secret", "2"), ("old", "1")] {
            vault.must("POST", &format!("sys/mounts/{mount}"), &json!({"type": "kv", "options": {"version": version}}));
        }
        vault.set_policy(&documented());
        Some(vault)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// `keys.vault` of a service whose token is in this file, as the documentation has it.
    pub fn config(&self, token_file: &Path) -> Value {
        json!({"address": self.url(), "ca": self.ca(), "token_file": token_file})
    }

    /// A new token with the policy of the documentation.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn token(&self) -> String {
        let made = self.must("POST", "auth/token/create", &json!({"policies": [POLICY], "ttl": "1h"}));
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// Puts a token into a file, as an agent's sink would: in one step.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_token(file: &Path, token: &str) {
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{token}\n")).expect("writing a token");
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("its permissions");
        std::fs::rename(new, file).expect("putting a token in its place");
    }

    /// Asks it as root: status and answer.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let client = Client::new(&self.url(), &self.ca());
        let said = client.send(method, &format!("/v1/{path}"), &[("x-vault-token", &self.root)], &body);
        let said = said.expect("an answer");
        (said.status, serde_json::from_str(said.text()).unwrap_or_default())
    }

    /// The same, where it must be done.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(matches!(status, 200 | 204), "{method} {path}: {status} {answer}");
        answer
    }

    /// Gives tokens with the policy other rights.
    #[track_caller]
    pub fn set_policy(&self, text: &str) {
        self.must("PUT", &format!("sys/policies/acl/{POLICY}"), &json!({ "policy": text }));
    }

    /// Seals it.
    #[track_caller]
    pub fn seal(&self) {
        self.must("PUT", "sys/seal", &Value::Null);
    }

    /// Unseals it.
    ///
    /// # Panics
    /// When it stays sealed.
    #[track_caller]
    pub fn unseal(&self) {
        let sealed = self.must("PUT", "sys/unseal", &json!({ "key": self.unseal }));
        assert_eq!(sealed["sealed"], false, "{sealed}");
        // It is not its own master at once.
        while self.ask("GET", "sys/mounts", &Value::Null).0 != 200 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The names of keys that it keeps.
    #[track_caller]
    pub fn keys(&self) -> Vec<String> {
        let (_, listed) = self.ask("GET", &format!("secret/metadata/{FOLDER}?list=true"), &Value::Null);
        let names = listed["data"]["keys"].as_array().cloned().unwrap_or_default();
        names.iter().filter_map(Value::as_str).filter(|name| name.contains('.')).map(ToOwned::to_owned).collect()
    }

    /// How many entries its storage has below all engines: what no API of an engine shows is among them.
    #[track_caller]
    pub fn stored(&self) -> usize {
        self.entries("sys/raw/logical/")
    }

    fn entries(&self, path: &str) -> usize {
        let (_, listed) = self.ask("GET", &format!("{path}?list=true"), &Value::Null);
        let names = listed["data"]["keys"].as_array().cloned().unwrap_or_default();
        let names = names.iter().filter_map(Value::as_str);
        names.map(|name| if name.ends_with('/') { self.entries(&format!("{path}{name}")) } else { 1 }).sum()
    }

    /// Ends it, with all that it kept.
    pub fn kill(self) {
        self.running.kill();
    }
}

/// The policy that the documentation tells operators to give.
fn documented() -> String {
    let (_, rest) = OPERATING.split_once("\n```hcl\n").expect("a policy in docs/operating.md");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn program() -> PathBuf {
    let program = std::env::var_os("Z_BAO").map(PathBuf::from);
    program.expect("Z_BAO is not set: run `cargo xtask test`, or set it to what `cargo xtask openbao` prints")
}

/// An authority, and the server's certificate of it.
fn certify(dir: &Path) {
    let request = || {
        let run =
            Run::tool("openssl").words("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2");
        run.within(dir)
    };
    request().words("-subj /CN=authority -keyout ca.key -out ca.pem").done().ok();
    let server = request().words("-subj /CN=vault -keyout server.key -out server.pem -CA ca.pem -CAkey ca.key");
    server.words("-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE").done().ok();
}
