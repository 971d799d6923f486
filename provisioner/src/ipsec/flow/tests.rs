//! What the kernel would do, case by case.

use super::*;
use crate::ipsec::kernel::policy::{Policies, Selector, Unmatched};
use crate::ipsec::kernel::state::{Aead, Cipher};

const ESP: u8 = 50;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn gcm(key_bits: u32, tag_bits: u32) -> Option<Cipher> {
    Some(Cipher { aead: Some(Aead { name: "rfc4106(gcm(aes))".into(), key_bits, tag_bits }), others: Vec::new() })
}

fn selector(source: &str, destination: &str) -> Selector {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let (source_port, destination_port) = ((0, 0), (0, 0));
    Selector { source, destination, source_port, destination_port, protocol: 0, interface: 0 }
}

fn tunnel(source: &str, destination: &str) -> Template {
    let (source, destination, mode) = (ip(source), ip(destination), Mode::Tunnel);
    Template { source, destination, spi: 0, protocol: ESP, reqid: 7, mode, optional: false }
}

fn policy(direction: Direction, priority: u32, selector: Selector, templates: Vec<Template>) -> Policy {
    let (main, action, mark, interface_id, labelled) = (true, Action::Allow, (0, 0), 0, false);
    Policy { direction, selector, main, priority, action, mark, interface_id, labelled, templates }
}

fn state(source: &str, destination: &str, spi: u32) -> State {
    State {
        source: ip(source),
        destination: ip(destination),
        spi,
        protocol: ESP,
        reqid: 7,
        mode: Mode::Tunnel,
        selector: None,
        mark: (0, 0),
        interface_id: 0,
        receives_only: false,
        cipher: gcm(288, 128),
    }
}

/// A tunnel 10.9.0.2 → 10.9.0.1 for 10.10.1.1 ↔ 10.10.2.0/24.
pub(in crate::ipsec) fn up() -> Databases {
    let list = vec![
        policy(Direction::Out, 100, selector("10.10.1.1/32", "10.10.2.0/24"), vec![tunnel("10.9.0.2", "10.9.0.1")]),
        policy(Direction::In, 100, selector("10.10.2.0/24", "10.10.1.1/32"), vec![tunnel("10.9.0.1", "10.9.0.2")]),
        // A socket's own, as the IKE daemon has them.
        policy(Direction::Other, 0, selector("0.0.0.0/0", "0.0.0.0/0"), Vec::new()),
    ];
    let associations = vec![state("10.9.0.2", "10.9.0.1", 0x1001), state("10.9.0.1", "10.9.0.2", 0x1002)];
    Databases { policies: Policies { list, unmatched: Unmatched::default() }, associations }
}

pub(in crate::ipsec) fn flow() -> Flow {
    Flow { local: ip("10.10.1.1"), local_port: Some(40000), peer: "10.10.2.1:8080".parse().unwrap() }
}

/// Tells what changes, and what is found then.
fn exposed(change: impl FnOnce(&mut Databases)) -> (Why, String) {
    let mut databases = up();
    change(&mut databases);
    let Exposed { why, message } = check(&flow(), &databases).unwrap_err();
    (why, message)
}

fn protected(change: impl FnOnce(&mut Databases)) -> Protection {
    let mut databases = up();
    change(&mut databases);
    check(&flow(), &databases).unwrap()
}

#[test]
fn a_tunnel_that_is_up_protects() {
    let protection = protected(|_| ());
    assert_eq!(protection.to_string(), "ESP tunnel 10.9.0.2 → 10.9.0.1, AES-256-GCM");
    assert_eq!(protection.reqid, 7);
    let mut before = flow();
    before.local_port = None;
    before.peer = "[::ffff:10.10.2.1]:8080".parse().unwrap();
    assert_eq!(check(&before, &up()), Ok(protection));
}

#[test]
fn a_flow_that_no_policy_is_for_is_sent_in_the_clear_or_dropped() {
    let mut other = flow();
    other.local = ip("10.9.0.2");
    let found = check(&other, &up()).unwrap_err();
    assert_eq!(found.message, "no policy matches 10.9.0.2 → 10.10.2.1: packets would be sent in the clear");
    assert_eq!(Error::from(found).retry(), Retry::Permanent);
    let mut blocking = up();
    blocking.policies.unmatched = Unmatched { inward: Action::Block, outward: Action::Block };
    let found = check(&other, &blocking).unwrap_err();
    assert_eq!(found.message, "no policy matches 10.9.0.2 → 10.10.2.1: packets would be dropped");
    assert_eq!(Error::from(found).retry(), Retry::Temporary);
    let (why, said) = exposed(|found| drop(found.policies.list.remove(1)));
    assert_eq!(why, Why::NoPolicy);
    assert_eq!(said, "no policy matches 10.10.2.1 → 10.10.1.1: answers would be accepted in the clear");
    let six = Flow { local: ip("fd00::1"), local_port: None, peer: "[fd00::2]:80".parse().unwrap() };
    assert_eq!(check(&six, &up()).unwrap_err().why, Why::NoPolicy);
}

