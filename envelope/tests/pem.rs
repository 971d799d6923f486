//! Wrong key files are refused with a message that says what they are.

// clippy's allowance for tests does not reach helper functions of integration tests.
#![allow(clippy::unwrap_used)]

use envelope::{Error, MAX_PEM, PublicKey, SecretKey};

const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

fn public(pem: &str) -> Error {
    PublicKey::from_pem(pem.as_bytes()).unwrap_err()
}

fn secret(pem: &str) -> Error {
    SecretKey::from_pem(pem.as_bytes()).unwrap_err()
}

#[test]
fn the_wrong_section_is_named_with_a_remedy() {
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert_eq!(
        public(certificate).to_string(),
        "expected a PEM section \"PUBLIC KEY\", found \"CERTIFICATE\"; \
         take the key out of the certificate with `openssl x509 -in CERT -pubkey -noout`"
    );
    assert!(public(PRIVATE).to_string().contains("found \"PRIVATE KEY\"; give the public half"));
    assert!(secret(PUBLIC).to_string().contains("found \"PUBLIC KEY\"; this is the public half"));
    let rsa = "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----\n";
    assert!(public(rsa).to_string().contains("found \"RSA PUBLIC KEY\"; make an Ed25519 key"));
    let openssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nMAA=\n-----END OPENSSH PRIVATE KEY-----\n";
    assert!(secret(openssh).to_string().contains("found \"OPENSSH PRIVATE KEY\""));
}

#[test]
fn no_section_or_several_are_refused() {
    assert!(matches!(public(""), Error::NoPemSection { .. }));
    assert!(matches!(public("ssh-ed25519 AAAA me@here"), Error::NoPemSection { .. }));
    assert!(matches!(public(&PUBLIC.repeat(2)), Error::ManyPemSections { found: 2, .. }));
    // A private key that somebody put beside the public one is not silently stepped over either.
    assert!(matches!(public(&format!("{PUBLIC}{PRIVATE}")), Error::ManyPemSections { found: 2, .. }));
    // A section that starts within another one would lend it its label.
    let nested = PUBLIC.replacen('\n', "\n-----BEGIN CERTIFICATE-----\n", 1);
    assert!(matches!(public(&nested), Error::ManyPemSections { found: 2, .. }));
}

#[test]
fn text_around_the_section_and_windows_line_ends_are_fine() {
    let expected = PublicKey::from_pem(PUBLIC.as_bytes()).unwrap();
    let wordy = format!("The key of the image builder\n\n{PUBLIC}\nthat was it\n");
    assert_eq!(PublicKey::from_pem(wordy.as_bytes()).unwrap(), expected);
    let windows = PRIVATE.replace('\n', "\r\n");
    assert_eq!(SecretKey::from_pem(windows.as_bytes()).unwrap().public(), expected);
}

#[test]
fn damaged_keys_are_refused() {
    let damaged = |pem: &str, from: &str, to: &str| {
        assert!(pem.contains(from), "nothing would be damaged");
        pem.replace(from, to)
    };
    assert!(matches!(public(&damaged(PUBLIC, "-----END", "END")), Error::Pem { .. }));
    assert!(matches!(public(&damaged(PUBLIC, "MCow", "M*ow")), Error::Pem { .. }));
    assert!(matches!(public(&damaged(PUBLIC, "ZuE=", "Z")), Error::Pem { .. }));
    assert!(matches!(public(&damaged(PUBLIC, "ZuE=", "")), Error::BadKey { kind: "public", .. }));
    assert!(matches!(secret(&damaged(PRIVATE, "dVhC", "")), Error::BadKey { kind: "private", .. }));
    let empty = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n";
    assert!(matches!(secret(empty), Error::BadKey { kind: "private", .. }));
    let big = " ".repeat(MAX_PEM + 1);
    assert!(matches!(public(&big), Error::PemTooLarge { size, .. } if size == MAX_PEM + 1));
}

/// A key pasted onto one line must not come back in the error message, which ends in a log.
#[test]
fn key_material_stays_out_of_messages() {
    for pem in [PRIVATE.replacen('\n', "", 1), PRIVATE.replace('\n', " "), PRIVATE.replace('\n', "")] {
        let error = secret(&pem);
        assert!(matches!(error, Error::BadPemLine { line: 1, .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("MC4C"), "{error:?}");
    }
}
