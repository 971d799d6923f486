//! An address with the length of its prefix, as `10.9.0.2/24`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the length of its network's prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound(serialize = "A: Family", deserialize = "A: Family"))]
pub struct Net<A: Family> {
    /// The address.
    pub address: A,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// Kinds of addresses.
pub trait Family: Copy + fmt::Display + FromStr {
    /// Bits of an address.
    fn bits(&self) -> u8;
}

impl Family for Ipv4Addr {
    fn bits(&self) -> u8 {
        32
    }
}

impl Family for Ipv6Addr {
    fn bits(&self) -> u8 {
        128
    }
}

impl Family for IpAddr {
    fn bits(&self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }
}

impl Net<IpAddr> {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let kept = |bits: u128, width: u8| if self.prefix == 0 { 0 } else { bits >> (width - self.prefix) };
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                kept(u128::from(net.to_bits()), 32) == kept(u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => kept(net.to_bits(), 128) == kept(address.to_bits(), 128),
            _ => false,
        }
    }
}

impl<A: Family> fmt::Display for Net<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<A: Family> FromStr for Net<A> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address with a prefix, such as 10.9.0.2/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: A = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= address.bits()).ok_or_else(wrong)?;
        Ok(Self { address, prefix })
    }
}

impl<A: Family> TryFrom<String> for Net<A> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<A: Family> From<Net<A>> for String {
    fn from(net: Net<A>) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_network_is_told_from_what_does_not() {
        let net = |text: &str| text.parse::<Net<IpAddr>>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(net("10.9.0.0/24").contains(ip("10.9.0.255")) && !net("10.9.0.0/24").contains(ip("10.9.1.0")));
        assert!(net("0.0.0.0/0").contains(ip("1.2.3.4")) && !net("0.0.0.0/0").contains(ip("::1")));
        assert!(net("fd00::/8").contains(ip("fd12::1")) && net("::1/128").contains(ip("::1")));
        for wrong in ["10.9.0.0", "10.9.0.0/33", "10.9.0/24", "fd00::/129", "/8", "10.9.0.0/-1"] {
            assert!(wrong.parse::<Net<IpAddr>>().is_err(), "{wrong}");
        }
        assert!("fd00::1/64".parse::<Net<Ipv4Addr>>().is_err());
    }
}
