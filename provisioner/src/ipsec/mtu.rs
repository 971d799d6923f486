//! How large packets may be inside of a tunnel. For what this machine sends the kernel knows: it subtracts the tunnel's overhead from
//! the outer path's MTU, and TCP asks it. What the other end sends it cannot know: the size of segments we offer when a connection is
//! made comes from the interface, and full ones would have to be cut, or be lost, before the tunnel. So the route that strongSwan
//! installs for a tunnel offers a smaller size.

use std::net::IpAddr;

use imgstream::error::{Error, Kind, Result};
use serde_json::Value;

use crate::tool::Tool;

/// UDP around ESP, where there is address translation on the way (RFC 3948).
const UDP: u32 = 8;
/// SPI and sequence number (RFC 4303), initialisation vector and tag of AES-GCM (RFC 4106).
const ESP: u32 = 8 + 8 + 16;
/// Length of padding and next header, which end on a multiple of 4.
const TRAILER: u32 = 2;

/// The largest packet inside of a tunnel over a link with this MTU.
pub fn inside(link: u32, outer_is_ipv4: bool) -> u32 {
    let outer = if outer_is_ipv4 { 20 } else { 40 };
    (link.saturating_sub(outer + UDP + ESP) / 4 * 4).saturating_sub(TRAILER)
}

/// The largest TCP segment in such a packet.
pub fn segment(inside: u32, inner_is_ipv4: bool) -> u32 {
    inside.saturating_sub(if inner_is_ipv4 { 20 + 20 } else { 40 + 20 })
}

/// The MTU of the interface that leads to the gateway. The kernel's routes are asked, not a socket: that would be blocked.
///
/// # Errors
/// A temporary error where there is no way to it.
pub async fn of_link_to(gateway: IpAddr) -> Result<u32> {
    let route = ip(&["route", "get", &gateway.to_string()]).await.map_err(|error| {
        Error::source_failed(format!("no route leads to the VCN's gateway {gateway}"))
            .with_source(error)
            .with_hint("look at this machine's network: ip address, ip route")
    })?;
    let device = route.pointer("/0/dev").and_then(Value::as_str).ok_or_else(|| unclear(&route))?;
    let link = ip(&["link", "show", "dev", device]).await?;
    let mtu = link.pointer("/0/mtu").and_then(Value::as_u64).and_then(|mtu| mtu.try_into().ok());
    mtu.ok_or_else(|| unclear(&link))
}

async fn ip(arguments: &[&str]) -> Result<Value> {
    let said = Tool::new("ip").arg("-json").args(arguments).kind(Kind::Source).run().await?;
    serde_json::from_str(&said).map_err(|_| unclear(&said))
}

fn unclear(said: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Source, format!("what `ip -json` says is not understood: {said}"))
        .with_hint("the agent drives the `ip` of iproute2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_segment_fits_into_the_outer_packet() {
        for (link, outer) in [(1500, true), (1500, false), (1492, true), (9000, true), (57_344, false)] {
            let inside = inside(link, outer);
            let wrapped = |inner: u32| {
                let padded = (inner + TRAILER).next_multiple_of(4);
                padded + ESP + UDP + if outer { 20 } else { 40 }
            };
            assert!(wrapped(inside) <= link && wrapped(inside + 1) > link, "{link}: {inside}");
        }
        assert_eq!((inside(1500, true), segment(1438, true), segment(1438, false)), (1438, 1398, 1378));
        assert_eq!(inside(60, false), 0);
    }

    #[tokio::test]
    async fn the_way_to_this_machine_has_an_mtu() {
        assert!(of_link_to("127.0.0.1".parse().unwrap()).await.unwrap() >= 1280);
    }
}
