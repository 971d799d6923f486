//! Whether IPsec protects a flow: what the kernel would do with its packets, found from its policies and security associations. A
//! pure function; where it cannot tell what the kernel would do, the flow is not protected.

mod fits;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use imgstream::error::{Error, Kind, Retry};

use self::fits::Fits;
use super::kernel::Databases;
use super::kernel::policy::{Action, Direction, Mode, Policy, Template};
use super::kernel::state::State;

/// A TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// This machine's address.
    pub local: IpAddr,
    /// This machine's port, once it is chosen.
    pub local_port: Option<u16>,
    /// The other end.
    pub peer: SocketAddr,
}

/// What protects a flow: ESP with AES-256-GCM, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protection {
    /// Whether packets go whole through a tunnel; else they keep their addresses.
    pub tunnel: bool,
    /// Where protected packets come from.
    pub local: IpAddr,
    /// Where they go.
    pub peer: IpAddr,
    /// The number of the pair of security associations they go through.
    pub reqid: u32,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.tunnel { "tunnel" } else { "transport" };
        write!(f, "ESP {mode} {} → {}, AES-256-GCM", self.local, self.peer)
    }
}

/// Why a flow is not protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// In a word.
    pub why: Why,
    /// In a sentence.
    pub message: String,
}

/// Why a flow is not protected, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No policy is for it, and what none is for passes.
    NoPolicy,
    /// No policy is for it, and what none is for is dropped: so it is while a tunnel is being established again.
    NotYet,
    /// A policy drops it.
    Dropped,
    /// A policy lets it pass without protection.
    Unprotected,
    /// A policy protects it, but there is no security association: so it is while one is being negotiated. The kernel holds packets
    /// back, and asks for one.
    NoAssociation,
    /// It would be encrypted with something else.
    Weak,
}

impl Why {
    /// Whether waiting may help. Nothing leaves in the clear meanwhile.
    pub fn may_pass(self) -> bool {
        matches!(self, Why::NotYet | Why::NoAssociation)
    }

    fn hint(self) -> &'static str {
        match self {
            Why::NoPolicy | Why::Unprotected => {
                "bring up the tunnel that leads there, or correct its traffic selectors: `ip xfrm policy` shows them; \
                 `ipsec: not-required` lets packets go in the clear"
            }
            Why::Dropped => "correct the policy that is in the way: `ip xfrm policy` shows all of them",
            Why::NotYet => "is the tunnel up, and does what it is for include this source? `ip xfrm policy` shows that",
            Why::NoAssociation => {
                "is the tunnel up? `ip xfrm state` shows what there is; look at both ends' IKE daemons"
            }
            Why::Weak => "let both ends agree on ESP with AES-256-GCM and a tag of 16 bytes (aes256gcm16)",
        }
    }
}

impl From<Exposed> for Error {
    fn from(exposed: Exposed) -> Self {
        let retry = if exposed.why.may_pass() { Retry::Temporary } else { Retry::Permanent };
        Error::new(Kind::Source, format!("IPsec does not protect the way to this source: {}", exposed.message))
            .with_retry(retry)
            .with_hint(exposed.why.hint())
    }
}

/// A packet of a flow, one way or the other.
#[derive(Debug, Clone, Copy)]
struct Packet {
    source: IpAddr,
    source_port: Option<u16>,
    destination: IpAddr,
    destination_port: Option<u16>,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.source, self.destination)
    }
}

/// What protects a flow, both what goes out and what comes in.
///
/// # Errors
/// [`Exposed`]: what of it is not protected, and why.
pub fn check(flow: &Flow, databases: &Databases) -> Result<Protection, Exposed> {
    let (local, peer) = (flow.local.to_canonical(), flow.peer.ip().to_canonical());
    let (local_port, peer_port) = (flow.local_port, Some(flow.peer.port()));
    let outward = Packet { source: local, source_port: local_port, destination: peer, destination_port: peer_port };
    let inward = Packet { source: peer, source_port: peer_port, destination: local, destination_port: local_port };
    let protection = one_way(&outward, Direction::Out, databases)?;
    one_way(&inward, Direction::In, databases)?;
    Ok(protection)
}

