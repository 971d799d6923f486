//! Servers: `imgstream serve`, nginx and docker-registry, each on a port of its own, gone when dropped.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::{Run, Running};
use crate::lab::Lab;

/// A server's time is the test's time.
const LIMIT: u64 = 600;

/// A port that nobody listens on now.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A running server.
pub struct Server {
    running: Running,
    port: u16,
    scheme: &'static str,
}

impl Server {
    /// `imgstream serve DIR`.
    pub fn imgstream(dir: &Path) -> Self {
        Self::started_imgstream(Run::imgstream().arg("serve").arg(dir), "http")
    }

    /// `imgstream serve DIR` with TLS.
    pub fn imgstream_tls(dir: &Path, certificate: &Path, key: &Path) -> Self {
        let serve = Run::imgstream().arg("serve").arg(dir);
        Self::started_imgstream(serve.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key), "https")
    }

    fn started_imgstream(serve: Run, scheme: &'static str) -> Self {
        let mut running = serve.words("--listen 127.0.0.1:0").limit(LIMIT).start();
        let marker = format!("listening on {scheme}://127.0.0.1:");
        running.until("the address of imgstream serve", |serve| serve.stderr().contains(&marker));
        let said = running.stderr();
        let digits = said.split(&marker).nth(1).unwrap_or_default();
        let port = digits.split('/').next().unwrap_or_default().parse().expect("a port");
        Server { running, port, scheme }
    }

    /// nginx on a directory, as a distribution ships it; `rate` is its `limit_rate` per connection, such as `1m`.
    pub fn nginx(lab: &Lab, dir: &Path, rate: Option<&str>) -> Self {
        Self::on_free_port(|port| Self::nginx_at(lab, dir, rate, port))
    }

    /// The same on a given port.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    pub fn nginx_at(lab: &Lab, dir: &Path, rate: Option<&str>, port: u16) -> Option<Self> {
        let own = lab.fresh_dir("nginx");
        let limit = rate.map(|rate| format!("limit_rate {rate};")).unwrap_or_default();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", own.display()))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid {own}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; \
             {temporary} server {{ listen 127.0.0.1:{port}; root {root}; {limit} }} }}\n",
            own = own.display(),
            root = dir.display()
        );
        let file = own.join("nginx.conf");
        std::fs::write(&file, config).expect("writing nginx.conf");
        let start = Run::tool("nginx").arg("-e").arg("stderr").arg("-p").arg(&own).arg("-c").arg(&file);
        Self::ready(start.limit(LIMIT).start(), port)
    }

    /// Debian's docker-registry with an empty store; `auth` is the `auth:` section of its configuration, indented by two.
    pub fn registry(lab: &Lab, auth: &str) -> Self {
        Self::on_free_port(|port| {
            let store = lab.fresh_dir("registry");
            let config = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: 127.0.0.1:{port}\n{auth}",
                store.join("data").display()
            );
            let file = store.join("config.yml");
            std::fs::write(&file, config).expect("writing the registry's configuration");
            let start = Run::tool("docker-registry").arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
            Self::ready(start.limit(LIMIT).start(), port)
        })
    }

    /// Somebody may take the port between our look and the server's.
    fn on_free_port(start: impl Fn(u16) -> Option<Self>) -> Self {
        (0..5).find_map(|_| start(free_port())).expect("a server that starts; what it said is above")
    }

    fn ready(mut running: Running, port: u16) -> Option<Self> {
        for _ in 0..1000 {
            if running.exit_status().is_some() {
                eprintln!("a server did not start:\n{}", running.finish().stderr);
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Server { running, port, scheme: "http" });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("a server does not listen on port {port}:\n{}", running.stderr());
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.authority())
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.running.stderr()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.running.signal(signal);
    }
}

/// Puts an image into a registry, by `skopeo copy`.
pub fn push(image: &Path, to: &str, options: &str) {
    Run::tool("skopeo")
        .words("--insecure-policy copy --dest-tls-verify=false")
        .words(options)
        .arg(format!("oci:{}", image.display()))
        .arg(format!("docker://{to}"))
        .done()
        .ok();
}

/// Registry credentials in the format of docker's `config.json`.
pub fn registry_auth(lab: &Lab, authority: &str, user: &str, password: &str) -> PathBuf {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let config = serde_json::json!({"auths": {authority: {"auth": auth}}});
    lab.file("registry-auth", config.to_string().as_bytes())
}
