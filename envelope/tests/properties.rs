//! Properties that hold for all inputs.

// clippy's allowance for tests does not reach helper functions of integration tests.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelope::{Error, PublicKey, Role, SecretKey, Trust, add_signature, open, peek, sign};
use proptest::collection::vec;
use proptest::prelude::*;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Image), Just(Role::Ticket)]
}

fn key(seed: u8) -> SecretKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    SecretKey::from_pem(pem("PRIVATE KEY", &der).as_bytes()).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Reads `bytes` in every way there is. What comes out does not matter, that it comes back does.
fn read_all_ways(bytes: &[u8]) {
    let secret = key(1);
    let trust = Trust::new(vec![secret.public()], 1).unwrap();
    for role in [Role::Image, Role::Ticket] {
        let _ = open(bytes, role, &trust).map_err(|error| error.to_string());
        let _ = peek(bytes, role).map_err(|error| error.to_string());
        let _ = add_signature(bytes, role, &secret).map_err(|error| error.to_string());
    }
    let _ = PublicKey::from_pem(bytes).map_err(|error| error.to_string());
    let _ = SecretKey::from_pem(bytes).map_err(|error| error.to_string());
}

proptest! {
    #[test]
    fn what_is_signed_is_what_is_opened(
        payload in vec(any::<u8>(), 0..2000),
        role in role(),
        signers in 1..5u8,
        others in 0..3u8,
    ) {
        let mut envelope = sign(role, &payload, &key(0));
        for signer in 1..signers {
            envelope = add_signature(&envelope, role, &key(signer)).unwrap();
        }
        let trusted = (0..signers + others).map(|n| key(n).public()).collect::<Vec<_>>();
        let trust = |threshold: u8| Trust::new(trusted.clone(), threshold.into()).unwrap();
        let opened = open(&envelope, role, &trust(signers)).unwrap();
        prop_assert_eq!(opened.payload(), &payload[..]);
        prop_assert_eq!(opened.signers().len(), usize::from(signers));
        prop_assert_eq!(opened.into_payload(), &payload[..]);
        let seen = peek(&envelope, role).unwrap();
        prop_assert_eq!(seen.payload_unverified(), &payload[..]);
        if others > 0 {
            let error = open(&envelope, role, &trust(signers + 1)).unwrap_err();
            let too_few = matches!(error, Error::NotEnoughSignatures { valid, .. } if valid == usize::from(signers));
            prop_assert!(too_few);
        }
    }

    #[test]
    fn keys_survive_their_pem(seed in any::<u8>()) {
        let key = key(seed);
        prop_assert_eq!(SecretKey::from_pem(key.to_pem().as_bytes()).unwrap().public(), key.public());
        prop_assert_eq!(PublicKey::from_pem(key.public().to_pem().as_bytes()).unwrap(), key.public());
        prop_assert_eq!(key.public().id().to_string().parse::<envelope::KeyId>().unwrap(), key.public().id());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all_ways(&bytes);
    }

    #[test]
    fn no_damaged_envelope_panics_or_lies(
        edits in vec((any::<prop::sample::Index>(), vec(any::<u8>(), 0..4), 0..8usize), 1..4),
    ) {
        let secret = key(1);
        let mut envelope = sign(Role::Image, b"payload", &secret);
        for (at, insert, remove) in edits {
            let at = at.index(envelope.len() + 1);
            let end = (at + remove).min(envelope.len());
            envelope.splice(at..end, insert);
        }
        read_all_ways(&envelope);
        let trust = Trust::new(vec![secret.public()], 1).unwrap();
        if let Ok(opened) = open(&envelope, Role::Image, &trust) {
            prop_assert_eq!(opened.payload(), b"payload");
        }
    }

    #[test]
    fn no_json_panics(text in r#"\{("(payload|payloadType|signatures|keyid|sig)":("[A-Za-z0-9+/=_-]{0,8}"|null|1e9|\[\{?|\}?\]|\{),?){0,6}\}?"#) {
        read_all_ways(text.as_bytes());
    }

    #[test]
    fn no_der_panics(
        label in prop_oneof![Just("PUBLIC KEY"), Just("PRIVATE KEY"), Just("ENCRYPTED PRIVATE KEY"), Just("")],
        der in vec(any::<u8>(), 0..150),
    ) {
        read_all_ways(pem(label, &der).as_bytes());
    }

    /// Damage to a key's file is refused, or gives a key that is written and read again as itself.
    #[test]
    fn a_damaged_key_file_is_refused_or_is_another_key(
        edits in vec((any::<prop::sample::Index>(), vec(any::<u8>(), 0..4), 0..8usize), 1..3),
    ) {
        let key = key(1);
        for text in [key.to_pem().to_string(), key.public().to_pem()] {
            let mut text = text.into_bytes();
            for (at, insert, remove) in &edits {
                let at = at.index(text.len() + 1);
                let end = (at + remove).min(text.len());
                text.splice(at..end, insert.iter().copied());
            }
            if let Ok(found) = SecretKey::from_pem(&text) {
                let again = SecretKey::from_pem(found.to_pem().as_bytes()).unwrap();
                prop_assert_eq!(again.public(), found.public());
            }
            if let Ok(found) = PublicKey::from_pem(&text) {
                prop_assert_eq!(PublicKey::from_pem(found.to_pem().as_bytes()).unwrap(), found);
            }
        }
    }

    /// Damage to a real key: lengths that lie are where DER readers run out of bounds.
    #[test]
    fn no_damaged_der_panics(at in 0..48usize, byte in any::<u8>(), len in 0..=48usize) {
        let text = key(1).to_pem();
        let mut der = STANDARD.decode(text.lines().nth(1).unwrap()).unwrap();
        der[at] = byte;
        read_all_ways(pem("PRIVATE KEY", &der[..len]).as_bytes());
        read_all_ways(pem("PUBLIC KEY", &der[..len]).as_bytes());
    }
}

/// Every single bit, not a sample: there are few enough.
#[test]
fn a_flipped_bit_never_opens_another_payload() {
    let (a, b) = (key(1), key(2));
    let envelope = add_signature(&sign(Role::Image, b"payload", &a), Role::Image, &b).unwrap();
    let both = Trust::new(vec![a.public(), b.public()], 2).unwrap();
    let mut opened = 0;
    for bit in 0..envelope.len() * 8 {
        let mut flipped = envelope.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(flipped) = open(&flipped, Role::Image, &both) {
            assert_eq!(flipped.payload(), b"payload", "bit {bit}");
            opened += 1;
        }
    }
    // Flips within the two key ids do no harm, as they are hints: at least these must still open.
    assert!(opened > 2 * 64 * 3, "only {opened} opened, is this test looking at anything?");
}