/// The kernel takes the policy with the lowest priority number; which of several, hangs on its history: so each of them must protect.
fn one_way(packet: &Packet, direction: Direction, databases: &Databases) -> Result<Protection, Exposed> {
    let candidates = databases.policies.list.iter().filter(|policy| policy.direction == direction);
    let mut candidates: Vec<_> =
        candidates.map(|policy| (policy, fits::policy(policy, packet))).filter(|(_, fits)| *fits != Fits::No).collect();
    candidates.sort_by_key(|(policy, _)| rank(policy));
    for rivals in candidates.chunk_by(|(one, _), (other, _)| rank(one) == rank(other)) {
        let (mut found, mut waiting) = (None, None);
        for (policy, fits) in rivals {
            let certain = *fits == Fits::Certainly;
            match under(policy, packet, direction, &databases.associations) {
                Ok(protection) if certain => found = Some(protection),
                Err(exposed) if !exposed.why.may_pass() => return Err(exposed),
                Err(exposed) if certain => waiting = Some(exposed),
                // It protects or holds back what it is for, and it may not be for this.
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(exposed) = waiting {
            return Err(exposed);
        }
        if let Some(protection) = found {
            return Ok(protection);
        }
    }
    Err(unmatched(packet, direction, databases))
}

fn rank(policy: &Policy) -> (bool, u32) {
    (policy.main, policy.priority)
}

fn unmatched(packet: &Packet, direction: Direction, databases: &Databases) -> Exposed {
    let (unmatched, packets, passed) = match direction {
        Direction::Out => (databases.policies.unmatched.outward, "packets", "sent"),
        _ => (databases.policies.unmatched.inward, "answers", "accepted"),
    };
    let (why, fate) = match unmatched {
        Action::Allow => (Why::NoPolicy, format!("{passed} in the clear")),
        Action::Block => (Why::NotYet, "dropped".to_owned()),
    };
    Exposed { why, message: format!("no policy matches {packet}: {packets} would be {fate}") }
}

/// What a packet goes through under a policy.
fn under(
    policy: &Policy,
    packet: &Packet,
    direction: Direction,
    associations: &[State],
) -> Result<Protection, Exposed> {
    let priority = policy.priority;
    if policy.action == Action::Block {
        let message = format!("a policy of priority {priority} drops {packet}");
        return Err(Exposed { why: Why::Dropped, message });
    }
    let mut protection = None;
    for template in policy.templates.iter().filter(|template| encrypts(template)) {
        let found = through(template, packet, direction, associations)?;
        protection.get_or_insert(found);
    }
    protection.ok_or_else(|| {
        let optional = policy.templates.iter().any(|template| template.optional);
        let lacking = if optional { "also without protection" } else { "without protection" };
        let message = format!("a policy of priority {priority} allows {packet} {lacking}");
        Exposed { why: Why::Unprotected, message }
    })
}

/// Whether nothing passes a template but ESP.
fn encrypts(template: &Template) -> bool {
    let esp = i32::from(template.protocol) == libc::IPPROTO_ESP;
    esp && !template.optional && matches!(template.mode, Mode::Tunnel | Mode::Transport)
}

/// What a packet goes through by a template: every security association that the kernel may take must protect, and there must be one.
fn through(
    template: &Template,
    packet: &Packet,
    direction: Direction,
    associations: &[State],
) -> Result<Protection, Exposed> {
    let mut found = None;
    for state in associations {
        let fits = fits::association(state, template, packet, direction);
        let Some(cipher) = state.cipher.as_ref().filter(|_| fits != Fits::No) else { continue };
        if !cipher.is_aes_256_gcm() {
            let State { source, destination, spi, .. } = state;
            let message = format!(
                "the security association {source} → {destination} (SPI {spi:#010x}), which {packet} may go through, \
                 encrypts with {cipher}, which is not AES-256-GCM"
            );
            return Err(Exposed { why: Why::Weak, message });
        }
        if fits == Fits::Certainly {
            found = Some(state);
        }
    }
    let tunnel = template.mode == Mode::Tunnel;
    if let Some(State { source: local, destination: peer, reqid, .. }) = found.cloned() {
        return Ok(Protection { tunnel, local, peer, reqid });
    }
    let (from, to) = if tunnel { (template.source, template.destination) } else { (packet.source, packet.destination) };
    let (mode, reqid) = (if tunnel { "tunnel" } else { "transport" }, template.reqid);
    let message = format!(
        "no security association for the ESP {mode} {from} → {to} (reqid {reqid}), which {packet} must go through"
    );
    Err(Exposed { why: Why::NoAssociation, message })
}
