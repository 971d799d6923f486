//! The network of a machine, on a real kernel: interfaces that are the ends of cables, and whoever is at the other end.

#![allow(clippy::unwrap_used)]

mod dhcp;
mod namespace;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use imgstream::error::{Error, Kind, Result, Retry};
use provisioner::medium::config::Network;
use provisioner::network::{Up, bring_up_at};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use namespace::{Lab, call, inside, read};

const MAC: &str = "52:54:00:12:34:56";
const OTHER_MAC: &str = "52:54:00:12:34:57";

/// A network with one interface, called `vcn0`.
fn one(wait: u64, ip: &Value) -> Value {
    let mut interface = json!({ "name": "vcn0", "device": { "mac": MAC } });
    interface.as_object_mut().unwrap().extend(ip.as_object().unwrap().clone());
    json!({ "interfaces": [interface], "wait": wait })
}

async fn bring_up(lab: &Lab, network: &Value) -> Result<Up> {
    let network: Network = serde_json::from_value(network.clone()).unwrap();
    let told = Mutex::new(Vec::new());
    let tell = |what| told.lock().unwrap().push(what);
    bring_up_at(&lab.places(), &network, &tell, &CancellationToken::new()).await
}

/// It is refused, in a way that may pass, with a sentence and a hint that say these things.
#[track_caller]
fn assert_stands(ended: Result<Up>, says: &str, hints: &str) {
    let Err(error) = ended else { panic!("it came up") };
    let hint = error.hint().unwrap_or_default().to_owned();
    assert!(error.to_string().contains(says) && hint.contains(hints), "{error}; {hint}");
    assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary));
}

fn is_up(name: &str) -> bool {
    call("ip", &format!("link show dev {name}")).contains(",UP")
}

#[test]
fn fixed_addresses_gateways_and_routes() {
    inside("fixed_addresses_gateways_and_routes", async |lab| {
        lab.cable("eth7", MAC);
        lab.there("ip", "address add 10.9.0.1/24 dev far-eth7");
        lab.there("ip", "address add fd00:9::1/64 dev far-eth7 nodad");
        let network = json!({
            "interfaces": [{
                "name": "vcn0", "device": { "mac": MAC }, "mtu": 1400,
                "ipv4": { "static": { "addresses": ["10.9.0.2/24", "10.8.0.2/16"], "gateway": "10.9.0.1" } },
                "ipv6": { "static": { "addresses": ["fd00:9::2/64"], "gateway": "fd00:9::1" } },
                "routes": [{ "to": "10.11.0.0/16", "via": "10.8.0.1" }, { "to": "fd00:11::/32" }]
            }],
            "dns": ["10.9.0.53"], "wait": 20
        });
        let up = bring_up(&lab, &network).await.unwrap();
        assert_eq!(up.to_string(), "vcn0 10.9.0.2/24 10.8.0.2/16 fd00:9::2/64 mtu 1400");
        assert_eq!(up.name_servers().len(), 1);
        assert_eq!(lab.resolv_conf(), "nameserver 10.9.0.53\noptions timeout:2 attempts:2\n");
        let routes = call("ip", "route") + &call("ip", "-6 route");
        for route in [
            "default via 10.9.0.1 dev vcn0 metric 100",
            "default via fd00:9::1 dev vcn0 metric 100",
            "10.11.0.0/16 via 10.8.0.1 dev vcn0 metric 100",
            "fd00:11::/32 dev vcn0 metric 100",
        ] {
            assert!(routes.contains(route), "{route} is not in {routes}");
        }
        call("busybox", "ping -c 1 -W 2 10.9.0.1");
        call("busybox", "ping -c 1 -W 2 fd00:9::1");
        // A second time, as after a failure elsewhere: what is there is no obstacle.
        drop(up);
        let up = bring_up(&lab, &network).await.unwrap();
        assert_eq!(up.down().await, Vec::<String>::new());
        assert!(!is_up("vcn0"));
    });
}

#[test]
fn without_ipv6_there_is_not_even_a_link_local_address() {
    inside("without_ipv6_there_is_not_even_a_link_local_address", async |lab| {
        lab.cable("eth7", MAC);
        let up = bring_up(&lab, &one(10, &json!({ "ipv4": { "static": { "addresses": ["10.9.0.2/24"] } } }))).await;
        assert_eq!(up.unwrap().to_string(), "vcn0 10.9.0.2/24 mtu 1500");
        assert_eq!(call("ip", "-6 address show dev vcn0"), "");
    });
}

#[test]
fn an_interface_without_carrier() {
    inside("an_interface_without_carrier", async |lab| {
        lab.cable("eth7", MAC);
        lab.there("ip", "link set dev far-eth7 down");
        let ended = bring_up(&lab, &one(1, &json!({ "ipv4": "dhcp" }))).await;
        assert_stands(ended, "vcn0 has no carrier after 1 s", "the cable");
        assert!(!is_up("vcn0"));
    });
}

