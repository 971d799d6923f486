//! Keys and signatures go back and forth between this crate and the `openssl` command.

// clippy's allowance for tests does not reach helper functions of integration tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use envelope::{Error, PublicKey, Role, SecretKey, Trust, open, sign};
use tempfile::TempDir;

fn run(dir: &Path, args: &str) -> Output {
    Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("these tests need the `openssl` command (3.0 or later) in PATH: {error}"))
}

fn openssl(dir: &Path, args: &str) -> Vec<u8> {
    let output = run(dir, args);
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A directory with `key.pem` and `key.pub` as openssl makes them.
fn openssl_key() -> (TempDir, SecretKey, PublicKey) {
    let dir = TempDir::new().unwrap();
    openssl(dir.path(), "genpkey -algorithm ed25519 -out key.pem");
    openssl(dir.path(), "pkey -in key.pem -pubout -out key.pub");
    let secret = SecretKey::from_pem(&fs::read(dir.path().join("key.pem")).unwrap()).unwrap();
    let public = PublicKey::from_pem(&fs::read(dir.path().join("key.pub")).unwrap()).unwrap();
    (dir, secret, public)
}

/// Written a second time, from the specification, so that a mistake in the crate's own cannot hide.
fn pae(role: Role, payload: &[u8]) -> Vec<u8> {
    let payload_type = role.payload_type();
    let mut message = b"DSSEv1".to_vec();
    for part in [payload_type.as_bytes(), payload] {
        message.extend_from_slice(format!(" {} ", part.len()).as_bytes());
        message.extend_from_slice(part);
    }
    message
}

#[test]
fn keys_by_openssl_are_read_and_written_back_byte_for_byte() {
    let (dir, secret, public) = openssl_key();
    assert_eq!(secret.public(), public);
    assert_eq!(fs::read_to_string(dir.path().join("key.pem")).unwrap(), *secret.to_pem());
    assert_eq!(fs::read_to_string(dir.path().join("key.pub")).unwrap(), public.to_pem());
}

#[test]
fn our_keys_are_read_by_openssl() {
    let dir = TempDir::new().unwrap();
    let key = SecretKey::generate().unwrap();
    fs::write(dir.path().join("key.pem"), key.to_pem().as_bytes()).unwrap();
    fs::write(dir.path().join("key.pub"), key.public().to_pem()).unwrap();
    let rewritten = openssl(dir.path(), "pkey -in key.pem");
    assert_eq!(String::from_utf8(rewritten).unwrap(), *key.to_pem());
    let derived = openssl(dir.path(), "pkey -in key.pem -pubout");
    assert_eq!(String::from_utf8(derived).unwrap(), key.public().to_pem());
    openssl(dir.path(), "pkey -pubin -in key.pub -noout");
}

#[test]
fn a_key_id_is_what_openssl_and_sha256_give() {
    let (dir, _, public) = openssl_key();
    openssl(dir.path(), "pkey -pubin -in key.pub -outform DER -out key.der");
    let line = String::from_utf8(openssl(dir.path(), "dgst -sha256 -r key.der")).unwrap();
    assert_eq!(line.split(' ').next().unwrap(), public.id().to_string());
}

#[test]
fn our_signature_is_verified_by_openssl() {
    let (dir, secret, public) = openssl_key();
    let payload = b"{\"run\":\"7\"}";
    let json: serde_json::Value = serde_json::from_slice(&sign(Role::Ticket, payload, &secret)).unwrap();
    assert_eq!(json["payloadType"], "application/vnd.z-provisioner.ticket.v1+json");
    assert_eq!(STANDARD.decode(json["payload"].as_str().unwrap()).unwrap(), payload);
    assert_eq!(json["signatures"][0]["keyid"], public.id().to_string());
    let signature = STANDARD.decode(json["signatures"][0]["sig"].as_str().unwrap()).unwrap();

    fs::write(dir.path().join("sig"), signature).unwrap();
    fs::write(dir.path().join("pae"), pae(Role::Ticket, payload)).unwrap();
    let verify = "pkeyutl -verify -pubin -inkey key.pub -rawin -in pae -sigfile sig";
    openssl(dir.path(), verify);
    fs::write(dir.path().join("pae"), pae(Role::Image, payload)).unwrap();
    assert!(!run(dir.path(), verify).status.success(), "the role must be under the signature");
}

#[test]
fn a_signature_by_openssl_is_accepted() {
    let (dir, _, public) = openssl_key();
    // Bytes whose base64 differs between the two alphabets.
    let payload = [0xfb, 0xff, 0xbe, 0x00, 0xff];
    fs::write(dir.path().join("pae"), pae(Role::Image, &payload)).unwrap();
    openssl(dir.path(), "pkeyutl -sign -inkey key.pem -rawin -in pae -out sig");
    let signature = fs::read(dir.path().join("sig")).unwrap();
    let trust = Trust::new(vec![public.clone()], 1).unwrap();
    for engine in [STANDARD, URL_SAFE] {
        let envelope = serde_json::json!({
            "payload": engine.encode(payload),
            "payloadType": Role::Image.payload_type(),
            "signatures": [{ "sig": engine.encode(&signature) }],
        });
        let opened = open(envelope.to_string().as_bytes(), Role::Image, &trust).unwrap();
        assert_eq!(opened.payload(), payload);
        assert_eq!(opened.signers(), [public.id()]);
    }
}

#[test]
fn other_algorithms_are_named() {
    let cases = [
        ("x25519", "an X25519 key"),
        ("ed448", "an Ed448 key"),
        ("x448", "an X448 key"),
        ("rsa -pkeyopt rsa_keygen_bits:4096", "an RSA key"),
        ("rsa-pss -pkeyopt rsa_keygen_bits:2048", "an RSA-PSS key"),
        ("ec -pkeyopt ec_paramgen_curve:P-256", "an elliptic curve key (ECDSA, ECDH)"),
    ];
    for (algorithm, name) in cases {
        let dir = TempDir::new().unwrap();
        openssl(dir.path(), &format!("genpkey -algorithm {algorithm} -out key.pem"));
        let secret = fs::read(dir.path().join("key.pem")).unwrap();
        let public = openssl(dir.path(), "pkey -in key.pem -pubout");
        for error in [SecretKey::from_pem(&secret).unwrap_err(), PublicKey::from_pem(&public).unwrap_err()] {
            assert!(matches!(error, Error::WrongAlgorithm { found } if found == name), "{error}");
        }
    }
}

#[test]
fn encrypted_keys_and_certificates_are_named() {
    let (dir, ..) = openssl_key();
    let encrypted = openssl(dir.path(), "pkey -in key.pem -aes256 -passout pass:secret");
    assert!(matches!(SecretKey::from_pem(&encrypted), Err(Error::EncryptedKey)));
    let certificate = openssl(dir.path(), "req -new -x509 -key key.pem -subj /CN=builder -days 1");
    let error = PublicKey::from_pem(&certificate).unwrap_err();
    assert!(matches!(&error, Error::WrongPemSection { found, .. } if found == "CERTIFICATE"));
}
