//! What the types of the network's configuration alone do not say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::BusId;

use super::config::{Device, Interface, Ipv4, Ipv6, Network, Route};
use super::net::Net;

/// Most interfaces.
const MAX_INTERFACES: usize = 16;
/// Most addresses, and most routes, of one interface.
const MAX_EACH: usize = 64;
/// Most name servers: a C library asks three.
const MAX_DNS: usize = 3;
/// Longest name of an interface (`IFNAMSIZ` has one more, for the zero).
pub(crate) const MAX_NAME: usize = 15;
/// MTUs: what every IPv4 host takes at once, and what a length of 16 bits can say.
pub(crate) const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;
/// The smallest MTU that IPv6 works with (RFC 8200, section 5).
pub(crate) const MIN_MTU_IPV6: u32 = 1280;
/// VLANs.
const VLAN: std::ops::RangeInclusive<u16> = 1..=4094;
/// Seconds that are waited at all.
const WAIT: std::ops::RangeInclusive<u64> = 1..=3600;
/// The highest port of an adapter (qeth_core.h, `QETH_MAX_PORTNO`).
const MAX_PORT: u8 = 15;

/// A rule, and what is told where it does not hold.
fn holds(rule: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if rule { Ok(()) } else { Err(broken()) }
}

impl Network {
    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The first value out of its bounds, or the first two that contradict each other, named by its key.
    pub fn check(&self) -> Result<(), String> {
        let count = self.interfaces.len();
        holds((1..=MAX_INTERFACES).contains(&count), || {
            format!("`network.interfaces` has {count}; give 1 to {MAX_INTERFACES}")
        })?;
        holds(self.dns.len() <= MAX_DNS, || format!("`network.dns` names more than {MAX_DNS} servers"))?;
        for (number, server) in self.dns.iter().enumerate() {
            holds(is_host(*server), || format!("`network.dns[{number}]`: {server} is no server's address"))?;
        }
        holds(WAIT.contains(&self.wait), || "`network.wait` must be 1 to 3600 seconds".into())?;
        let (mut names, mut devices) = (BTreeSet::new(), BTreeSet::new());
        for (number, interface) in self.interfaces.iter().enumerate() {
            let key = format!("network.interfaces[{number}]");
            interface.check(&key)?;
            let (name, outer) = (interface.name.as_str(), interface.outer());
            holds(names.insert(name.to_owned()) && (outer == name || names.insert(outer)), || {
                format!("`{key}.name`: another interface is called {name}, too")
            })?;
            for part in interface.device.parts() {
                let twice = || format!("`{key}.device`: {part} belongs to another interface already");
                holds(devices.insert(part.clone()), twice)?;
            }
        }
        Ok(())
    }
}

impl Interface {
    /// The name of the interface that has the addresses: the VLAN's, where there is one.
    pub fn outer(&self) -> String {
        self.vlan.map_or_else(|| self.name.clone(), |vlan| format!("{}.{vlan}", self.name))
    }

    fn check(&self, key: &str) -> Result<(), String> {
        let name = &self.name;
        holds(is_name(name), || {
            format!(
                "`{key}.name`: {name:?} is no name: give 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`, not `lo`"
            )
        })?;
        holds(self.vlan.is_none_or(|vlan| VLAN.contains(&vlan)), || format!("`{key}.vlan` must be 1 to 4094"))?;
        let outer = self.outer();
        holds(outer.len() <= MAX_NAME, || {
            format!("`{key}.name`: with its VLAN it is {outer}, longer than {MAX_NAME} characters")
        })?;
        let smallest = if self.ipv6 == Ipv6::Off { *MTU.start() } else { MIN_MTU_IPV6 };
        holds(self.mtu.is_none_or(|mtu| (smallest..=*MTU.end()).contains(&mtu)), || {
            format!("`{key}.mtu` must be {smallest} to {}", MTU.end())
        })?;
        self.device.check(key)?;
        self.check_ipv4(key)?;
        self.check_ipv6(key)?;
        holds(self.ipv4 != Ipv4::Off || self.ipv6 != Ipv6::Off, || {
            format!("`{key}` has neither `ipv4` nor `ipv6`: give it one of them")
        })?;
        holds(self.routes.len() <= MAX_EACH, || format!("`{key}.routes` has more than {MAX_EACH}"))?;
        self.routes.iter().enumerate().try_for_each(|(number, route)| {
            let key = format!("{key}.routes[{number}]");
            self.check_route(&key, route)
        })
    }

