//! A service of its own, on a core of its own, and what it costs.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::wire::Net;
use crate::children::Running;
use crate::failure::{Context, Failure, Result};
use crate::units::KIB;
use crate::{server, tools};

/// Ticks per second of the times in /proc/PID/stat; part of Linux's interface on every architecture we know.
const TICKS: f64 = 100.0;
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service. It ends with this.
pub struct House {
    running: Running,
    folder: TempDir,
    /// Where it is.
    pub net: Net,
    /// The operator's token.
    pub token: String,
}

/// What it has cost so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU seconds, in user space and in the kernel.
    pub user: f64,
    /// The same in the kernel.
    pub system: f64,
    /// Bytes that are resident now.
    pub resident: u64,
    /// Bytes that were resident at most.
    pub peak: u64,
}

impl House {
    /// Starts one that takes so many runs and watchers, with its data in this folder; on this core, where one is named.
    pub fn start(within: &Path, runs: usize, watchers: usize, core: Option<usize>) -> Result<Self> {
        let folder = TempDir::with_prefix_in("service-", within).context("could not make a folder for the service")?;
        let data = folder.path().join("data");
        let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()?));
        let config = serde_json::json!({
            "listen": [address],
            "data": data,
            "limits": {"runs": runs, "per_source": runs, "per_fabric": {"*": runs}, "watchers": watchers},
        });
        let (file, log) = (folder.path().join("config.json"), folder.path().join("log"));
        fs::write(&file, config.to_string()).context("could not write the service's configuration")?;
        let program = tools::orchestrator()?;
        let mut serve = match core {
            Some(core) => {
                let mut pinned = Command::new(tools::find("taskset").context("taskset is not installed")?);
                pinned.arg("-c").arg(core.to_string()).arg(program);
                pinned
            }
            None => Command::new(program),
        };
        serve.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        serve.stderr(File::create(&log).context("could not create the service's log")?);
        let mut running = Running::start(&mut serve)?;
        let marker = format!("listening on https://{address}");
        let began = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains(&marker) {
            if running.has_ended() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(Failure::new(format!("the service did not start:\n{said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let token = fs::read_to_string(data.join("operator.token")).context("could not read the operator's token")?;
        let net = Net { address, tls: trusting(&data.join("ca.pem"))? };
        Ok(Self { running, folder, net, token: token.trim().to_owned() })
    }

    /// What it has cost so far.
    pub fn cost(&self) -> Result<Cost> {
        let proc = |file: &str| {
            let path = format!("/proc/{}/{file}", self.running.pid());
            fs::read_to_string(&path).context(format!("could not read {path}"))
        };
        let (stat, status) = (proc("stat")?, proc("status")?);
        // The name in brackets may hold anything, so count from the last bracket: state, ppid, …; utime is the 12th, stime the 13th.
        let after = stat.rsplit_once(')').map(|(_, after)| after).unwrap_or_default();
        let ticks = |field: usize| -> Option<f64> { after.split_whitespace().nth(field)?.parse().ok() };
        let kib = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        let known = || {
            let (user, system) = (ticks(11)? / TICKS, ticks(12)? / TICKS);
            Some(Cost { user, system, resident: kib("VmRSS:")? * KIB, peak: kib("VmHWM:")? * KIB })
        };
        known().context("what the kernel says of the service's cost")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn trusting(authority: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let what = || format!("the service's authority {}", authority.display());
    let certificate = CertificateDer::from_pem_file(authority).context(what())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).context(what())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.context("setting TLS up")?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
