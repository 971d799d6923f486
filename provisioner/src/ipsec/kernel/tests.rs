//! Messages as the kernel lays them out, built field by field in this machine's byte order, and read.

use proptest::prelude::*;

use super::netlink::messages;
use super::policy::{Action, Direction, Mode, Selector};
use super::*;

/// `struct xfrm_selector` of 10.10.1.1/32 → 10.10.2.0/24, TCP to port 8080.
fn selector() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend([10, 10, 2, 0]);
    bytes.extend([0; 12]);
    bytes.extend([10, 10, 1, 1]);
    bytes.extend([0; 12]);
    bytes.extend([0x1f, 0x90, 0xff, 0xff]); // dport, dport_mask: network order
    bytes.extend([0; 4]); // sport, sport_mask
    bytes.extend(2u16.to_ne_bytes()); // family
    bytes.extend([24, 32, 6, 0, 0, 0]); // prefixlen_d, prefixlen_s, proto, padding
    bytes.extend(3i32.to_ne_bytes()); // ifindex
    bytes.extend([0; 4]); // user
    assert_eq!(bytes.len(), 56);
    bytes
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + content.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn lifetimes() -> Vec<u8> {
    let mut bytes = vec![0xff; 32];
    bytes.extend([0; 64]);
    bytes
}

/// `struct xfrm_userpolicy_info`, and attributes.
fn policy() -> Vec<u8> {
    let mut bytes = selector();
    bytes.extend(lifetimes());
    bytes.extend(371_327u32.to_ne_bytes()); // priority
    bytes.extend(9u32.to_ne_bytes()); // index
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]); // dir, action, flags, share, padding
    assert_eq!(bytes.len(), 168);
    bytes.extend(attribute(5, &template()));
    bytes.extend(attribute(16, &[0, 0, 0, 0, 0, 0]));
    bytes.extend(attribute(21, &[7u32.to_ne_bytes(), 0xffu32.to_ne_bytes()].concat()));
    bytes.extend(attribute(31, &5u32.to_ne_bytes()));
    bytes.extend(attribute(0x8000 | 99, &[1, 2, 3]));
    bytes
}

/// `struct xfrm_user_tmpl`: a tunnel 10.9.0.2 → 10.9.0.1.
fn template() -> Vec<u8> {
    let mut bytes = vec![10, 9, 0, 1];
    bytes.extend([0; 12]);
    bytes.extend(0xc0de_0001_u32.to_be_bytes()); // spi
    bytes.extend([50, 0, 0, 0]); // proto, padding
    bytes.extend(2u16.to_ne_bytes()); // family
    bytes.extend([0; 2]);
    bytes.extend([10, 9, 0, 2]);
    bytes.extend([0; 12]);
    bytes.extend(7u32.to_ne_bytes()); // reqid
    bytes.extend([1, 0, 1, 0]); // mode, share, optional, padding
    bytes.extend([0xff; 12]); // aalgos, ealgos, calgos
    assert_eq!(bytes.len(), 64);
    bytes
}

/// `struct xfrm_usersa_info`, and attributes.
fn state() -> Vec<u8> {
    let mut bytes = vec![0; 56]; // sel: everything
    bytes.extend([0xfd; 16]); // id.daddr
    bytes.extend(0x0000_1001_u32.to_be_bytes());
    bytes.extend([50, 0, 0, 0]);
    bytes.extend([0xfe; 16]); // saddr
    bytes.extend(lifetimes());
    bytes.extend([0; 12]); // stats
    bytes.extend(0u32.to_ne_bytes()); // seq
    bytes.extend(7u32.to_ne_bytes()); // reqid
    bytes.extend(10u16.to_ne_bytes()); // family
    bytes.extend([1, 32, 8, 0, 0, 0, 0, 0, 0, 0]); // mode, replay_window, flags, padding
    bytes.truncate(224);
    assert_eq!(bytes.len(), 224);
    bytes.extend(attribute(18, &algorithm("rfc4106(gcm(aes))", &[288, 128], 36)));
    bytes
}

