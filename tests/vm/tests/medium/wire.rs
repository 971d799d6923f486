//! What went over a wire: frames, by what they are.

use std::collections::BTreeMap;

use vm::Frame;

/// What is on the wire between a machine that uses the VCN and its gateway, and nothing else: the written list of exceptions.
///
/// ARP, since IPv4 needs it before any packet; IKE, which protects itself; ESP. Where IPv6 is used: neighbour discovery. Where it is
/// configured: DHCP, and DNS.
pub const EXPECTED: [&str; 3] = ["ARP", "IKE", "ESP"];

/// How many frames of each kind there were.
pub fn kinds(frames: &[Frame]) -> BTreeMap<&'static str, usize> {
    frames.iter().fold(BTreeMap::new(), |mut kinds, frame| {
        *kinds.entry(kind(&frame.bytes)).or_default() += 1;
        kinds
    })
}

/// What a frame is; "IN THE CLEAR" is everything that must never be. In a VLAN or not.
pub fn kind(frame: &[u8]) -> &'static str {
    if frame.get(12..14) == Some(&[0x81, 0x00]) {
        return kind(&[&frame[..12], frame.get(16..).unwrap_or_default()].concat());
    }
    let Some(kind) = frame.get(12..14) else { return "RUNT" };
    match kind {
        [0x08, 0x06] => "ARP",
        [0x08, 0x00] => {
            internet(frame.get(23).copied(), frame.get(14).map(|first| 14 + usize::from(first & 0xf) * 4), frame)
        }
        [0x86, 0xdd] => match (frame.get(20), frame.get(54)) {
            (Some(58), Some(133..=137)) => "ND",
            // Multicast listener reports, behind a hop-by-hop header.
            (Some(0), _) if frame.get(54) == Some(&58) => "MLD",
            (Some(next), _) => internet(Some(*next), Some(54), frame),
            _ => "RUNT",
        },
        _ => "IN THE CLEAR",
    }
}

fn internet(protocol: Option<u8>, payload: Option<usize>, frame: &[u8]) -> &'static str {
    let port = |at: usize| {
        let at = payload? + at;
        Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
    };
    match (protocol, port(0), port(2)) {
        (Some(50), ..) => "ESP",
        (Some(17), Some(500 | 4500), Some(500 | 4500)) => "IKE",
        (Some(17), Some(67 | 68), Some(67 | 68)) => "DHCP",
        (Some(17 | 6), Some(53), _) | (Some(17 | 6), _, Some(53)) => "DNS",
        _ => "IN THE CLEAR",
    }
}

#[test]
fn frames_are_known_by_their_headers() {
    let frame = |kind: [u8; 2], protocol: u8, ports: [u16; 2]| {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&kind);
        frame[14] = 0x45;
        frame[23] = protocol;
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        frame
    };
    let v4 = [0x08, 0x00];
    assert_eq!(kind(&frame([0x08, 0x06], 0, [0, 0])), "ARP");
    assert_eq!(kind(&frame(v4, 50, [0, 0])), "ESP");
    assert_eq!(kind(&frame(v4, 17, [500, 500])), "IKE");
    assert_eq!(kind(&frame(v4, 17, [68, 67])), "DHCP");
    assert_eq!(kind(&frame(v4, 6, [40000, 80])), "IN THE CLEAR");
    assert_eq!(kind(&frame(v4, 1, [0, 0])), "IN THE CLEAR");
    assert_eq!(kind(&[0; 5]), "RUNT");
    let clear = frame(v4, 6, [40000, 80]);
    assert_eq!(kind(&[&clear[..12], &[0x81, 0x00, 0, 17], &clear[12..]].concat()), "IN THE CLEAR");
    assert_eq!(kind(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0x00]), "RUNT");
}