    fn check_ipv4(&self, key: &str) -> Result<(), String> {
        let Ipv4::Static { addresses, gateway } = &self.ipv4 else { return Ok(()) };
        let addresses: Vec<_> = addresses.iter().map(|net| wide(*net)).collect();
        check_static(&format!("{key}.ipv4.static"), &addresses, gateway.map(IpAddr::V4))
    }

    fn check_ipv6(&self, key: &str) -> Result<(), String> {
        let Ipv6::Static { addresses, gateway } = &self.ipv6 else { return Ok(()) };
        let addresses: Vec<_> = addresses.iter().map(|net| wide(*net)).collect();
        check_static(&format!("{key}.ipv6.static"), &addresses, gateway.map(IpAddr::V6))
    }

    fn check_route(&self, key: &str, route: &Route) -> Result<(), String> {
        let to = route.to;
        holds(to.network() == to.address, || {
            format!("`{key}.to`: {to} has bits behind its prefix: {}/{} is the network", to.network(), to.prefix)
        })?;
        let (family, is_off) = match to.address {
            IpAddr::V4(_) => ("ipv4", self.ipv4 == Ipv4::Off),
            IpAddr::V6(_) => ("ipv6", self.ipv6 == Ipv6::Off),
        };
        holds(!is_off, || format!("`{key}.to`: {to} needs an address of its kind, and `{family}` is off"))?;
        let Some(via) = route.via else { return Ok(()) };
        holds(via.is_ipv4() == to.address.is_ipv4(), || {
            format!("`{key}.via`: {via} and {to} are of different kinds of IP")
        })?;
        holds(is_host(via), || format!("`{key}.via`: {via} is no router's address"))?;
        // What DHCP or routers give is known only then.
        let Some(addresses) = self.fixed(via) else { return Ok(()) };
        holds(is_near(via, &addresses), || format!("`{key}.via`: {via} lies in none of the interface's networks"))
    }

    /// The fixed addresses of the kind of `like`, where that kind has fixed ones.
    fn fixed(&self, like: IpAddr) -> Option<Vec<Net<IpAddr>>> {
        match (&self.ipv4, &self.ipv6, like) {
            (Ipv4::Static { addresses, .. }, _, IpAddr::V4(_)) => Some(addresses.iter().map(|a| wide(*a)).collect()),
            (_, Ipv6::Static { addresses, .. }, IpAddr::V6(_)) => Some(addresses.iter().map(|a| wide(*a)).collect()),
            _ => None,
        }
    }
}

impl Device {
    fn check(&self, key: &str) -> Result<(), String> {
        match self {
            Device::Qeth { channels, port } => {
                for (number, channel) in channels.iter().enumerate() {
                    check_bus_id(&format!("{key}.device.qeth.channels[{number}]"), channel)?;
                }
                let [read, write, data] = channels;
                holds(read != write && write != data && read != data, || {
                    format!("`{key}.device.qeth.channels` names a device twice: read, write and data need one each")
                })?;
                holds(*port <= MAX_PORT, || format!("`{key}.device.qeth.port` must be 0 to {MAX_PORT}"))
            }
            Device::Mac(mac) => holds(is_mac(mac), || {
                format!("`{key}.device.mac`: {mac:?} is no hardware address such as 52:54:00:12:34:56, in lower case")
            }),
            Device::Ccw(bus_id) => check_bus_id(&format!("{key}.device.ccw"), bus_id),
        }
    }

    /// The names that no other interface may have.
    fn parts(&self) -> Vec<String> {
        match self {
            Device::Qeth { channels, .. } => channels.to_vec(),
            Device::Mac(name) | Device::Ccw(name) => vec![name.clone()],
        }
    }
}

fn check_static(key: &str, addresses: &[Net<IpAddr>], gateway: Option<IpAddr>) -> Result<(), String> {
    holds((1..=MAX_EACH).contains(&addresses.len()), || {
        format!("`{key}.addresses` has {}; give 1 to {MAX_EACH}", addresses.len())
    })?;
    for (number, net) in addresses.iter().enumerate() {
        holds(is_host(net.address) && net.prefix > 0 && !net.is_edge(), || {
            format!("`{key}.addresses[{number}]`: {net} is no address that a host can have")
        })?;
        holds(!addresses[..number].iter().any(|other| other.address == net.address), || {
            format!("`{key}.addresses[{number}]`: {} stands there twice", net.address)
        })?;
    }
    let Some(gateway) = gateway else { return Ok(()) };
    holds(is_host(gateway), || format!("`{key}.gateway`: {gateway} is no router's address"))?;
    holds(addresses.iter().all(|net| net.address != gateway), || {
        format!("`{key}.gateway`: {gateway} is this machine's own address")
    })?;
    holds(is_near(gateway, addresses), || {
        format!("`{key}.gateway`: {gateway} lies in none of the networks of `addresses`")
    })
}

