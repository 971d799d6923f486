//! Envelopes: nothing is opened that was not signed, whatever the bytes.

use std::collections::HashSet;

use envelope::{MAX_SIGNATURES, Role, add_signature, open, peek};

use crate::keys;

/// All that the known keys have ever signed, and as what.
pub const SIGNED: [(Role, &[u8]); 4] = [
    (Role::Image, b"payload"),
    (Role::Image, b""),
    (Role::Image, include_bytes!("../../corpus/descriptor/packed.json")),
    (Role::Ticket, b"payload"),
];

/// Opens the bytes as an envelope of either role, for either threshold.
pub fn envelope(data: &[u8]) -> bool {
    let mut accepted = false;
    for role in [Role::Image, Role::Ticket] {
        for threshold in [1, 2] {
            accepted |= opened_means_signed(data, role, threshold);
        }
        if peek(data, role).is_ok_and(|seen| seen.signature_count() < MAX_SIGNATURES) {
            one_more_signature_counts(data, role);
        }
    }
    accepted
}

fn opened_means_signed(data: &[u8], role: Role, threshold: usize) -> bool {
    match open(data, role, &keys::trust(threshold)) {
        Ok(opened) => {
            let payload = opened.payload();
            assert!(SIGNED.contains(&(role, payload)), "opened what nobody signed: {payload:?}");
            let signers: HashSet<_> = opened.signers().iter().collect();
            assert_eq!(signers.len(), opened.signers().len(), "a signer counts twice");
            assert!(signers.len() >= threshold);
            let seen = peek(data, role).expect("what opens can be looked at");
            assert_eq!(seen.payload_unverified(), payload);
            true
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.chars().any(char::is_control), "not fit for a terminal: {said:?}");
            false
        }
    }
}

fn one_more_signature_counts(data: &[u8], role: Role) {
    let before = peek(data, role).expect("looked at before");
    // A key that has signed already is an error, an envelope that would be too large as well.
    let Ok(signed) = add_signature(data, role, keys::second()) else { return };
    let opened = open(&signed, role, &keys::trust(1)).expect("a good signature was added");
    assert_eq!(opened.payload(), before.payload_unverified());
    assert!(opened.signers().contains(&keys::second().public().id()));
}
