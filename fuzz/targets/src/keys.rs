//! Keys that everybody knows: the secret keys of tests 1 and 2 in RFC 8032, 7.1. Never trust them anywhere else.

use std::sync::OnceLock;

use envelope::{SecretKey, Trust};

const FIRST: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const SECOND: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7
-----END PRIVATE KEY-----
";

/// The key that signs the samples.
///
/// # Panics
/// Never: it is a good key.
pub fn first() -> &'static SecretKey {
    static KEY: OnceLock<SecretKey> = OnceLock::new();
    KEY.get_or_init(|| SecretKey::from_pem(FIRST.as_bytes()).expect("a key"))
}

/// The key that signs some of them as well.
///
/// # Panics
/// Never: it is a good key.
pub fn second() -> &'static SecretKey {
    static KEY: OnceLock<SecretKey> = OnceLock::new();
    KEY.get_or_init(|| SecretKey::from_pem(SECOND.as_bytes()).expect("a key"))
}

/// Trust in both, of whom so many must have signed.
///
/// # Panics
/// When more than two must.
pub fn trust(threshold: usize) -> Trust {
    Trust::new(vec![first().public(), second().public()], threshold).expect("a threshold of one or two")
}
