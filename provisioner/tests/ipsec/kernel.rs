//! What `ip xfrm` sets is what is read.

use provisioner::ipsec::flow::{self, Flow, Why};
use provisioner::ipsec::kernel::{self, policy::Action};

use crate::in_a_namespace;

fn flow(local: &str, peer: &str) -> Flow {
    Flow { local: local.parse().unwrap(), local_port: Some(40000), peer: peer.parse().unwrap() }
}

#[test]
fn policies_are_found_as_they_were_set() {
    let set_up = "
        ip xfrm policy add src 10.10.1.1/32 dst 10.10.2.0/24 dir out priority 100 \
            tmpl src 10.9.0.2 dst 10.9.0.1 proto esp reqid 7 mode tunnel
        ip xfrm policy add src 10.10.2.0/24 dst 10.10.1.1/32 dir in priority 100 \
            tmpl src 10.9.0.1 dst 10.9.0.2 proto esp reqid 7 mode tunnel
        ip xfrm policy add src 10.10.1.1/32 dst 10.10.2.9/32 dir out priority 5
        ip xfrm policy add src fd00::/8 dst fd01::/16 proto udp dport 53 dir out priority 6 action block mark 1 mask 3
        ip xfrm policy setdefault in block fwd block out block";
    if !in_a_namespace("kernel::policies_are_found_as_they_were_set", set_up) {
        return;
    }
    let found = kernel::dump().unwrap();
    assert_eq!(found.policies.list.len(), 4);
    assert_eq!((found.policies.unmatched.inward, found.policies.unmatched.outward), (Action::Block, Action::Block));
    let six = found.policies.list.iter().find(|policy| policy.priority == 6).unwrap();
    assert_eq!(six.selector.destination.to_string(), "fd01::/16");
    assert_eq!((six.selector.protocol, six.selector.destination_port, six.mark), (17, (53, 0xffff), (1, 3)));
    assert_eq!(six.action, Action::Block);
    let why = |local, peer| flow::check(&flow(local, peer), &found).unwrap_err();
    let missing = why("10.10.1.1", "10.10.2.1:80");
    assert_eq!(missing.why, Why::NoAssociation);
    assert!(missing.message.contains("the ESP tunnel 10.9.0.2 → 10.9.0.1 (reqid 7)"), "{}", missing.message);
    assert_eq!(why("10.10.1.1", "10.10.2.9:80").why, Why::Unprotected);
    assert_eq!(why("10.9.0.2", "10.10.2.1:80").why, Why::NotYet);
}

#[test]
fn many_policies_come_in_several_pieces() {
    let set_up = "for net in $(seq 0 999); do
            echo xfrm policy add src 10.$((net / 250)).$((net % 250)).0/24 dst 10.9.0.0/16 dir out priority $net \
                tmpl src 10.9.0.2 dst 10.9.0.1 proto esp reqid 7 mode tunnel
        done | ip -batch -";
    if in_a_namespace("kernel::many_policies_come_in_several_pieces", set_up) {
        let found = kernel::dump().unwrap().policies;
        assert_eq!(found.list.len(), 1000);
        assert_eq!(found.list.iter().map(|policy| policy.priority).sum::<u32>(), 999 * 500);
        assert_eq!(found.unmatched.outward, Action::Allow);
    }
}

#[test]
fn without_the_right_to_ask_the_remedy_is_named() {
    let test = "kernel::without_the_right_to_ask_the_remedy_is_named";
    let drop_it = format!("exec setpriv --bounding-set -net_admin \"$0\" --exact {test} --nocapture");
    if in_a_namespace(test, &drop_it) {
        let error = kernel::dump().unwrap_err();
        assert!(error.hint().unwrap().contains("CAP_NET_ADMIN"), "{error}");
        assert_eq!(error.kind().exit_code(), 5);
    }
}
