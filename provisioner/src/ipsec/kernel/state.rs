//! XFRM states: security associations. Structures: `include/uapi/linux/xfrm.h`. Their keys are in what the kernel says, and stay
//! there: only how long they are is read.

use std::fmt;
use std::net::IpAddr;

use super::fields::{Fields, XFRMA_IF_ID, XFRMA_MARK, attributes};
use super::policy::{Mode, Selector};

/// `sizeof(struct xfrm_usersa_info)`: it holds 64-bit integers and is padded to their alignment.
const STATE_LEN: usize = 224;
/// Bytes of an algorithm's name.
const NAME_LEN: usize = 64;

const XFRMA_ALG_AUTH: u16 = 1;
const XFRMA_ALG_CRYPT: u16 = 2;
const XFRMA_ALG_AEAD: u16 = 18;
const XFRMA_ALG_AUTH_TRUNC: u16 = 20;

/// One that is never chosen for what goes out.
const XFRM_STATE_WILDRECV: u8 = 8;

/// A security association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its outer source.
    pub source: IpAddr,
    /// Its outer destination.
    pub destination: IpAddr,
    /// Its SPI; 0 where it is not agreed on yet.
    pub spi: u32,
    /// Its protocol, such as [`libc::IPPROTO_ESP`].
    pub protocol: u8,
    /// The number that policies and security associations share.
    pub reqid: u32,
    /// How packets are wrapped.
    pub mode: Mode,
    /// What it is for, where not for everything.
    pub selector: Option<Selector>,
    /// The mark that packets must have, and the bits of it that count.
    pub mark: (u32, u32),
    /// The XFRM interface it belongs to; 0 where to none.
    pub interface_id: u32,
    /// Whether it is for what comes in only.
    pub receives_only: bool,
    /// How it protects. `None` while it is being negotiated: it passes nothing.
    pub cipher: Option<Cipher>,
}

/// How a security association protects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cipher {
    /// Its AEAD algorithm, such as `rfc4106(gcm(aes))`.
    pub aead: Option<Aead>,
    /// Its other algorithms, as the kernel names them.
    pub others: Vec<String>,
}

/// `struct xfrm_algo_aead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aead {
    /// Its name.
    pub name: String,
    /// Bits of its key, salt included.
    pub key_bits: u32,
    /// Bits of its integrity check value.
    pub tag_bits: u32,
}

impl Aead {
    /// AES-GCM with a key of 256 bits, 32 bits of salt (RFC 4106), and the full tag.
    pub fn is_aes_256_gcm(&self) -> bool {
        self.name == "rfc4106(gcm(aes))" && self.key_bits == 256 + 32 && self.tag_bits == 128
    }
}

impl Cipher {
    /// Whether it is AES-256-GCM and nothing else.
    pub fn is_aes_256_gcm(&self) -> bool {
        self.others.is_empty() && self.aead.as_ref().is_some_and(Aead::is_aes_256_gcm)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aead = self.aead.iter().map(|Aead { name, key_bits, tag_bits }| {
            format!("{name} with {key_bits} bits of key and salt, and {tag_bits} bits of tag")
        });
        f.write_str(&aead.chain(self.others.iter().cloned()).collect::<Vec<_>>().join(" and "))
    }
}

impl State {
    /// Reads a `XFRM_MSG_NEWSA`. `Some(None)` where it is of a family other than IPv4 and IPv6.
    pub(super) fn read(message: &[u8]) -> Option<Option<Self>> {
        let info = Fields(message).part(0, STATE_LEN)?;
        let family = info.u16(212)?;
        if !matches!(i32::from(family), libc::AF_INET | libc::AF_INET6) {
            return Some(None);
        }
        let mut state = State {
            selector: Selector::read(info.part(0, Selector::LEN)?)?,
            destination: info.address(56, family)?,
            spi: info.network_u32(72)?,
            protocol: info.u8(76)?,
            source: info.address(80, family)?,
            reqid: info.u32(208)?,
            mode: Mode::of(info.u8(214)?),
            receives_only: info.u8(216)? & XFRM_STATE_WILDRECV != 0,
            mark: (0, 0),
            interface_id: 0,
            cipher: None,
        };
        for (kind, content) in attributes(&message[STATE_LEN..])? {
            match kind {
                XFRMA_ALG_AEAD => {
                    let (key_bits, tag_bits) = (content.u32(NAME_LEN)?, content.u32(NAME_LEN + 4)?);
                    let aead = Aead { name: content.name(0, NAME_LEN)?, key_bits, tag_bits };
                    state.cipher.get_or_insert_default().aead = Some(aead);
                }
                // The kernel says a truncated authentication twice, in the old way too.
                XFRMA_ALG_AUTH | XFRMA_ALG_AUTH_TRUNC | XFRMA_ALG_CRYPT => {
                    let name = content.name(0, NAME_LEN)?;
                    let others = &mut state.cipher.get_or_insert_default().others;
                    if !others.contains(&name) {
                        others.push(name);
                    }
                }
                XFRMA_MARK => state.mark = content.mark()?,
                XFRMA_IF_ID => state.interface_id = content.u32(0)?,
                _ => {}
            }
        }
        Some(Some(state))
    }
}
