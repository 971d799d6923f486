//! Where a HashiCorp Vault or an OpenBao is that keeps the keys of disks.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::check::{holds, is_path, within};
use crate::error::Result;

/// Longest path, in bytes.
const MAX_PATH: usize = 256;

/// A secret store that keeps the keys of disks: the engine `kv`, version 2, of a HashiCorp Vault or an OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Its URL, without a path: `https://NAME:PORT`. `http://` only on this machine.
    pub address: String,
    /// Where the secrets engine is mounted. Default: `secret`.
    #[serde(default = "mount")]
    pub mount: String,
    /// The folder in it that is this service's alone. Default: `z-provisioner/keys`.
    #[serde(default = "path")]
    pub path: String,
    /// A file with the token, which nobody else may read. It is read anew for each request: whoever renews the token replaces it.
    pub token_file: PathBuf,
    /// File with the certificates of the authorities that are believed (PEM). Default: those that the machine trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The namespace. Default: none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Seconds that a request may take, 1 to 8: an agent that asks for its key waits for 10. Default: 5.
    #[serde(default = "timeout")]
    pub timeout: u64,
}

fn mount() -> String {
    "secret".into()
}

fn path() -> String {
    "z-provisioner/keys".into()
}

fn timeout() -> u64 {
    5
}

impl Vault {
    /// Checks what the types alone do not say.
    pub(super) fn check(&self) -> Result<()> {
        let url = Url::parse(&self.address).ok().filter(is_server);
        // It is not shown: it may hold a password.
        holds(
            url.is_some(),
            || "`keys.vault.address` is no URL of a server that may be asked for keys".into(),
            "give https://NAME:PORT, without a path; http:// for one on this very machine (127.0.0.1, ::1, localhost)",
        )?;
        let names = [("mount", Some(&self.mount)), ("path", Some(&self.path)), ("namespace", self.namespace.as_ref())];
        for (key, name) in names {
            holds(
                name.is_none_or(|name| is_name(name)),
                || format!("`keys.vault.{key}` is {:?}", name.map_or("", String::as_str)),
                "give names of letters, digits, '.', '_' and '-', with '/' between them, and none before or after",
            )?;
        }
        is_path("keys.vault.token_file", Some(&self.token_file))?;
        is_path("keys.vault.ca", self.ca.as_deref())?;
        holds(
            self.ca.is_none() || self.address.starts_with("https://"),
            || "`keys.vault.ca` is given for an address without TLS".into(),
            "leave it out, or give an https:// address",
        )?;
        within("keys.vault.timeout", self.timeout, 1..=8)
    }
}

/// Whether a token may be shown there.
fn is_server(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_here);
    let is_plain = url.username().is_empty() && url.password().is_none();
    is_safe && is_plain && url.has_host() && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
}

fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && part.bytes().all(fits) && part != "." && part != ".."
    };
    text.len() <= MAX_PATH && text.split('/').all(is_part)
}
