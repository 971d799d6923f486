//! Behind the block nothing leaves but what is allowed: a link that is up counts the packets.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use provisioner::ipsec::kernel;
use provisioner::ipsec::policy::{allow_clear, block_all};
use provisioner::medium::config::Clear;

use crate::in_a_namespace;

/// A link whose other end only listens; who is on it is known already.
const LINK: &str = "
    ip link set lo up
    ip link add v0 type veth peer name v1
    sysctl -qw net.ipv6.conf.v1.disable_ipv6=1
    ip addr add 192.0.2.2/24 dev v0
    ip addr add 2001:db8::2/64 dev v0 nodad
    ip link set v1 up";

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

fn link_up() {
    ip("link set v0 up");
    for address in ["192.0.2.53", "192.0.2.54", "2001:db8::53"] {
        ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:01 dev v0 nud permanent"));
    }
    // The kernel looks for routers and reports its groups within this time.
    std::thread::sleep(Duration::from_secs(3));
}

/// Packets that have left. (`/sys` would show another namespace's links.)
fn left() -> u64 {
    const SENT_PACKETS: usize = 9;
    let links = std::fs::read_to_string("/proc/net/dev").unwrap();
    let link = links.lines().find_map(|line| line.trim().strip_prefix("v0:")).unwrap();
    link.split_whitespace().nth(SENT_PACKETS).unwrap().parse().unwrap()
}

fn send(to: &str) -> std::io::Result<usize> {
    let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.send_to(b"x", to)
}

#[tokio::test]
async fn nothing_leaves_that_is_not_allowed() {
    if !in_a_namespace("block::nothing_leaves_that_is_not_allowed", LINK) {
        return;
    }
    block_all().await.unwrap();
    link_up();
    for to in ["192.0.2.53:53", "192.0.2.255:67", "[2001:db8::53]:53", "[ff02::1]:9"] {
        assert!(send(to).is_err(), "{to}");
    }
    assert!(TcpStream::connect_timeout(&"192.0.2.53:53".parse().unwrap(), Duration::from_millis(200)).is_err());
    assert_eq!(left(), 0);
    for own in ["127.0.0.1", "::1", "192.0.2.2", "2001:db8::2"] {
        let listener = TcpListener::bind((own.parse::<IpAddr>().unwrap(), 0)).unwrap();
        TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(2)).unwrap();
    }
}

#[tokio::test]
async fn what_is_allowed_leaves() {
    if !in_a_namespace("block::what_is_allowed_leaves", LINK) {
        return;
    }
    block_all().await.unwrap();
    let servers = ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
    // What is allowed twice is allowed.
    for _ in 0..2 {
        allow_clear(&[Clear::Dns, Clear::Dhcp], &servers).await.unwrap();
    }
    link_up();
    assert_eq!(left(), 0);
    for to in ["192.0.2.53:53", "[2001:db8::53]:53"] {
        send(to).unwrap();
    }
    for to in ["192.0.2.54:53", "192.0.2.53:54", "[2001:db8::53]:547"] {
        assert!(send(to).is_err(), "{to}");
    }
    let client = UdpSocket::bind("0.0.0.0:68").unwrap();
    client.send_to(b"x", "192.0.2.54:67").unwrap();
    assert!(client.send_to(b"x", "192.0.2.54:68").is_err());
    UdpSocket::bind("[::]:546").unwrap().send_to(b"x", "[2001:db8::53]:547").unwrap();
    assert_eq!(left(), 4);
}

#[tokio::test]
async fn neighbours_are_looked_for_where_that_is_allowed() {
    if !in_a_namespace("block::neighbours_are_looked_for_where_that_is_allowed", LINK) {
        return;
    }
    block_all().await.unwrap();
    allow_clear(&[Clear::NeighbourDiscovery], &[]).await.unwrap();
    link_up();
    assert!(left() > 0);
    assert!(kernel::dump().unwrap().policies.list.iter().all(|policy| policy.templates.is_empty()));
}