fn check_bus_id(key: &str, text: &str) -> Result<(), String> {
    BusId::try_from(text.to_owned()).map(drop).map_err(|error| format!("`{key}`: {error}"))
}

/// Whether one who has `addresses` reaches `router` without another. A link-local one is on the link.
fn is_near(router: IpAddr, addresses: &[Net<IpAddr>]) -> bool {
    let is_link_local = matches!(router, IpAddr::V6(router) if router.is_unicast_link_local());
    is_link_local || addresses.iter().any(|net| net.contains(router))
}

/// Whether a name is one of an interface, and harmless as a file's.
pub(crate) fn is_name(name: &str) -> bool {
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    // The kernel's `all` and `default` are no interfaces, but stand beside them in /proc/sys.
    starts && name.len() <= MAX_NAME && name.bytes().all(is_harmless) && !matches!(name, "lo" | "all" | "default")
}

fn is_mac(text: &str) -> bool {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.split(':').count() == 6 && text.split(':').all(is_byte)
}

/// Whether one machine can have this address, and be reached from another.
pub(crate) fn is_host(address: IpAddr) -> bool {
    let never = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved, with the broadcast address at its end.
    let reserved = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240);
    !never && !reserved
}

fn wide<A: Into<IpAddr> + super::net::Family>(net: Net<A>) -> Net<IpAddr> {
    Net { address: net.address.into(), prefix: net.prefix }
}

impl Net<IpAddr> {
    /// The network's own address: that without the bits behind the prefix.
    pub fn network(&self) -> IpAddr {
        let kept = |width: u32| u32::from(self.prefix).min(width);
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - kept(32)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - kept(128)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }

