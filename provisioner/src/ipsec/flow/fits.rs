//! Whether a policy, a template or a security association is for a packet. Where that hangs on what is not known here (a port not
//! chosen yet, a mark, an interface), the answer is [`Fits::Perhaps`]: it can be counted on for nothing, and can spoil everything.

use std::net::IpAddr;

use super::Packet;
use crate::ipsec::kernel::policy::{Direction, Mode, Policy, Selector, Template};
use crate::ipsec::kernel::state::State;

/// How sure it is that something is for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fits {
    No,
    Perhaps,
    Certainly,
}

impl From<bool> for Fits {
    fn from(fits: bool) -> Self {
        if fits { Fits::Certainly } else { Fits::No }
    }
}

/// Something that stands for what is unknown.
fn unless(unknown: bool) -> Fits {
    if unknown { Fits::Perhaps } else { Fits::Certainly }
}

/// A policy, as `xfrm_policy_match` has it. One of an XFRM interface is for what is routed through that alone.
pub(super) fn policy(policy: &Policy, packet: &Packet) -> Fits {
    let plain = Fits::from(policy.interface_id == 0);
    let known = unless(policy.mark.1 != 0 || policy.labelled || !policy.main);
    plain.min(known).min(selector(&policy.selector, packet))
}

/// A selector, as `xfrm_selector_match` has it.
fn selector(selector: &Selector, packet: &Packet) -> Fits {
    let addresses = selector.source.contains(packet.source) && selector.destination.contains(packet.destination);
    let protocol = selector.protocol == 0 || i32::from(selector.protocol) == libc::IPPROTO_TCP;
    Fits::from(addresses && protocol)
        .min(port(selector.source_port, packet.source_port))
        .min(port(selector.destination_port, packet.destination_port))
        .min(interface(selector.interface))
}

/// Which interface a packet goes through is not known, but that it is not the loopback device, whose number is the same everywhere: what
/// stays on this machine is not looked at.
fn interface(wanted: i32) -> Fits {
    const ANY: i32 = 0;
    const LOOPBACK: i32 = 1;
    match wanted {
        ANY => Fits::Certainly,
        LOOPBACK => Fits::No,
        _ => Fits::Perhaps,
    }
}

fn port((wanted, mask): (u16, u16), port: Option<u16>) -> Fits {
    match port {
        Some(port) => Fits::from((port ^ wanted) & mask == 0),
        None => unless(mask != 0),
    }
}

/// A security association for a template: as `xfrm_state_find` chooses for what goes out, and `xfrm_state_ok` accepts for what
/// comes in.
pub(super) fn association(state: &State, template: &Template, packet: &Packet, direction: Direction) -> Fits {
    let outward = direction == Direction::Out;
    let (source, destination) = match template.mode {
        Mode::Transport => (packet.source, Some(packet.destination)),
        // What has been taken out of a tunnel is asked only where that began.
        _ => (template.source, outward.then_some(template.destination)),
    };
    let addresses = (is_or_any(source, state.source) || state.source.is_unspecified())
        && destination.is_none_or(|destination| destination == state.destination);
    let numbers = state.protocol == template.protocol
        && state.mode == template.mode
        && (template.spi == 0 || template.spi == state.spi)
        && (state.reqid == template.reqid || (!outward && template.reqid == 0));
    let usable = state.interface_id == 0 && !(outward && state.receives_only);
    let wanted = state.selector.as_ref().map_or(Fits::Certainly, |wanted| selector(wanted, packet));
    Fits::from(addresses && numbers && usable).min(unless(state.mark.1 != 0)).min(wanted)
}

fn is_or_any(wanted: IpAddr, found: IpAddr) -> bool {
    wanted.is_unspecified() || wanted == found
}