/// `struct xfrm_algo`, `xfrm_algo_auth`, `xfrm_algo_aead`.
fn algorithm(name: &str, numbers: &[u32], key: usize) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(64, 0);
    bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.extend(vec![0x55; key]);
    bytes
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(2u16.to_ne_bytes()); // flags
    bytes.extend(1u32.to_ne_bytes()); // sequence
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn a_policy_is_read_as_the_kernel_lays_it_out() {
    let read = Policy::read(&policy()).unwrap().unwrap();
    let Selector { source, destination, source_port, destination_port, protocol, interface } = read.selector;
    assert_eq!((source.to_string(), destination.to_string()), ("10.10.1.1/32".into(), "10.10.2.0/24".into()));
    assert_eq!((source_port, destination_port, protocol, interface), ((0, 0), (8080, 0xffff), 6, 3));
    assert_eq!((read.direction, read.action, read.priority), (Direction::Out, Action::Allow, 371_327));
    assert_eq!((read.mark, read.interface_id, read.main, read.labelled), ((7, 0xff), 5, true, false));
    let [template] = &read.templates[..] else { panic!("{read:?}") };
    assert_eq!((template.source.to_string(), template.destination.to_string()), ("10.9.0.2".into(), "10.9.0.1".into()));
    assert_eq!((template.spi, template.protocol, template.reqid), (0xc0de_0001, 50, 7));
    assert_eq!((template.mode, template.optional), (Mode::Tunnel, true));
}

#[test]
fn a_security_association_is_read_and_its_key_is_not() {
    let read = State::read(&state()).unwrap().unwrap();
    let six = |byte: u8| std::net::IpAddr::from([byte; 16]);
    assert_eq!((read.source, read.destination), (six(0xfe), six(0xfd)));
    assert_eq!((read.spi, read.protocol, read.reqid, read.mode), (0x1001, 50, 7, Mode::Tunnel));
    assert_eq!((read.selector, read.receives_only), (None, true));
    assert!(read.cipher.unwrap().is_aes_256_gcm());
    let mut older = state()[..224].to_vec();
    assert_eq!(State::read(&older).unwrap().unwrap().cipher, None);
    older.extend(attribute(1, &algorithm("hmac(sha256)", &[256], 32)));
    older.extend(attribute(20, &algorithm("hmac(sha256)", &[256, 128], 32)));
    older.extend(attribute(2, &algorithm("cbc(aes)", &[256], 32)));
    assert_eq!(State::read(&older).unwrap().unwrap().cipher.unwrap().to_string(), "hmac(sha256) and cbc(aes)");
}

#[test]
fn other_families_are_left_out_and_nonsense_is_refused() {
    let mut other = policy();
    other[40..42].copy_from_slice(&0u16.to_ne_bytes());
    assert_eq!(Policy::read(&other), Some(None));
    other[40..42].copy_from_slice(&99u16.to_ne_bytes());
    assert_eq!(Policy::read(&other), None);
    let mut long = policy();
    long[42] = 33;
    assert_eq!(Policy::read(&long), None);
    let mut odd = policy()[..168].to_vec();
    odd.extend(attribute(5, &template()[..60]));
    assert_eq!(Policy::read(&odd), None);
    let mut longer = policy()[..168].to_vec();
    longer.extend([200, 200, 5, 5]);
    assert_eq!(Policy::read(&longer), None);
}

#[test]
fn a_message_cut_short_reads_as_nothing_or_as_one_with_less() {
    for len in 0..168 {
        assert_eq!(Policy::read(&policy()[..len]), None);
    }
    for len in 0..224 {
        assert_eq!(State::read(&state()[..len]), None);
    }
}

#[test]
fn pieces_are_cut_into_messages() {
    let piece = [message(0x13, &policy()), message(3, &[0; 4])].concat();
    let found: Vec<_> =
        messages(&piece).map(|message| message.map(|message| (message.kind, message.body.len()))).collect();
    assert_eq!(found, [Some((0x13, policy().len())), Some((3, 4))]);
    let short: Vec<_> = messages(&piece[..piece.len() - 2]).map(|message| message.is_some()).collect();
    assert_eq!(short, [true, false]);
    assert_eq!(messages(&[0; 40]).collect::<Vec<_>>(), [None]);
}

#[test]
fn what_becomes_of_other_packets_is_read() {
    let blocked = Unmatched { inward: Action::Block, outward: Action::Block };
    assert_eq!(Unmatched::read(&[1, 1, 1]), Some(blocked));
    assert_eq!(Unmatched::read(&[2, 1, 2]), Some(Unmatched::default()));
    assert_eq!(Unmatched::read(&[1, 1]), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = (Policy::read(&bytes), State::read(&bytes), Unmatched::read(&bytes));
        prop_assert!(messages(&bytes).count() <= bytes.len());
    }

    #[test]
    fn no_changed_byte_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        for whole in [policy(), state(), message(0x13, &policy())] {
            let mut changed = whole.clone();
            changed[at.index(whole.len())] = value;
            changed.truncate(cut.index(whole.len() + 1));
            let _ = (Policy::read(&changed), State::read(&changed));
            let _ = messages(&changed).count();
        }
    }
}