#[test]
fn the_policy_with_the_lowest_priority_number_counts() {
    let bypass = |priority| policy(Direction::Out, priority, selector("0.0.0.0/0", "0.0.0.0/0"), Vec::new());
    let (why, said) = exposed(|found| found.policies.list.push(bypass(99)));
    assert_eq!(why, Why::Unprotected);
    assert_eq!(said, "a policy of priority 99 allows 10.10.1.1 → 10.10.2.1 without protection");
    // Which of two equal ones counts, nobody can tell from here.
    assert_eq!(exposed(|found| found.policies.list.push(bypass(100))).0, Why::Unprotected);
    assert_eq!(exposed(|found| found.policies.list.insert(0, bypass(100))).0, Why::Unprotected);
    protected(|found| found.policies.list.insert(0, bypass(101)));
    let block = Policy { action: Action::Block, ..bypass(1) };
    let (why, said) = exposed(|found| found.policies.list.push(block));
    assert_eq!((why, said.as_str()), (Why::Dropped, "a policy of priority 1 drops 10.10.1.1 → 10.10.2.1"));
}

#[test]
fn policies_for_other_packets_do_not_count() {
    let mut others = vec![
        policy(Direction::In, 0, selector("10.10.1.0/24", "0.0.0.0/0"), Vec::new()),
        policy(Direction::Out, 0, selector("10.10.1.2/32", "0.0.0.0/0"), Vec::new()),
        policy(Direction::Out, 0, selector("::/0", "::/0"), Vec::new()),
        Policy { interface_id: 4, ..policy(Direction::Out, 0, selector("0.0.0.0/0", "0.0.0.0/0"), Vec::new()) },
    ];
    let any = || selector("0.0.0.0/0", "0.0.0.0/0");
    others.push(policy(Direction::Out, 0, Selector { protocol: 17, ..any() }, Vec::new()));
    others.push(policy(Direction::Out, 0, Selector { interface: 1, ..any() }, Vec::new()));
    others.push(policy(Direction::Out, 0, Selector { destination_port: (443, 0xffff), ..any() }, Vec::new()));
    others.push(policy(Direction::Out, 0, Selector { source_port: (500, 0xffff), ..any() }, Vec::new()));
    for other in others {
        protected(|found| found.policies.list.push(other));
    }
    let range = Selector { destination_port: (8064, 0xffc0), ..any() };
    assert_eq!(
        exposed(|found| found.policies.list.push(policy(Direction::Out, 0, range, Vec::new()))).0,
        Why::Unprotected
    );
}

#[test]
fn what_may_be_for_it_spoils_and_does_not_count() {
    type Doubt = fn(&mut Policy);
    let doubts: [Doubt; 4] = [
        |policy| policy.mark = (1, 0xff),
        |policy| policy.labelled = true,
        |policy| policy.main = false,
        |policy| policy.selector.interface = 3,
    ];
    for doubt in doubts {
        let mut bypass = policy(Direction::Out, 9, selector("0.0.0.0/0", "0.0.0.0/0"), Vec::new());
        doubt(&mut bypass);
        assert_eq!(exposed(|found| found.policies.list.push(bypass)).0, Why::Unprotected);
        assert_eq!(exposed(|found| doubt(&mut found.policies.list[0])).0, Why::NoPolicy);
        // One that protects as well as the next does no harm.
        protected(|found| {
            let mut first = Policy { priority: 1, ..found.policies.list[0].clone() };
            doubt(&mut first);
            found.policies.list.push(first);
        });
    }
    // Where one that may be for it would hold it back, and nothing else is for it, it may leave in the clear.
    let (why, _) = exposed(|found| {
        found.associations.clear();
        found.policies.list[0].mark = (1, 1);
    });
    assert_eq!(why, Why::NoPolicy);
    let bypass = policy(Direction::Out, 100, selector("0.0.0.0/0", "0.0.0.0/0"), Vec::new());
    let (why, _) = exposed(|found| {
        found.associations.clear();
        found.policies.list.push(bypass);
    });
    assert_eq!(why, Why::Unprotected);
    let mut early = flow();
    early.local_port = None;
    let mut databases = up();
    databases.policies.list[0].selector.source_port = (40000, 0xffff);
    assert!(check(&flow(), &databases).is_ok() && check(&early, &databases).is_err());
}

#[test]
fn a_template_must_demand_esp() {
    let unprotected: [fn(&mut Template); 3] = [
        |template| template.optional = true,
        |template| template.protocol = 51,
        |template| template.mode = Mode::Other(4),
    ];
    for change in unprotected {
        for at in [0, 1] {
            assert_eq!(exposed(|found| change(&mut found.policies.list[at].templates[0])).0, Why::Unprotected);
        }
    }
    // Compression before is of no matter.
    protected(|found| {
        let compression = Template { protocol: 108, optional: true, ..tunnel("10.9.0.2", "10.9.0.1") };
        found.policies.list[0].templates.insert(0, compression);
    });
}

