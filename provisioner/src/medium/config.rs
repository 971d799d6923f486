//! The configuration of a machine that boots the medium: JSON; unknown keys are errors. It names files and holds no secret
//! itself: keys lie beside it, in files only the first process and the agent read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use protocol::RunId;
use protocol::spec::{IpsecDemand, RunSpec};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::net::Net;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When `z-provisioner config` made it (RFC 3339). A clock that stands before, or too long after, is not believed.
    #[serde(with = "time::serde::rfc3339")]
    pub made: OffsetDateTime,
    /// Which server this is for; said on its console.
    pub server: String,
    /// How its console is written to.
    #[serde(default)]
    pub console: Console,
    /// Days after `made` that the clock may stand at, 1 to 3650.
    #[serde(default = "thirty")]
    pub max_age_days: u32,
    /// Whose signatures count at all. A run may trust fewer keys, never others.
    pub trust: Anchors,
    /// How it gets onto the network.
    pub network: Network,
    /// The VCN. Without it packets leave in the clear, which the run, or what is demanded of the way to the service, must allow
    /// (`ipsec: not-required`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipsec: Option<Ipsec>,
    /// What it is to do…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSpec>,
    /// …or who says that. One of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestrator: Option<Orchestrator>,
    /// The key of an encrypted target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub luks_key: Option<PathBuf>,
    /// Certificates (PEM) to trust for `https://` and `oci://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Registry credentials, in the format of docker's config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<PathBuf>,
    /// Who must have been told of the end before the machine starts what was written. An orchestrating service is told anyhow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What becomes of the machine when the run fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Whether a shell is started on the console of a machine whose run has failed. Whoever sits there then is root, with every key
    /// that this configuration holds.
    #[serde(default)]
    pub rescue_shell: bool,
}

fn thirty() -> u32 {
    30
}

/// Trust anchors: files with public keys and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// Keys that sign images (PEM, SPKI).
    pub images: Vec<PathBuf>,
    /// Keys that sign tickets (PEM, SPKI).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tickets: Vec<PathBuf>,
    /// The authority (PEM, X.509) that vouches for the orchestrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestrator_ca: Option<PathBuf>,
}

/// How a console is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// Bars where the console is known to understand them, else lines.
    #[default]
    Auto,
    /// Whole lines, no escape codes.
    Lines,
    /// Bars that move.
    Bars,
}

/// What becomes of a machine whose run has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It waits, and says again and again why.
    #[default]
    Wait,
    /// It says why, and halts.
    Halt,
}

/// Who is told of the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Gets the last event as the body of a POST, and accepts it by any 2xx.
    pub url: String,
    /// Seconds until the machine gives up, and waits instead of starting what was written.
    #[serde(default = "sixty")]
    pub within: u64,
}

fn sixty() -> u64 {
    60
}

/// The service that has a run for this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orchestrator {
    /// Its address (`https://`).
    pub url: String,
    /// The enrolment token. It is good for one attempt.
    pub token: PathBuf,
    /// The run that the token is for; any that the service has for this server otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What is demanded of the way to the service, and the least that a run must demand of the way from its sources.
    #[serde(default)]
    pub ipsec: IpsecDemand,
    /// Seconds that enrolling may take, 1 to 86400.
    #[serde(default = "ten_minutes")]
    pub enrol_within: u64,
    /// Seconds until the service must have accepted the end, 1 to 3600; else the machine waits instead of starting what was written.
    #[serde(default = "five_minutes")]
    pub report_within: u64,
}

fn ten_minutes() -> u64 {
    600
}

fn five_minutes() -> u64 {
    300
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The interfaces, 1 to 16.
    pub interfaces: Vec<Interface>,
    /// Name servers, besides those that DHCP names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Seconds until all interfaces must have carrier and addresses.
    #[serde(default = "sixty")]
    pub wait: u64,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The name it gets: at most 15 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Which device it is.
    pub device: Device,
    /// The MTU in bytes, 576 to 65535; the kernel's choice otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The VLAN that is used on it, 1 to 4094: addresses belong to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// IPv4.
    #[serde(default)]
    pub ipv4: Ipv4,
    /// IPv6.
    #[serde(default)]
    pub ipv6: Ipv6,
    /// Further routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Device {
    /// OSA or HiperSockets: grouped from three subchannels, layer 2, set online.
    Qeth {
        /// Read, write and data device numbers, such as `0.0.0600`.
        channels: [String; 3],
        /// The port of the adapter.
        #[serde(default)]
        port: u8,
    },
    /// The device with this hardware address, such as `52:54:00:12:34:56`.
    Mac(String),
    /// The virtio device behind this device number, such as `0.0.0007`.
    Ccw(String),
}

