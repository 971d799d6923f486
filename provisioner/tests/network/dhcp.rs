//! DHCP exchanges with busybox's server.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::namespace::{call, inside, read};
use crate::{assert_stands, bring_up, one};

fn dhcp(wait: u64) -> serde_json::Value {
    one(wait, &json!({ "ipv4": "dhcp" }))
}

/// Seconds for which the interface's address is good yet; `None` where it has none.
fn lasts() -> Option<u64> {
    let said: serde_json::Value = serde_json::from_str(&call("ip", "-json -4 address show dev vcn0")).unwrap();
    said.pointer("/0/addr_info/0/valid_life_time")?.as_u64()
}

#[test]
fn a_lease_gives_address_routes_mtu_and_name_servers() {
    inside("dhcp::a_lease_gives_address_routes_mtu_and_name_servers", async |lab| {
        lab.cable("eth7", crate::MAC);
        let options = "option router 10.9.0.7\noption dns 10.9.0.53 10.9.0.54\noption mtu 1400\noption lease 3600\n\
                       option staticroutes 10.11.0.0/16 10.9.0.2, 0.0.0.0/0 10.9.0.1\n";
        let _server = lab.dhcp_server("eth7", options);
        let mut network = dhcp(20);
        network["dns"] = json!(["10.9.0.1"]);
        let up = bring_up(&lab, &network).await.unwrap();
        assert_eq!(up.to_string(), "vcn0 10.9.0.100/24 mtu 1400");
        let servers = "nameserver 10.9.0.1\nnameserver 10.9.0.53\nnameserver 10.9.0.54\n";
        assert_eq!(lab.resolv_conf(), format!("{servers}options timeout:2 attempts:2\n"));
        let routes = call("ip", "route");
        for route in ["default via 10.9.0.1 dev vcn0 metric 100", "10.11.0.0/16 via 10.9.0.2 dev vcn0 metric 100"] {
            assert!(routes.contains(route), "{route} is not in {routes}");
        }
        assert!(!routes.contains("10.9.0.7"), "the router counts beside classless routes: {routes}");
        assert!((3500..=3600).contains(&lasts().unwrap()));
        call("busybox", "ping -c 1 -W 2 10.9.0.1");
        assert_eq!(up.down().await, Vec::<String>::new());
        let start = Instant::now();
        while clients().iter().any(|client| client.contains(lab.path("lease").to_str().unwrap())) {
            assert!(start.elapsed() < Duration::from_secs(5), "udhcpc still runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// The command lines of all DHCP clients, those of other tests too.
fn clients() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|process| read(&process.path().join("cmdline")));
    lines.filter(|line| line.contains("udhcpc")).collect()
}

/// udhcpc takes no lease for less than 16 s, and asks again after half of it.
#[test]
#[ignore = "soak"]
fn a_lease_is_renewed_and_ends_with_its_server() {
    inside("dhcp::a_lease_is_renewed_and_ends_with_its_server", async |lab| {
        lab.cable("eth7", crate::MAC);
        let server = lab.dhcp_server("eth7", "option lease 16\n");
        let mut network = dhcp(20);
        network["interfaces"][0]["routes"] = json!([{ "to": "10.12.0.0/16", "via": "10.9.0.3" }]);
        let up = bring_up(&lab, &network).await.unwrap();
        assert_eq!(up.to_string(), "vcn0 10.9.0.100/24 mtu 1500");
        tokio::time::sleep(Duration::from_secs(18)).await;
        assert!(lasts().is_some_and(|seconds| seconds > 0), "the lease was not renewed");
        drop(server);
        tokio::time::sleep(Duration::from_secs(18)).await;
        assert_eq!(lasts(), None, "an address is used whose lease is over");
        // Another server, and the lease comes back.
        let _server = lab.dhcp_server("eth7", "option lease 3600\noption router 10.9.0.1\n");
        for _ in 0..40 {
            if lasts().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(lasts().is_some_and(|seconds| seconds > 3000));
        // What is set for a lease is set one thing after the other.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let routes = call("ip", "route");
        assert!(routes.contains("default via 10.9.0.1 dev vcn0 metric 100"), "{routes}");
        assert!(routes.contains("10.12.0.0/16 via 10.9.0.3 dev vcn0 metric 100"), "{routes}");
    });
}

#[test]
fn nobody_answers() {
    inside("dhcp::nobody_answers", async |lab| {
        lab.cable("eth7", crate::MAC);
        assert_stands(bring_up(&lab, &dhcp(3)).await, "vcn0: no DHCP lease after 3 s (udhcpc says: ", "`static`");
    });
}

#[test]
fn a_server_that_makes_no_sense() {
    inside("dhcp::a_server_that_makes_no_sense", async |lab| {
        lab.cable("eth7", crate::MAC);
        let server = lab.dhcp_server("eth7", "option mtu 100\noption lease 3600\n");
        let ended = bring_up(&lab, &dhcp(20)).await;
        assert_stands(ended, "offers what makes no sense: its MTU is \"100\"", "the DHCP server");
        drop(server);
        let _server = lab.dhcp_server("eth7", "option router 127.0.0.1\noption lease 3600\n");
        let ended = bring_up(&lab, &dhcp(20)).await;
        assert_stands(ended, "offers what makes no sense: its router is \"127.0.0.1\"", "the DHCP server");
        assert_eq!(lasts(), None);
    });
}

#[test]
fn a_router_outside_of_the_leased_network() {
    inside("dhcp::a_router_outside_of_the_leased_network", async |lab| {
        lab.cable("eth7", crate::MAC);
        lab.there("ip", "address add 10.77.0.1/32 dev far-eth7");
        let _server = lab.dhcp_server("eth7", "option router 10.77.0.1\noption lease 3600\n");
        let _up = bring_up(&lab, &dhcp(20)).await.unwrap();
        assert!(call("ip", "route").contains("default via 10.77.0.1 dev vcn0 metric 100 onlink"));
        call("busybox", "ping -c 1 -W 2 10.77.0.1");
    });
}
