//! What `serve` is configured with. JSON; every key has a default, and an unknown one is an error, because a wish that is silently
//! ignored is worse than a refusal.

mod check;
mod kubernetes;
mod places;
#[cfg(test)]
mod tests;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Context, Error, Result};
use crate::identity::bounded;

pub use kubernetes::{HOST_DEVICES, Kubernetes};
pub use places::default_data;
pub use vault::Vault;

/// Largest configuration that is read, in bytes.
pub const MAX_CONFIG: usize = 256 << 10;
/// The key of [`Limits::per_fabric`] for every fabric without one of its own.
pub const EVERY_FABRIC: &str = "*";

/// The configuration of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses and ports to listen on. Default: `127.0.0.1:7443`.
    pub listen: Vec<SocketAddr>,
    /// DNS names and addresses by which clients and agents reach the service; they stand in its certificate. `localhost`, `127.0.0.1`,
    /// `::1` and the addresses of `listen` always do. Default: none besides those.
    pub names: Vec<String>,
    /// The data folder. Default: `/var/lib/z-orchestrator` for root, else `z-orchestrator` in `$XDG_STATE_HOME` or `~/.local/state`.
    pub data: Option<PathBuf>,
    /// Where runs are kept: `sqlite`, a file in the data folder, or the `postgres://` URL of a database. Default: `sqlite`.
    pub store: StoreUrl,
    /// A file that holds the `postgres://` URL, for one with a password. Instead of `store`.
    pub store_file: Option<PathBuf>,
    /// A certificate that somebody else has issued. Default: the service has an authority of its own, in the data folder.
    pub tls: Option<Tls>,
    /// Certificates of people and platforms that somebody else issues.
    pub clients: Clients,
    /// How long agents may write without hearing from the service.
    pub lease: Lease,
    /// How many runs may be active at once.
    pub limits: Limits,
    /// When a failed attempt is tried again.
    pub retry: Retry,
    /// How long is waited for agents.
    pub patience: Patience,
    /// Agents that the service starts on its own machine.
    pub process: Process,
    /// Agents that the service starts as Jobs of a Kubernetes cluster.
    pub kubernetes: Kubernetes,
    /// What the keys of disks are encrypted with while the service keeps them, or who keeps them.
    pub keys: Keys,
    /// How long runs are kept that are over.
    pub retention: Retention,
    /// A file (JSON) that says which images may be installed, and whose signatures count. Default: `policy.json` in the data folder, where
    /// there is one; without, each run says so itself.
    pub policy: Option<PathBuf>,
    /// Seconds for which an agent that the service starts goes on trying to tell how it ended, 1 to 3600. Default: 300.
    pub report_within: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7443))],
            names: Vec::new(),
            data: None,
            store: StoreUrl::default(),
            store_file: None,
            tls: None,
            clients: Clients::default(),
            lease: Lease::default(),
            limits: Limits::default(),
            retry: Retry::default(),
            patience: Patience::default(),
            process: Process::default(),
            kubernetes: Kubernetes::default(),
            keys: Keys::default(),
            retention: Retention::default(),
            policy: None,
            report_within: 300,
        }
    }
}

/// A certificate that is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the server's certificate and after it those that issued it (PEM).
    pub certificate: PathBuf,
    /// File with its key (PEM).
    pub key: PathBuf,
}

/// Certificates of people and platforms that somebody else than the service issues, and who of them may do what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// File with the certificates of those who issue them (PEM). Default: the service's own authority alone is believed.
    pub authority: Option<PathBuf>,
    /// DNS names and URIs in such certificates whose holders may look and act. Default: none.
    pub operators: Vec<String>,
    /// Those whose holders may look. Default: none.
    pub viewers: Vec<String>,
}

/// How long an agent may write without hearing from the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// Seconds that a lease lasts, 5 to 3600. Default: 60.
    pub seconds: u64,
    /// Seconds after which agents renew it, 1 to half of `seconds`, so that one lost answer costs nothing. Default: 15.
    pub renew_after: u64,
    /// Seconds that the service waits beyond the lease before it takes an agent for lost, 0 to 3600. Default: 15.
    pub grace: u64,
    /// Seconds that the certificate is good which an agent shows, twice `seconds` to 2592000. When half is left it is renewed with the
    /// lease. Default: 86400.
    pub certificate: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Lease { seconds: 60, renew_after: 15, grace: 15, certificate: 86_400 }
    }
}

