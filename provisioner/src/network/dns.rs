//! Name servers, in `/etc/resolv.conf`.
//!
//! Names are looked up by the C library (getaddrinfo). That of a static program has what it needs built in since glibc 2.34
//! (nss/nss_module.c: `files` and `dns`): no shared library and no nsswitch.conf, only this file. It sees by itself when
//! the file changes. What IPv6 routers say of name servers (RDNSS) is not read: nobody here does that.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use imgstream::error::{Error, Kind, Result};

/// Most that the C library asks (`MAXNS`).
const MAX: usize = 3;

/// The name servers that are asked: those configured, then those that were given, each once.
pub(super) fn servers(configured: &[IpAddr], given: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in configured.iter().copied().chain(given) {
        if servers.len() < MAX && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// Writes them down, in the place of what was there.
pub(super) fn write(path: &Path, servers: &[IpAddr]) -> Result<()> {
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let text = format!("{lines}options timeout:2 attempts:2\n");
    let new = path.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        Error::new(Kind::Source, format!("writing {}: {error}", path.display()))
            .with_source(error)
            .with_hint("names cannot be looked up without it: the folder must be there, and writable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_most_each_once_and_the_configured_first() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let configured = [ip("10.9.0.53"), ip("fd00::53")];
        let servers = servers(&configured, [ip("10.9.0.53"), ip("10.9.0.1"), ip("10.9.0.2")]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        write(&path, &servers).unwrap();
        let expected = "nameserver 10.9.0.53\nnameserver fd00::53\nnameserver 10.9.0.1\noptions timeout:2 attempts:2\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert!(write(&dir.path().join("none/resolv.conf"), &servers).unwrap_err().hint().is_some());
    }
}
