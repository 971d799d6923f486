//! The block that stands around everything: what no policy allows is dropped, both ways, from before a link is up until the machine
//! starts anew. It is never lifted.
//!
//! What needs no policy here: ESP itself, which the kernel does not ask again; the IKE daemon's sockets, each of which has a policy of its
//! own (strongSwan sets `IP_XFRM_POLICY` on them); DHCP's packet sockets, which are below all of it; IPv4 on the loopback device.

use std::net::IpAddr;

use imgstream::error::{Error, Kind, Result};

use super::kernel;
use super::kernel::policy::Action;
use crate::medium::config::Clear;
use crate::tool::Tool;

/// Protocols by their numbers: `ip` looks names up in a file that the boot medium does not have.
const ICMP: &str = "1";
const TCP: &str = "6";
const UDP: &str = "17";
const ICMP_V6: &str = "58";

/// A tunnel's policies come before these: what may leave in the clear does so only where no tunnel is for it.
const PRIORITY: &str = "2000000000";

/// ICMP's types and codes that are let in always: that a packet was too big for the way of ESP. Without them packets that are too
/// big would vanish. Nothing is let out for them.
const TOO_BIG: [(&str, &[&str]); 2] =
    [("0.0.0.0/0", &["proto", ICMP, "type", "3", "code", "4"]), ("::/0", &["proto", ICMP_V6, "type", "2"])];

/// Router solicitation and advertisement, neighbour solicitation and advertisement, redirect (RFC 4861).
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
/// What a switch asks, and a report it needs before it passes on solicitations for our address (RFC 3810).
const LISTENER_QUERY: u8 = 130;
const LISTENER_REPORT: u8 = 143;

/// Blocks everything but the loopback device. The first thing to do, before any link is up.
///
/// # Errors
/// [`Kind::Source`] when it is not certain that everything is blocked: then no link may be brought up.
pub async fn block_all() -> Result<()> {
    ip(["setdefault", "in", "block", "fwd", "block", "out", "block"]).await?;
    for direction in ["in", "out"] {
        let own = ["update", "src", "::/0", "dst", "::/0", "dev", "lo", "dir", direction, "priority", PRIORITY];
        ip(own).await?;
    }
    for (any, what) in TOO_BIG {
        allow("in", any, any, what).await?;
    }
    let unmatched = kernel::dump()?.policies.unmatched;
    if unmatched.inward == Action::Block && unmatched.outward == Action::Block {
        return Ok(());
    }
    Err(Error::new(Kind::Source, "the kernel does not block what no IPsec policy allows, although it was told to")
        .with_hint(
            "this kernel is older than Linux 5.15, or something else sets policies: `ip xfrm policy getdefault`",
        ))
}

/// Allows what may leave in the clear. `dns` are the name servers.
///
/// # Errors
/// [`Kind::Source`] with what `ip` says.
pub async fn allow_clear(clear: &[Clear], dns: &[IpAddr]) -> Result<()> {
    for what in clear {
        match what {
            Clear::Dhcp => dhcp().await?,
            Clear::Dns => {
                for server in dns {
                    name_server(*server).await?;
                }
            }
            Clear::NeighbourDiscovery => discovery().await?,
        }
    }
    Ok(())
}

async fn dhcp() -> Result<()> {
    for (any, client, server) in [("0.0.0.0/0", "68", "67"), ("::/0", "546", "547")] {
        allow("out", any, any, &["proto", UDP, "sport", client, "dport", server]).await?;
        allow("in", any, any, &["proto", UDP, "sport", server, "dport", client]).await?;
    }
    Ok(())
}

async fn name_server(server: IpAddr) -> Result<()> {
    let (any, net) = match server {
        IpAddr::V4(server) => ("0.0.0.0/0", format!("{server}/32")),
        IpAddr::V6(server) => ("::/0", format!("{server}/128")),
    };
    for protocol in [UDP, TCP] {
        allow("out", any, &net, &["proto", protocol, "dport", "53"]).await?;
        allow("in", &net, any, &["proto", protocol, "sport", "53"]).await?;
    }
    Ok(())
}

async fn discovery() -> Result<()> {
    let both = DISCOVERY.flat_map(|kind| [("in", kind), ("out", kind)]);
    for (direction, kind) in both.chain([("in", LISTENER_QUERY), ("out", LISTENER_REPORT)]) {
        allow(direction, "::/0", "::/0", &["proto", ICMP_V6, "type", &kind.to_string()]).await?;
    }
    Ok(())
}

async fn allow(direction: &str, source: &str, destination: &str, what: &[&str]) -> Result<()> {
    let selector = ["update", "src", source, "dst", destination].into_iter().chain(what.iter().copied());
    ip(selector.chain(["dir", direction, "priority", PRIORITY])).await
}

async fn ip<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    Tool::new("ip").args(["xfrm", "policy"]).args(arguments).kind(Kind::Source).run().await.map(drop)
}
