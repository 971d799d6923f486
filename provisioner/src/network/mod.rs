//! The network of a machine that booted the medium: from its configuration to addresses that work, and back.
//!
//! [`bring_up`] finds each interface's device (`devices.rs`; `qeth.rs` sets OSA and HiperSockets online), gives it its
//! configured name, sets it up (`link.rs`), gives it addresses and routes (`address.rs`; `dhcp.rs` and `lease.rs` ask a
//! server), and writes down the name servers (`dns.rs`). Interfaces are worked on side by side. Everything is waited for
//! until `network.wait` is over; then an error says for which interface, and for what. What had been set until then is
//! taken back, as [`Up::down`] does.
//!
//! The well-kept tools are `ip` of iproute2 and busybox's `udhcpc`.

mod address;
mod devices;
mod dhcp;
mod dns;
mod ip;
mod lease;
mod link;
pub mod qeth;
mod wait;

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use imgstream::error::{Error, Result};
use tokio_util::sync::CancellationToken;

use self::address::{Way, default_route};
use self::dhcp::{Kept, Lessee};
use self::ip::ip;
use self::qeth::Card;
use self::wait::{Patience, all};
use crate::medium::config::{Interface, Ipv4, Ipv6, Network};
use crate::medium::net::Net;
use crate::sysfs::Roots;

pub use lease::lease_script;

/// udhcpc's script on the medium: a link to this program.
pub const LEASE_SCRIPT: &str = "/usr/lib/z-provisioner/lease";
/// The metric of the first interface's routes; each further one's is one more.
const METRIC: usize = 100;

/// Where a machine has what is read and written here.
#[derive(Clone)]
pub struct Places {
    /// sysfs and procfs.
    pub roots: Roots,
    /// The folder in which leases are noted.
    pub leases: PathBuf,
    /// udhcpc's script: this program, by the name `lease`.
    pub script: PathBuf,
    /// Where the C library reads name servers.
    pub resolv_conf: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            roots: Roots::default(),
            leases: lease::LEASES.into(),
            script: LEASE_SCRIPT.into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// An interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name; with a VLAN, that of the VLAN's.
    pub name: String,
    /// Its addresses, but for those that are good on the link alone.
    pub addresses: Vec<Net<IpAddr>>,
    /// Its MTU.
    pub mtu: u32,
}

/// A network that is up. DHCP leases are renewed for as long as it lives.
#[must_use = "leases are renewed only while it lives"]
pub struct Up {
    interfaces: Vec<Standing>,
    name_servers: Vec<IpAddr>,
    leases: Vec<Kept>,
    set: Set,
}

/// What was set, to be taken back.
#[derive(Default)]
struct Set {
    cards: Vec<Card>,
    links: Vec<String>,
}

/// Brings the network up.
///
/// # Errors
/// `Usage`, where the configuration makes no sense. `Source`, with which interface stands still and where; temporary where
/// trying again can help. `Cancelled`. What had been set is taken back, and `tell` is told what could not be.
pub async fn bring_up(network: &Network, tell: &dyn Fn(String), cancel: &CancellationToken) -> Result<Up> {
    bring_up_at(&Places::default(), network, tell, cancel).await
}

/// The same, where a machine has its things at other places.
///
/// # Errors
/// Those of [`bring_up`].
pub async fn bring_up_at(
    places: &Places,
    network: &Network,
    tell: &dyn Fn(String),
    cancel: &CancellationToken,
) -> Result<Up> {
    network.check().map_err(|broken| Error::usage(broken).with_hint("correct the medium's configuration"))?;
    let (cards, links) = (RefCell::default(), RefCell::default());
    let ended = {
        let work = Work {
            places,
            network,
            patience: Patience::new(Duration::from_secs(network.wait), tell),
            tell,
            cards: &cards,
            links: &links,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::cancelled("bringing up the network")),
            ended = work.bring_up() => ended,
        }
    };
    let set = Set { cards: cards.into_inner(), links: links.into_inner() };
    match ended {
        Ok(up) => Ok(Up { set, ..up }),
        Err(error) => {
            set.take_back().await.into_iter().for_each(tell);
            Err(error)
        }
    }
}

struct Work<'a> {
    places: &'a Places,
    network: &'a Network,
    patience: Patience<'a>,
    tell: &'a dyn Fn(String),
    cards: &'a RefCell<Vec<Card>>,
    links: &'a RefCell<Vec<String>>,
}