/// IPv4 of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ipv4 {
    /// None.
    #[default]
    Off,
    /// A lease: address, routes, name servers, MTU.
    Dhcp,
    /// Fixed.
    Static {
        /// Addresses with the length of their prefix, such as `10.9.0.2/24`.
        addresses: Vec<Net<Ipv4Addr>>,
        /// The default route.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv4Addr>,
    },
}

/// IPv6 of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ipv6 {
    /// None, not even a link-local address.
    #[default]
    Off,
    /// What routers advertise.
    Auto,
    /// Fixed.
    Static {
        /// Addresses with the length of their prefix, such as `fd00:9::2/64`.
        addresses: Vec<Net<Ipv6Addr>>,
        /// The default route.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv6Addr>,
    },
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub to: Net<IpAddr>,
    /// Through whom; without, what is there is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// The VCN: IKEv2, ESP in tunnel mode with AES-256-GCM. Nothing else leaves the machine, but what `clear` allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipsec {
    /// The gateway's address or name.
    pub gateway: String,
    /// Who this machine says it is; a certificate's subject otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_id: Option<String>,
    /// Who the gateway must prove to be.
    pub gateway_id: String,
    /// How each proves it.
    pub auth: Auth,
    /// What goes through, 1 to 16. Each has a security association of its own, which is one processor in the kernel: several connections
    /// from several addresses go through several.
    pub tunnels: Vec<Tunnel>,
    /// What may leave in the clear besides IKE and ESP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clear: Vec<Clear>,
    /// Seconds without an answer after which the gateway is asked whether it is there, 2 to 3600.
    #[serde(default = "ten")]
    pub dead_peer: u64,
    /// Seconds until all tunnels must be up.
    #[serde(default = "sixty")]
    pub wait: u64,
}

fn ten() -> u64 {
    10
}

/// How each side proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Auth {
    /// A pre-shared key: the content of this file, without a newline at its end.
    Psk(PathBuf),
    /// Certificates.
    Certificate {
        /// This machine's (PEM).
        certificate: PathBuf,
        /// Its private key (PEM).
        key: PathBuf,
        /// The authorities (PEM) one of which must have signed the gateway's.
        ca: Vec<PathBuf>,
        /// Their revocation lists (PEM or DER). Where there is one, it counts.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        crl: Vec<PathBuf>,
    },
}

/// What goes through one security association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// This machine's address inside: one that an interface has, or one that the gateway gives where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The networks behind the gateway.
    pub remote: Vec<Net<IpAddr>>,
}

/// What may leave in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clear {
    /// DHCP and DHCPv6.
    Dhcp,
    /// Names, asked of the configured servers.
    Dns,
    /// IPv6 neighbour and router discovery.
    NeighbourDiscovery,
}

impl Config {
    /// This machine's addresses inside of tunnels: connections are made from each in turn.
    pub fn local_addresses(&self) -> Vec<IpAddr> {
        let tunnels = self.ipsec.iter().flat_map(|ipsec| &ipsec.tunnels);
        tunnels.filter_map(|tunnel| tunnel.local).collect()
    }

    /// The files that it names, in the order of their keys.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        let mut files: Vec<&mut PathBuf> = self.trust.images.iter_mut().collect();
        files.extend(&mut self.trust.tickets);
        files.extend(&mut self.trust.orchestrator_ca);
        match self.ipsec.as_mut().map(|ipsec| &mut ipsec.auth) {
            Some(Auth::Psk(file)) => files.push(file),
            Some(Auth::Certificate { certificate, key, ca, crl }) => {
                files.extend([certificate, key]);
                files.extend(ca);
                files.extend(crl);
            }
            None => {}
        }
        files.extend(self.orchestrator.iter_mut().map(|service| &mut service.token));
        files.extend(self.run.iter_mut().flat_map(|run| &mut run.image.trust));
        files.extend(&mut self.luks_key);
        files.extend(&mut self.ca);
        files.extend(&mut self.registry_auth);
        files
    }
}
