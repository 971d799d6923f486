//! Fields of the kernel's structures, read out of bytes: integers in the machine's order, ports and addresses in the network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Attributes that policies and states both have: a mark and the bits of it that count, and an XFRM interface.
pub const XFRMA_MARK: u16 = 21;
pub const XFRMA_IF_ID: u16 = 31;

/// A structure or an attribute as it came. Reading beyond its end gives `None`.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    pub fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    pub fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    /// `__be16`: ports and their masks.
    pub fn network_u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// `__be32`: an SPI.
    pub fn network_u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// `xfrm_address_t`, 16 bytes, of which IPv4 uses the first four.
    pub fn address(&self, at: usize, family: u16) -> Option<IpAddr> {
        let room: [u8; 16] = self.array(at)?;
        match i32::from(family) {
            libc::AF_INET => Some(Ipv4Addr::new(room[0], room[1], room[2], room[3]).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(room).into()),
            _ => None,
        }
    }

    /// A name in a field of `len` bytes, which ends at its first zero.
    pub fn name(&self, at: usize, len: usize) -> Option<String> {
        let room = self.0.get(at..at.checked_add(len)?)?;
        let end = room.iter().position(|byte| *byte == 0).unwrap_or(len);
        Some(String::from_utf8_lossy(&room[..end]).into_owned())
    }

    /// `struct xfrm_mark`: the mark, and the bits of it that count.
    pub fn mark(&self) -> Option<(u32, u32)> {
        Some((self.u32(0)?, self.u32(4)?))
    }

    /// A part of it.
    pub fn part(&self, at: usize, len: usize) -> Option<Fields<'a>> {
        self.0.get(at..at.checked_add(len)?).map(Fields)
    }
}

/// Cuts what follows a structure into attributes (`struct nlattr`): their kind, without its flags, and their content. `None`
/// where one is longer than what is there.
pub fn attributes(mut rest: &[u8]) -> Option<Vec<(u16, Fields<'_>)>> {
    const HEAD: usize = 4;
    const KIND: u16 = 0x3fff;
    let mut found = Vec::new();
    while rest.len() >= HEAD {
        let head = Fields(rest);
        let (len, kind) = (usize::from(head.u16(0)?), head.u16(2)?);
        found.push((kind & KIND, Fields(rest.get(HEAD..len)?)));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}