/// What comes of one interface.
struct Configured {
    standing: Standing,
    lease: Option<(Kept, Vec<IpAddr>)>,
}

impl Work<'_> {
    async fn bring_up(&self) -> Result<Up> {
        let (roots, interfaces) = (&self.places.roots, &self.network.interfaces);
        ip("link set dev lo up").await?;
        devices::load_drivers(interfaces.iter().map(|interface| &interface.device)).await?;
        let find = interfaces.iter().map(|interface| async {
            let found = devices::find(roots, &interface.device, &self.patience, self.tell, self.cards).await;
            found.map_err(|error| error.in_addition(&format!("it was to be {}", interface.name)))
        });
        let found = all(find).await?;
        devices::rename(roots, interfaces, &found).await?;
        let configure = interfaces.iter().enumerate();
        let done = all(configure.map(|(number, interface)| self.configure(interface, METRIC + number))).await?;
        let (mut standings, mut leases, mut given) = (Vec::new(), Vec::new(), Vec::new());
        for Configured { standing, lease } in done {
            standings.push(standing);
            if let Some((kept, dns)) = lease {
                leases.push(kept);
                given.extend(dns);
            }
        }
        let name_servers = dns::servers(&self.network.dns, given);
        dns::write(&self.places.resolv_conf, &name_servers)?;
        Ok(Up { interfaces: standings, name_servers, leases, set: Set::default() })
    }

    async fn configure(&self, interface: &Interface, metric: usize) -> Result<Configured> {
        let (roots, patience) = (&self.places.roots, &self.patience);
        self.links.borrow_mut().push(interface.name.clone());
        let name = link::up(roots, interface, patience).await?;
        let mut gateways = Vec::new();
        if let Ipv4::Static { addresses, gateway } = &interface.ipv4 {
            gateways.extend(gateway.map(IpAddr::V4));
            for net in addresses {
                address::add(&name, Net { address: net.address.into(), prefix: net.prefix }, None).await?;
            }
        }
        if let Ipv6::Static { addresses, gateway } = &interface.ipv6 {
            gateways.extend(gateway.map(IpAddr::V6));
            for net in addresses {
                address::add(&name, Net { address: net.address.into(), prefix: net.prefix }, None).await?;
            }
        }
        let lease = match interface.ipv4 {
            Ipv4::Dhcp => Some(Lessee::new(&name, interface, metric).lease(self.places, patience).await?),
            _ => None,
        };
        address::settle(&name, &interface.ipv6, patience).await?;
        let way = Way { metric, onlink: false };
        for route in gateways.into_iter().map(default_route).chain(interface.routes.iter().cloned()) {
            address::add_route(&name, &route, way).await?;
        }
        Ok(Configured { standing: Standing::of(roots, &name).await?, lease })
    }
}

impl Standing {
    async fn of(roots: &Roots, name: &str) -> Result<Standing> {
        let held = ip::addresses(name).await?.into_iter().filter(|held| held.scope == "global");
        let addresses = held.map(|held| Net { address: held.local, prefix: held.prefixlen }).collect();
        Ok(Standing { name: name.to_owned(), addresses, mtu: link::mtu(roots, name).unwrap_or_default() })
    }
}

impl Up {
    /// The interfaces, as they were when they had come up.
    pub fn interfaces(&self) -> &[Standing] {
        &self.interfaces
    }

    /// The name servers that are asked.
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// Takes it down again: interfaces down, qeth devices offline. Returns, in sentences, what could not be.
    pub async fn down(self) -> Vec<String> {
        for lease in self.leases {
            lease.end().await;
        }
        self.set.take_back().await
    }
}

impl Set {
    async fn take_back(self) -> Vec<String> {
        let mut left = Vec::new();
        for name in &self.links {
            if let Err(error) = ip(&format!("link set dev {name} down")).await {
                left.push(format!("{name} is still up: {error}"));
            }
        }
        let cards = self.cards.iter().map(|card| async { Ok(card.set_offline().await.err()) });
        left.extend(all(cards).await.into_iter().flatten().flatten());
        left
    }
}

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interfaces: Vec<String> = self.interfaces.iter().map(Standing::to_string).collect();
        f.write_str(&interfaces.join(", "))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.addresses.iter().try_for_each(|net| write!(f, " {net}"))?;
        write!(f, " mtu {}", self.mtu)
    }
}
