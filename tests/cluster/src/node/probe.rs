//! Readiness: `httpGet` and `tcpSocket`. Probes of liveness and of start-up are not played.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(1);

/// How it is found out whether a container is ready.
#[derive(Debug, Clone)]
pub enum Probe {
    /// It is as soon as it runs.
    None,
    /// A connection is taken.
    Tcp(String),
    /// This URL is answered well.
    Http(String),
}

impl Probe {
    /// A container's.
    pub fn of(container: &Container) -> Self {
        let Some(probe) = &container.readiness_probe else { return Probe::None };
        let number = |port: &IntOrString| match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let mut named = container.ports.iter().flatten().filter(|port| port.name.as_ref() == Some(name));
                named.next().map_or(0, |port| port.container_port)
            }
        };
        if let Some(get) = &probe.http_get {
            let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
            let path = get.path.clone().unwrap_or("/".into());
            return Probe::Http(format!("{scheme}://127.0.0.1:{}{path}", number(&get.port)));
        }
        probe.tcp_socket.as_ref().map_or(Probe::None, |tcp| Probe::Tcp(format!("127.0.0.1:{}", number(&tcp.port))))
    }

    /// Whether it passes now.
    pub async fn passes(&self) -> bool {
        match self {
            Probe::None => true,
            Probe::Tcp(address) => {
                let connected = tokio::time::timeout(LIMIT, tokio::net::TcpStream::connect(address)).await;
                connected.is_ok_and(|connected| connected.is_ok())
            }
            Probe::Http(url) => {
                // Kubelets do not look at certificates either.
                let mut curl = tokio::process::Command::new("curl");
                curl.args(["--silent", "--fail", "--insecure", "--output", "/dev/null", "--max-time", "1", url]);
                curl.kill_on_drop(true).status().await.is_ok_and(|status| status.success())
            }
        }
    }
}