#[test]
fn there_must_be_a_security_association_each_way() {
    type Lacking = fn(&mut State);
    let lacking: [Lacking; 8] = [
        |state| state.cipher = None,
        |state| state.reqid = 8,
        |state| state.mode = Mode::Transport,
        |state| state.protocol = 51,
        |state| state.source = ip("10.9.0.3"),
        |state| state.mark = (1, 1),
        |state| state.interface_id = 4,
        |state| state.selector = Some(selector("10.10.7.0/24", "0.0.0.0/0")),
    ];
    for change in lacking {
        for at in [0, 1] {
            let (why, said) = exposed(|found| change(&mut found.associations[at]));
            assert_eq!(why, Why::NoAssociation, "{said}");
        }
    }
    let (_, said) = exposed(|found| found.associations.clear());
    assert_eq!(
        said,
        "no security association for the ESP tunnel 10.9.0.2 → 10.9.0.1 (reqid 7), which 10.10.1.1 → 10.10.2.1 must go through"
    );
    assert_eq!(exposed(|found| found.associations[0].destination = ip("10.9.0.9")).0, Why::NoAssociation);
    assert_eq!(exposed(|found| found.associations[0].receives_only = true).0, Why::NoAssociation);
    assert_eq!(exposed(|found| found.policies.list[0].templates[0].spi = 5).0, Why::NoAssociation);
    // While keys are exchanged for new ones there are two, and perhaps one that is not ready.
    protected(|found| found.associations.insert(0, state("10.9.0.2", "10.9.0.1", 0x2001)));
    protected(|found| {
        found.associations.insert(0, State { cipher: None, ..state("10.9.0.2", "10.9.0.1", 0) });
    });
    protected(|found| found.policies.list[0].templates[0].source = ip("0.0.0.0"));
}

#[test]
fn anything_but_aes_256_gcm_is_refused() {
    let cbc = Cipher { aead: None, others: vec!["cbc(aes)".into(), "hmac(sha256)".into()] };
    let both = Cipher { others: vec!["cbc(aes)".into()], ..gcm(288, 128).unwrap() };
    for cipher in [gcm(160, 128), gcm(288, 64), gcm(256, 128), Some(cbc), Some(both), Some(Cipher::default())] {
        for at in [0, 1] {
            let (why, _) = exposed(|found| found.associations[at].cipher = cipher.clone());
            assert_eq!(why, Why::Weak, "{cipher:?}");
        }
        // Nor may there be one beside a good one.
        let weak = State { cipher, ..state("10.9.0.2", "10.9.0.1", 0x3001) };
        assert_eq!(exposed(|found| found.associations.push(weak)).0, Why::Weak);
    }
    let null = Cipher { aead: None, others: vec!["digest_null".into(), "ecb(cipher_null)".into()] };
    let (_, said) = exposed(|found| found.associations[0].cipher = Some(null));
    assert_eq!(
        said,
        "the security association 10.9.0.2 → 10.9.0.1 (SPI 0x00001001), which 10.10.1.1 → 10.10.2.1 may go through, encrypts \
         with digest_null and ecb(cipher_null), which is not AES-256-GCM"
    );
}

#[test]
fn transport_mode_protects_between_the_very_addresses() {
    let template = || Template { mode: Mode::Transport, ..tunnel("0.0.0.0", "0.0.0.0") };
    let between = |source, destination, spi| State { mode: Mode::Transport, ..state(source, destination, spi) };
    let list = vec![
        policy(Direction::Out, 1, selector("0.0.0.0/0", "10.10.2.1/32"), vec![template()]),
        policy(Direction::In, 1, selector("10.10.2.1/32", "0.0.0.0/0"), vec![template()]),
    ];
    let associations = vec![between("10.10.1.1", "10.10.2.1", 1), between("10.10.2.1", "10.10.1.1", 2)];
    let mut databases = Databases { policies: Policies { list, ..Policies::default() }, associations };
    let found = check(&flow(), &databases).unwrap();
    assert_eq!(found.to_string(), "ESP transport 10.10.1.1 → 10.10.2.1, AES-256-GCM");
    databases.associations[1].destination = ip("10.10.1.2");
    assert_eq!(check(&flow(), &databases).unwrap_err().why, Why::NoAssociation);
}

#[test]
fn a_tunnel_of_another_family_protects_too() {
    let protection = protected(|found| {
        found.policies.list[0].templates = vec![tunnel("fd00::2", "fd00::1")];
        found.policies.list[1].templates = vec![tunnel("fd00::1", "fd00::2")];
        found.associations = vec![state("fd00::2", "fd00::1", 1), state("fd00::1", "fd00::2", 2)];
    });
    assert_eq!(protection.to_string(), "ESP tunnel fd00::2 → fd00::1, AES-256-GCM");
}
