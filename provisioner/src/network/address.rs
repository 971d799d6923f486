//! Addresses and routes of an interface, and the waits until they can be used.

use std::net::IpAddr;
use std::time::Duration;

use imgstream::error::{Error, Result};

use super::ip::{self, Held, ip};
use super::wait::Patience;
use crate::medium::config::{Ipv6, Route};
use crate::medium::net::Net;

/// How often the kernel is asked for addresses.
const ASK: Duration = Duration::from_millis(200);

/// How a route is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Of several to the same network the one with the smallest is taken: interfaces count in their order.
    pub(super) metric: usize,
    /// The router is on the link, though no address says so.
    pub(super) onlink: bool,
}

/// Gives an interface an address, for ever unless `lasts` says for how long.
pub(super) async fn add(name: &str, net: Net<IpAddr>, lasts: Option<Duration>) -> Result<()> {
    let broadcast = if net.address.is_ipv4() && net.prefix < 31 { " broadcast +" } else { "" };
    let lasts = lasts.map_or("forever".to_owned(), |lasts| lasts.as_secs().to_string());
    ip(&format!("address replace {net}{broadcast} dev {name} valid_lft {lasts} preferred_lft {lasts}")).await
}

/// Takes an address away.
pub(super) async fn remove(name: &str, net: Net<IpAddr>) -> Result<()> {
    ip(&format!("address delete {net} dev {name}")).await
}

/// Adds a route.
pub(super) async fn add_route(name: &str, route: &Route, way: Way) -> Result<()> {
    ip(&format!("route replace {}", route_words(name, route, way))).await
}

/// Takes a route away.
pub(super) async fn remove_route(name: &str, route: &Route, way: Way) -> Result<()> {
    ip(&format!("route delete {}", route_words(name, route, way))).await
}

fn route_words(name: &str, route: &Route, way: Way) -> String {
    let via = route.via.map_or(String::new(), |via| format!(" via {via}"));
    let onlink = if way.onlink && route.via.is_some() { " onlink" } else { "" };
    format!("{}{via} dev {name} metric {}{onlink}", route.to, way.metric)
}

/// The default route through `gateway`.
pub(super) fn default_route(gateway: IpAddr) -> Route {
    let nowhere = match gateway {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Route { to: Net { address: nowhere, prefix: 0 }, via: Some(gateway) }
}

/// Waits until the kernel has seen that nobody else has this interface's IPv6 addresses, and, where routers are to give it
/// one, until they have.
pub(super) async fn settle(name: &str, ipv6: &Ipv6, patience: &Patience<'_>) -> Result<()> {
    let (what, is_settled): (_, fn(&[Held]) -> bool) = match ipv6 {
        Ipv6::Off => return Ok(()),
        Ipv6::Static { .. } => (format!("the check for duplicate addresses on {name}"), has_no_tentative),
        Ipv6::Auto => (format!("an IPv6 router on {name}"), has_global),
    };
    let asking = async {
        loop {
            let held: Vec<_> = ip::addresses(name).await?.into_iter().filter(|held| held.local.is_ipv6()).collect();
            if let Some(twice) = held.iter().find(|held| held.dadfailed) {
                return Err(Error::source_failed(format!("{name}: another machine has {}, too", twice.local))
                    .with_hint(
                        "give one of the two another address; see who answers with `ip -6 neighbour` elsewhere",
                    ));
            }
            if is_settled(&held) {
                return Ok(());
            }
            tokio::time::sleep(ASK).await;
        }
    };
    let seconds = patience.seconds();
    patience.during(&what, asking).await.unwrap_or_else(|| {
        Err(match ipv6 {
            Ipv6::Auto => {
                Error::source_failed(format!("{name}: no router has advertised an IPv6 network in {seconds} s"))
                    .with_hint("look at the router, and at the VLAN; or configure `ipv6` as `static`")
            }
            _ => Error::source_failed(format!("{name}: IPv6 addresses are still tentative after {seconds} s"))
                .with_hint("look at the kernel log"),
        })
    })
}

fn has_no_tentative(held: &[Held]) -> bool {
    held.iter().all(|held| !held.tentative)
}

fn has_global(held: &[Held]) -> bool {
    held.iter().any(|held| held.scope == "global" && !held.tentative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_in_the_words_of_ip() {
        let words = |to: &str, via: Option<&str>, onlink| {
            let route = Route { to: to.parse().unwrap(), via: via.map(|via| via.parse().unwrap()) };
            route_words("eth0", &route, Way { metric: 100, onlink })
        };
        assert_eq!(words("10.0.0.0/8", Some("10.9.0.1"), false), "10.0.0.0/8 via 10.9.0.1 dev eth0 metric 100");
        assert_eq!(words("::/0", Some("fe80::1"), true), "::/0 via fe80::1 dev eth0 metric 100 onlink");
        assert_eq!(words("10.0.0.0/8", None, true), "10.0.0.0/8 dev eth0 metric 100");
        assert_eq!(default_route("10.9.0.1".parse().unwrap()).to.to_string(), "0.0.0.0/0");
    }
}
