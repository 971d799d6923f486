//! `ip` of iproute2, and what it says of addresses.

use std::net::IpAddr;
use std::time::Duration;

use imgstream::error::{Error, Kind, Result};
use serde::Deserialize;

use crate::tool::Tool;

/// How long one call may take: the kernel answers these at once.
const LIMIT: Duration = Duration::from_secs(15);

/// An address that an interface has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Held {
    /// The address.
    pub(super) local: IpAddr,
    /// Bits of its network's prefix.
    pub(super) prefixlen: u8,
    /// `global`, `link`, `host`.
    #[serde(default)]
    pub(super) scope: String,
    /// Nobody is known not to have it, too.
    #[serde(default)]
    pub(super) tentative: bool,
    /// Somebody else has it, too.
    #[serde(default)]
    pub(super) dadfailed: bool,
}

/// Runs `ip` with these words.
pub(super) async fn ip(words: &str) -> Result<()> {
    call(words).await.map(drop)
}

/// The addresses of `interface`.
pub(super) async fn addresses(interface: &str) -> Result<Vec<Held>> {
    #[derive(Deserialize)]
    struct Link {
        // ip prints empty objects for interfaces that it filtered out.
        #[serde(default)]
        addr_info: Vec<Held>,
    }
    let words = format!("-json address show dev {interface}");
    let said = call(&words).await?;
    let links: Vec<Link> = serde_json::from_str(&said)
        .map_err(|error| Error::new(Kind::Source, format!("`ip {words}` said what is not understood: {error}")))?;
    Ok(links.into_iter().flat_map(|link| link.addr_info).collect())
}

async fn call(words: &str) -> Result<String> {
    let call = Tool::new("ip").args(words.split_whitespace()).kind(Kind::Source).limit(LIMIT);
    call.run().await.map_err(|error| match error.hint() {
        Some(_) => error,
        None => error.with_hint("look at the network's configuration, and at the kernel log"),
    })
}
