//! XFRM policies: which packets go through which transformation. Structures: `include/uapi/linux/xfrm.h`.

use std::net::IpAddr;

use super::fields::{Fields, XFRMA_IF_ID, XFRMA_MARK, attributes};
use crate::medium::net::Net;

/// `sizeof(struct xfrm_userpolicy_info)`: it holds 64-bit integers and is padded to their alignment.
const POLICY_LEN: usize = 168;
/// `sizeof(struct xfrm_user_tmpl)`.
const TEMPLATE_LEN: usize = 64;

const XFRMA_TMPL: u16 = 5;
const XFRMA_SEC_CTX: u16 = 8;
const XFRMA_POLICY_TYPE: u16 = 16;

/// The policies of a network namespace, and what becomes of packets that none of them matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// All of them, in no order that matters.
    pub list: Vec<Policy>,
    /// What becomes of other packets.
    pub unmatched: Unmatched,
}

/// What becomes of packets that no policy matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// Of those that come in.
    pub inward: Action,
    /// Of those that go out.
    pub outward: Action,
}

/// Whether packets may pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// They may, through the policy's templates where it has any.
    #[default]
    Allow,
    /// They are dropped.
    Block,
}

/// Which packets a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
    /// Those that are passed on; and a single socket's, which concern nobody else.
    Other,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which packets it is for.
    pub direction: Direction,
    /// Which of them.
    pub selector: Selector,
    /// Whether it is of the main kind. There is another, looked at before, for mobile IPv6.
    pub main: bool,
    /// Of two that match, the one with the lower number counts.
    pub priority: u32,
    /// What becomes of them.
    pub action: Action,
    /// The mark that packets must have, and the bits of it that count.
    pub mark: (u32, u32),
    /// The XFRM interface it belongs to; 0 where to none.
    pub interface_id: u32,
    /// Whether a security module decides too.
    pub labelled: bool,
    /// What is done to packets, one after the other.
    pub templates: Vec<Template>,
}

/// Which packets are meant: `struct xfrm_selector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Where they come from.
    pub source: Net<IpAddr>,
    /// Where they go.
    pub destination: Net<IpAddr>,
    /// Their source port, and the bits of it that count.
    pub source_port: (u16, u16),
    /// Their destination port, and the bits of it that count.
    pub destination_port: (u16, u16),
    /// Their protocol; 0 for any.
    pub protocol: u8,
    /// Their interface's index; 0 for any.
    pub interface: i32,
}

/// What is to be done to packets: `struct xfrm_user_tmpl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The outer source; unspecified where any will do.
    pub source: IpAddr,
    /// The outer destination.
    pub destination: IpAddr,
    /// The SPI; 0 for any.
    pub spi: u32,
    /// The protocol, such as [`libc::IPPROTO_ESP`].
    pub protocol: u8,
    /// The number that policies and security associations share; 0 for none.
    pub reqid: u32,
    /// How packets are wrapped.
    pub mode: Mode,
    /// Whether packets pass without, where there is no security association.
    pub optional: bool,
}

/// How packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Between their own addresses.
    Transport,
    /// Whole, between two others.
    Tunnel,
    /// In another way.
    Other(u8),
}

impl Mode {
    pub(super) fn of(number: u8) -> Self {
        match number {
            0 => Mode::Transport,
            1 => Mode::Tunnel,
            other => Mode::Other(other),
        }
    }
}

impl Selector {
    /// `sizeof(struct xfrm_selector)`.
    pub(super) const LEN: usize = 56;

    /// Reads one. A family of 0 selects everything: `Some(None)`.
    pub(super) fn read(from: Fields<'_>) -> Option<Option<Self>> {
        let family = from.u16(40)?;
        if i32::from(family) == libc::AF_UNSPEC {
            return Some(None);
        }
        let net = |at, prefix| {
            let address = from.address(at, family)?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            from.u8(prefix).filter(|prefix| *prefix <= most).map(|prefix| Net { address, prefix })
        };
        Some(Some(Selector {
            destination: net(0, 42)?,
            source: net(16, 43)?,
            destination_port: (from.network_u16(32)?, from.network_u16(34)?),
            source_port: (from.network_u16(36)?, from.network_u16(38)?),
            protocol: from.u8(44)?,
            interface: i32::from_ne_bytes(from.u32(48)?.to_ne_bytes()),
        }))
    }
}

impl Policy {
    /// Reads a `XFRM_MSG_NEWPOLICY`. `Some(None)` where it is of a family other than IPv4 and IPv6.
    pub(super) fn read(message: &[u8]) -> Option<Option<Self>> {
        let info = Fields(message).part(0, POLICY_LEN)?;
        let Some(selector) = Selector::read(info)? else { return Some(None) };
        let mut policy = Policy {
            direction: match info.u8(160)? {
                0 => Direction::In,
                1 => Direction::Out,
                _ => Direction::Other,
            },
            selector,
            main: true,
            priority: info.u32(152)?,
            action: if info.u8(161)? == 0 { Action::Allow } else { Action::Block },
            mark: (0, 0),
            interface_id: 0,
            labelled: false,
            templates: Vec::new(),
        };
        for (kind, content) in attributes(&message[POLICY_LEN..])? {
            match kind {
                XFRMA_TMPL => policy.templates = templates(content)?,
                XFRMA_SEC_CTX => policy.labelled = true,
                XFRMA_POLICY_TYPE => policy.main = content.u8(0)? == 0,
                XFRMA_MARK => policy.mark = content.mark()?,
                XFRMA_IF_ID => policy.interface_id = content.u32(0)?,
                _ => {}
            }
        }
        Some(Some(policy))
    }
}

fn templates(content: Fields<'_>) -> Option<Vec<Template>> {
    let templates = content.0.chunks_exact(TEMPLATE_LEN);
    templates.remainder().is_empty().then_some(())?;
    templates.map(|template| Template::read(Fields(template))).collect()
}

impl Template {
    fn read(from: Fields<'_>) -> Option<Self> {
        let family = from.u16(24)?;
        Some(Template {
            destination: from.address(0, family)?,
            spi: from.network_u32(16)?,
            protocol: from.u8(20)?,
            source: from.address(28, family)?,
            reqid: from.u32(44)?,
            mode: Mode::of(from.u8(48)?),
            optional: from.u8(50)? != 0,
        })
    }
}

impl Unmatched {
    /// Reads the answer to `XFRM_MSG_GETDEFAULT`, a `struct xfrm_userpolicy_default`.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        const BLOCK: u8 = 1;
        let action = |at| Fields(message).u8(at).map(|said| if said == BLOCK { Action::Block } else { Action::Allow });
        Some(Unmatched { inward: action(0)?, outward: action(2)? })
    }
}