/// How many runs may be active at once, and how many may watch them, 1 to 100000 each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// All of them. Default: 64.
    pub runs: u32,
    /// Those that fetch from one source, by its host and port. Default: 32.
    pub per_source: u32,
    /// Those on one storage fabric, by its name; `*` is every fabric that is not named. Default: `{"*": 32}`.
    pub per_fabric: BTreeMap<String, u32>,
    /// Those who watch runs at once, by whichever stream. Default: 256.
    pub watchers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let per_fabric = BTreeMap::from([(EVERY_FABRIC.to_owned(), FABRIC_LIMIT)]);
        Limits { runs: 64, per_source: 32, per_fabric, watchers: 256 }
    }
}

const FABRIC_LIMIT: u32 = 32;

/// When a failed attempt is tried again: after a time that doubles with each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Seconds after the first attempt, 1 to 3600. Default: 10.
    pub first_seconds: u64,
    /// Seconds at most, `first_seconds` to 86400. Default: 600.
    pub most_seconds: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { first_seconds: 10, most_seconds: 600 }
    }
}

/// How long is waited for agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patience {
    /// Seconds in which an agent that the service has started must enrol, 5 to 3600. Default: 300.
    pub enrol: u64,
    /// Seconds in which an agent that was told to stop must have stopped, 5 to 86400; its lease ends no sooner than that. Default: 600.
    pub cancel: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { enrol: 300, cancel: 600 }
    }
}

/// Agents that the service starts on its own machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Path or name of the agent. Default: `z-provisioner` beside the service's own program, else in `$PATH`.
    pub agent: Option<PathBuf>,
    /// Files with the public keys that such agents trust for images (PEM). Default: every file in `trust` in the data folder.
    pub trust: Vec<PathBuf>,
    /// File with the certificates by which they know the service (PEM). Default: the service's own authority; where `tls` is given, those
    /// that the machine trusts.
    pub ca: Option<PathBuf>,
    /// File with registry credentials, in the format of docker's `config.json`. Default: none.
    pub registry_auth: Option<PathBuf>,
    /// More arguments for `z-provisioner run`. Default: none.
    pub args: Vec<String>,
}

/// Where the key is with which keys of disks are encrypted, 32 random bytes in base64; or who keeps them instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// A file with it, which nobody else may read. Default: `kek.key` in the data folder, made at the first start.
    pub file: Option<PathBuf>,
    /// A program that writes it to stdout, and its arguments; run once, at the start, for 30 seconds at most. Instead of `file`. Default:
    /// none.
    pub command: Vec<String>,
    /// A secret store that keeps them. Instead of `file` and `command`. Default: none.
    pub vault: Option<Vault>,
    /// Files with those that were used before, which nobody else may read. What is still encrypted with one of them is encrypted anew
    /// with the present one. Default: none.
    pub previous: Vec<PathBuf>,
}

/// How long runs are kept that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days after a run's end until it is removed, with all that was told of it and what its agents have left, 1 to 36500; `null`: never.
    /// One whose key the service has, and the latest run of each server, is kept. Default: 90.
    pub days: Option<u32>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { days: Some(90) }
    }
}

impl Retention {
    /// The same as a time.
    pub fn time(self) -> Option<Duration> {
        self.days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600))
    }
}

/// `sqlite`, or the URL of a database. A password in it is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct StoreUrl(Zeroizing<String>);

impl StoreUrl {
    /// The text, password included.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Default for StoreUrl {
    fn default() -> Self {
        StoreUrl(Zeroizing::new("sqlite".into()))
    }
}

impl From<String> for StoreUrl {
    fn from(text: String) -> Self {
        StoreUrl(Zeroizing::new(text))
    }
}

impl From<StoreUrl> for String {
    fn from(store: StoreUrl) -> String {
        store.0.to_string()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({})", places::without_password(&self.0))
    }
}

impl Config {
    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// It cannot be read, is too large, no JSON, has an unknown key, or a value out of its bounds.
    pub fn load(path: &Path) -> Result<Self> {
        let at = path.display();
        let file = std::fs::File::open(path)
            .map_err(|error| Error::usage(format!("reading the configuration {at}: {error}")).with_source(error))?;
        let bytes = bounded(file, MAX_CONFIG).doing(|| format!("reading the configuration {at}"))?;
        let bytes =
            bytes.ok_or_else(|| Error::usage(format!("the configuration {at} has more than {MAX_CONFIG} bytes")))?;
        Self::parse(&bytes).map_err(|error| {
            let hint = error.hint().unwrap_or("docs/operating.md lists every key").to_owned();
            Error::usage(format!("the configuration {at}: {error}")).with_hint(hint)
        })
    }

    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// It is no JSON, has an unknown key, or a value out of its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Config = serde_json::from_slice(bytes).map_err(|error| Error::usage(error.to_string()))?;
        config.check()?;
        Ok(config)
    }
}