    /// Whether it is the first or last address of an IPv4 network, which no host has; networks of two or one have neither.
    pub fn is_edge(&self) -> bool {
        let IpAddr::V4(v4) = self.address else { return false };
        let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        self.prefix < 31 && (v4.to_bits() & host == 0 || v4.to_bits() & host == host)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn network() -> Value {
        json!({
            "interfaces": [
                {
                    "name": "vcn0", "device": { "qeth": { "channels": ["0.0.0600", "0.0.0601", "0.0.0602"] } },
                    "mtu": 1500, "vlan": 100,
                    "ipv4": { "static": { "addresses": ["10.9.0.2/24", "10.8.0.2/16"], "gateway": "10.9.0.1" } },
                    "ipv6": { "static": { "addresses": ["fd00:9::2/64"], "gateway": "fe80::1" } },
                    "routes": [{ "to": "10.10.0.0/16", "via": "10.8.0.1" }, { "to": "fd00:10::/32" }]
                },
                { "name": "eth1", "device": { "mac": "52:54:00:12:34:56" }, "ipv4": "dhcp", "ipv6": "auto" },
                { "name": "eth2", "device": { "ccw": "0.0.0007" }, "ipv4": "dhcp",
                  "routes": [{ "to": "0.0.0.0/0", "via": "10.11.0.1" }] }
            ],
            "dns": ["10.9.0.1", "fd00:9::1"]
        })
    }

    fn check(network: Value) -> Result<(), String> {
        serde_json::from_value::<Network>(network).map_err(|error| error.to_string())?.check()
    }

    /// The network with `value` at the JSON pointer `at` is refused, with a text that has `says`.
    #[track_caller]
    fn refused(at: &str, value: Value, says: &str) {
        let mut network = network();
        match network.pointer_mut(at) {
            Some(place) => *place = value,
            None => {
                let (object, key) = at.rsplit_once('/').unwrap();
                network.pointer_mut(object).unwrap()[key] = value;
            }
        }
        let error = check(network).unwrap_err();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_network_in_order_is_accepted() {
        check(network()).unwrap();
        let one = json!({ "interfaces": [{ "name": "e", "device": { "ccw": "0.0.0007" }, "ipv4": "dhcp" }] });
        check(one).unwrap();
    }

    #[test]
    fn interfaces_and_their_names() {
        refused("/interfaces", json!([]), "`network.interfaces` has 0; give 1 to 16");
        refused("/interfaces", json!(vec![network()["interfaces"][1].clone(); 17]), "has 17");
        for name in ["", "a/b", "..", ".a", "a b", "lo", "all", "default", "abcdefghijklmnop", "-f", "ä"] {
            refused("/interfaces/1/name", json!(name), "`network.interfaces[1].name`:");
        }
        refused("/interfaces/1/name", json!("vcn0"), "another interface is called vcn0, too");
        refused("/interfaces/1/name", json!("vcn0.100"), "another interface is called vcn0.100, too");
        refused("/interfaces/0/name", json!("abcdefghijkl"), "with its VLAN it is abcdefghijkl.100");
    }

    #[test]
    fn numbers_out_of_bounds() {
        for vlan in [0, 4095] {
            refused("/interfaces/0/vlan", json!(vlan), "`network.interfaces[0].vlan` must be 1 to 4094");
        }
        for mtu in [1279, 65_536] {
            refused("/interfaces/0/mtu", json!(mtu), "`network.interfaces[0].mtu` must be 1280 to 65535");
        }
        refused("/interfaces/2/mtu", json!(575), "`network.interfaces[2].mtu` must be 576 to 65535");
        refused("/wait", json!(0), "`network.wait`");
        refused("/wait", json!(3601), "`network.wait`");
        refused("/dns", json!(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]), "more than 3");
        refused("/dns/0", json!("0.0.0.0"), "`network.dns[0]`");
    }

    #[test]
    fn devices() {
        let channels = "/interfaces/0/device/qeth/channels";
        refused(&format!("{channels}/1"), json!("0601"), "`network.interfaces[0].device.qeth.channels[1]`:");
        refused(&format!("{channels}/2"), json!("0.0.0600"), "names a device twice");
        refused("/interfaces/0/device/qeth/port", json!(16), "`network.interfaces[0].device.qeth.port`");
        for mac in ["52:54:00:12:34", "52:54:00:12:34:5G", "52:54:00:12:34:AB", "525400123456", "5:254:00:12:34:56"] {
            refused("/interfaces/1/device/mac", json!(mac), "`network.interfaces[1].device.mac`:");
        }
        refused("/interfaces/2/device/ccw", json!("0.0.07"), "`network.interfaces[2].device.ccw`:");
        refused("/interfaces/2/device/ccw", json!("0.0.0601"), "0.0.0601 belongs to another interface already");
    }

    #[test]
    fn addresses_and_gateways() {
        let v4 = "/interfaces/0/ipv4/static";
        refused(&format!("{v4}/addresses"), json!([]), "ipv4.static.addresses` has 0; give 1 to 64");
        for address in
            ["0.0.0.0/0", "127.0.0.1/8", "224.0.0.1/24", "255.255.255.255/32", "10.9.0.0/24", "10.9.0.255/24"]
        {
            refused(&format!("{v4}/addresses/0"), json!(address), "is no address that a host can have");
        }
        refused(&format!("{v4}/addresses/1"), json!("10.9.0.2/16"), "10.9.0.2 stands there twice");
        refused(
            &format!("{v4}/gateway"),
            json!("10.7.0.1"),
            "`network.interfaces[0].ipv4.static.gateway`: 10.7.0.1 lies",
        );
        refused(&format!("{v4}/gateway"), json!("10.9.0.2"), "this machine's own address");
        refused(
            "/interfaces/0/ipv6/static/gateway",
            json!("fd00:8::1"),
            "ipv6.static.gateway`: fd00:8::1 lies in none",
        );
        refused("/interfaces/2/ipv4", json!("off"), "has neither `ipv4` nor `ipv6`");
    }

    #[test]
    fn routes() {
        let route = "/interfaces/0/routes/0";
        refused(
            &format!("{route}/to"),
            json!("10.10.0.1/16"),
            "routes[0].to`: 10.10.0.1/16 has bits behind its prefix: 10.10.0.0",
        );
        refused(&format!("{route}/via"), json!("fd00:9::1"), "are of different kinds of IP");
        refused(&format!("{route}/via"), json!("10.7.0.1"), "routes[0].via`: 10.7.0.1 lies in none");
        refused("/interfaces/2/routes/0/to", json!("fd00::/8"), "and `ipv6` is off");
        refused("/interfaces/2/routes/0/via", json!("0.0.0.0"), "is no router's address");
    }
}
