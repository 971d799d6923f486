//! What is asked of the machine to find out whether IPsec protects a flow.

use std::fmt::Debug;
use std::net::IpAddr;

use imgstream::error::{Error, IoContext, Kind, Result};

use super::kernel::{self, Databases};

/// A machine, or a container of one.
pub trait Host: Send + Sync + Debug {
    /// The kernel's policies and security associations.
    ///
    /// # Errors
    /// Those of [`kernel::dump`].
    fn databases(&self) -> Result<Databases>;

    /// Its own addresses.
    ///
    /// # Errors
    /// [`Kind::Source`] when they cannot be read.
    fn addresses(&self) -> Result<Vec<IpAddr>>;

    /// The interfaces whose packets ignore all policies; `all` for all of them.
    fn switched_off(&self) -> Vec<String>;
}

/// This one.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost;

impl Host for ThisHost {
    fn databases(&self) -> Result<Databases> {
        kernel::dump()
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let interfaces = nix::ifaddrs::getifaddrs()
            .context(Kind::Source, || "reading this machine's addresses".into())
            .map_err(|error: Error| error.with_hint("compare with `ip address`"))?;
        // The kernel sends away what is meant for an address of an interface that is down.
        let up = interfaces.filter(|interface| interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP));
        let addresses = up.filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        });
        Ok(addresses.collect())
    }

    fn switched_off(&self) -> Vec<String> {
        let Ok(interfaces) = std::fs::read_dir("/proc/sys/net/ipv4/conf") else { return Vec::new() };
        let is_off = |interface: &std::fs::DirEntry| {
            let setting = std::fs::read_to_string(interface.path().join("disable_xfrm")).unwrap_or_default();
            setting.trim() != "0" && !setting.is_empty()
        };
        let off =
            interfaces.flatten().filter(is_off).map(|interface| interface.file_name().to_string_lossy().into_owned());
        // The loopback device has it from the start; `default` is what interfaces get that do not exist yet.
        off.filter(|name| !matches!(name.as_str(), "lo" | "default")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_loopback_address() {
        assert!(ThisHost.addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }
}