#[test]
fn an_interface_that_is_not_there() {
    inside("an_interface_that_is_not_there", async |lab| {
        lab.cable("eth7", OTHER_MAC);
        let ended = bring_up(&lab, &one(1, &json!({ "ipv4": "dhcp" }))).await;
        assert_stands(ended, &format!("no interface with the address {MAC} in 1 s"), &format!("eth7 {OTHER_MAC}"));
        let network =
            json!({ "interfaces": [{ "name": "e", "device": { "ccw": "0.0.0007" }, "ipv4": "dhcp" }], "wait": 1 });
        assert_stands(bring_up(&lab, &network).await, "0.0.0007: no such device in 1 s; it was to be e", "`devno`");
    });
}

#[test]
fn names_that_are_exchanged_and_a_name_that_is_taken() {
    inside("names_that_are_exchanged_and_a_name_that_is_taken", async |lab| {
        lab.cable("eth0", MAC);
        lab.cable("eth1", OTHER_MAC);
        lab.cable("eth2", "52:54:00:12:34:58");
        let fixed = |name: &str, mac: &str, net: &str| json!({ "name": name, "device": { "mac": mac }, "ipv4": { "static": { "addresses": [net] } } });
        let two = [fixed("eth1", MAC, "10.1.0.2/24"), fixed("eth0", OTHER_MAC, "10.2.0.2/24")];
        let up = bring_up(&lab, &json!({ "interfaces": two, "wait": 10 })).await.unwrap();
        assert_eq!(up.to_string(), "eth1 10.1.0.2/24 mtu 1500, eth0 10.2.0.2/24 mtu 1500");
        assert_eq!(read(Path::new("/sys/class/net/eth1/address")).trim(), MAC);
        let taken = json!({ "interfaces": [fixed("eth2", MAC, "10.1.0.2/24")], "wait": 10 });
        let error = bring_up(&lab, &taken).await.err().unwrap();
        assert_eq!(error.to_string(), "another interface is called eth2 already");
    });
}

#[test]
fn an_address_that_somebody_else_has() {
    inside("an_address_that_somebody_else_has", async |lab| {
        lab.cable("eth7", MAC);
        lab.there("ip", "address add fd00:9::2/64 dev far-eth7 nodad");
        // The other end must have its own link-local address before it answers.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ended = bring_up(&lab, &one(20, &json!({ "ipv6": { "static": { "addresses": ["fd00:9::2/64"] } } }))).await;
        assert_stands(ended, "vcn0: another machine has fd00:9::2, too", "another address");
    });
}

/// A router advertisement (RFC 4861, 4.2) for fd00:7::/64, each half second.
const ROUTER: &str = "
import socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
link = socket.if_nametoindex('far-eth7')
prefix = struct.pack('!BBBBIII16s', 3, 4, 64, 0xc0, 3600, 1800, 0, socket.inet_pton(socket.AF_INET6, 'fd00:7::'))
while True:
    try:
        s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ('ff02::1', 0, 0, link))
    except OSError:
        pass
    time.sleep(0.5)
";

#[test]
fn what_ipv6_routers_advertise() {
    inside("what_ipv6_routers_advertise", async |lab| {
        lab.cable("eth7", MAC);
        let auto = |wait| one(wait, &json!({ "ipv6": "auto" }));
        let ended = bring_up(&lab, &auto(3)).await;
        assert_stands(ended, "vcn0: no router has advertised an IPv6 network in 3 s", "`static`");
        let _router = lab.start_there(&["python3", "-c", ROUTER]);
        let up = bring_up(&lab, &auto(30)).await.unwrap();
        assert_eq!(up.to_string(), "vcn0 fd00:7::5054:ff:fe12:3456/64 mtu 1500");
        assert!(call("ip", "-6 route").contains("default via fe80::"));
    });
}

/// Where the kernel has no VLANs, that is told.
#[test]
fn a_vlan_has_the_addresses() {
    inside("a_vlan_has_the_addresses", async |lab| {
        lab.cable("eth7", MAC);
        let fixed = json!({ "vlan": 100, "ipv4": { "static": { "addresses": ["10.9.0.2/24"] } } });
        match bring_up(&lab, &one(10, &fixed)).await {
            Ok(up) => assert_eq!(up.to_string(), "vcn0.100 10.9.0.2/24 mtu 1500"),
            ended => assert_stands(ended, "name vcn0.100 type vlan id 100", "8021q"),
        }
    });
}

#[test]
fn somebody_asks_it_to_stop() {
    inside("somebody_asks_it_to_stop", async |lab| {
        lab.cable("eth7", MAC);
        let network: Network = serde_json::from_value(one(60, &json!({ "ipv4": "dhcp" }))).unwrap();
        let (places, cancel, start) = (lab.places(), CancellationToken::new(), Instant::now());
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(is_up("vcn0"));
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(bring_up_at(&places, &network, &|_| {}, &cancel), later);
        assert_eq!(ended.err().as_ref().map(Error::kind), Some(Kind::Cancelled));
        assert!(start.elapsed() < Duration::from_secs(5) && !is_up("vcn0"));
    });
}

#[test]
fn a_configuration_that_makes_no_sense() {
    inside("a_configuration_that_makes_no_sense", async |lab| {
        let error = bring_up(&lab, &json!({ "interfaces": [] })).await.err().unwrap();
        assert_eq!((error.kind(), error.retry()), (Kind::Usage, Retry::Permanent));
        assert!(error.to_string().contains("`network.interfaces`"), "{error}");
    });
}
