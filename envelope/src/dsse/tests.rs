//! What only the inside can see: the bytes under the signature.

use super::*;

/// The test vector of DSSE's protocol.md.
#[test]
fn pae_is_that_of_the_specification() {
    let (message, at) = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(&message[at..], b"hello world");
}

#[test]
fn pae_counts_bytes_and_takes_an_empty_payload() {
    assert_eq!(pae("é", "ü".as_bytes()).0, "DSSEv1 2 é 2 ü".as_bytes());
    assert_eq!(pae("", b"").0, b"DSSEv1 0  0 ");
}

#[test]
fn the_largest_payload_with_all_signatures_fits() {
    let signature = serde_json::json!({ "keyid": "0".repeat(64), "sig": STANDARD.encode([0; 64]) });
    let rest = 1024 + MAX_SIGNATURES * (signature.to_string().len() + 1);
    assert!(MAX_PAYLOAD.div_ceil(3) * 4 + rest <= MAX_ENVELOPE);
}
