//! An interface before it has addresses: MTU, what the kernel may do about IPv6 by itself, VLAN, carrier.

use std::path::PathBuf;

use imgstream::error::{Error, Kind, Result};

use super::ip::ip;
use super::wait::Patience;
use crate::medium::config::{Interface, Ipv6};
use crate::sysfs::{self, Roots};
use crate::tool::Tool;

/// Sets an interface up, which is down and has no addresses before. Returns the name of the one that gets the addresses.
pub(super) async fn up(roots: &Roots, interface: &Interface, patience: &Patience<'_>) -> Result<String> {
    let (name, outer) = (&interface.name, interface.outer());
    ip(&format!("link set dev {name} down")).await?;
    ip(&format!("address flush dev {name}")).await?;
    if let Some(mtu) = interface.mtu {
        set_mtu(name, mtu).await?;
    }
    if interface.vlan.is_some() {
        // Untagged packets are of no use: not even a link-local address is to answer them.
        ipv6(roots, name, &Ipv6::Off).await?;
        add_vlan(roots, interface).await?;
    }
    ipv6(roots, &outer, &interface.ipv6).await?;
    ip(&format!("link set dev {name} up")).await?;
    if outer != *name {
        ip(&format!("link set dev {outer} up")).await?;
    }
    carrier(roots, &outer, patience).await?;
    Ok(outer)
}

/// Sets the MTU.
pub(super) async fn set_mtu(name: &str, mtu: u32) -> Result<()> {
    let set = ip(&format!("link set dev {name} mtu {mtu}")).await;
    set.map_err(|error| error.with_hint(format!("{name} does not take an MTU of {mtu}: configure a smaller `mtu`")))
}

/// The MTU it has.
pub(super) fn mtu(roots: &Roots, name: &str) -> Option<u32> {
    sysfs::read(&roots.sys("class/net").join(name).join("mtu"))?.parse().ok()
}

async fn add_vlan(roots: &Roots, interface: &Interface) -> Result<()> {
    let (Some(vlan), name, outer) = (interface.vlan, &interface.name, interface.outer()) else { return Ok(()) };
    if roots.sys("class/net").join(&outer).exists() {
        ip(&format!("link delete dev {outer}")).await?;
    }
    // Where it is built in, or where the kernel loads it by itself, this does no harm; whether it worked, `ip` will tell.
    let _ = Tool::new("modprobe").arg("8021q").kind(Kind::Source).end().await;
    let added = ip(&format!("link add link {name} name {outer} type vlan id {vlan}")).await;
    added.map_err(|error| error.with_hint("the kernel must have VLANs: the medium must have its module 8021q"))
}

/// Says what the kernel does about IPv6 by itself. It must be said before the link is up.
async fn ipv6(roots: &Roots, name: &str, ipv6: &Ipv6) -> Result<()> {
    let dir = roots.proc("sys/net/ipv6/conf").join(name);
    if !dir.is_dir() {
        // A kernel without IPv6 has none to be switched off.
        return if *ipv6 == Ipv6::Off { Ok(()) } else { Err(without_ipv6(name)) };
    }
    // 2: also when this machine forwards packets, which is nobody's business here.
    let settings = match ipv6 {
        Ipv6::Off => [("disable_ipv6", "1"), ("accept_ra", "0"), ("autoconf", "0")],
        Ipv6::Auto => [("disable_ipv6", "0"), ("accept_ra", "2"), ("autoconf", "1")],
        Ipv6::Static { .. } => [("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0")],
    };
    for (setting, value) in settings {
        write(roots, dir.join(setting), value).await?;
    }
    Ok(())
}

async fn write(roots: &Roots, path: PathBuf, value: &str) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Source, format!("writing {value} to {}: {error}", path.display()))
            .with_source(error)
            .with_hint("the agent must be root, and /proc/sys writable, to set up the network")
    };
    roots.write_aside(&path, value).await.map_err(std::io::Error::other).and_then(|answer| answer).map_err(failed)
}

fn without_ipv6(name: &str) -> Error {
    Error::new(Kind::Source, format!("{name}: this kernel has no IPv6 (/proc/sys/net/ipv6 is not there)"))
        .with_hint("set `ipv6` to `off`, or start the kernel without `ipv6.disable=1`")
}

async fn carrier(roots: &Roots, name: &str, patience: &Patience<'_>) -> Result<()> {
    let path = roots.sys("class/net").join(name).join("carrier");
    let has_carrier = || sysfs::is_set(&path).then_some(());
    patience.until(&format!("carrier on {name}"), has_carrier).await.ok_or_else(|| {
        Error::source_failed(format!("{name} has no carrier after {} s", patience.seconds())).with_hint(
            "look at the cable, the switch's port, and the adapter's CHPID on the HMC; with z/VM, at the VSWITCH",
        )
    })
}
