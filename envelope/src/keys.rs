//! Ed25519 keys and their PEM files: RFC 8410 (SPKI, PKCS#8), RFC 5958 (PKCS#8 v2), RFC 7468 (PEM).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use crate::Error;

/// The largest key file that is read, in bytes. An Ed25519 key takes about 120; the rest is room for comments.
pub const MAX_PEM: usize = 64 * 1024;

const PUBLIC: &str = "PUBLIC KEY";
const PRIVATE: &str = "PRIVATE KEY";

/// DER of a SubjectPublicKeyInfo up to the 32 key bytes. RFC 8410 leaves no choice in it, so it can be compared.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// DER of a PKCS#8 v1 key up to the 32 seed bytes.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const KEY_LEN: usize = 32;

/// Names a public key: the SHA-256 of its SubjectPublicKeyInfo in DER.
///
/// The same number as `openssl pkey -pubin -in KEY.pub -outform DER | sha256sum` prints. Written as 64 hexadecimal
/// digits, lower case; read in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 32]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = Error;

    /// # Errors
    /// [`Error::BadKeyId`] unless `text` is exactly 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadKeyId { found: text.to_owned() };
        // Digits one by one: `from_str_radix` would take a sign.
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(bad);
        if text.len() != 64 {
            return Err(bad());
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(id))
    }
}

/// An Ed25519 public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    raw: [u8; KEY_LEN],
    id: KeyId,
}

impl PublicKey {
    /// Reads a public key from the one PEM section `PUBLIC KEY` (SPKI) in `pem`. Text around it is ignored.
    ///
    /// # Errors
    /// Says which it is when the file holds no PEM section, several, a certificate, a private key, a key for
    /// another algorithm, damaged data, or a key for which anybody could forge signatures.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let der = section(pem, PUBLIC, SectionKind::PublicKey)?;
        let Some(raw) = der.strip_prefix(&SPKI_PREFIX) else {
            return Err(refused("public", &der, || "its DER does not start as RFC 8410 says".to_owned()));
        };
        let raw = <[u8; KEY_LEN]>::try_from(raw).map_err(|_| Error::BadKey {
            kind: "public",
            reason: format!("it has {} key bytes instead of {KEY_LEN}", raw.len()),
        })?;
        if is_small_order(&raw) {
            return Err(Error::WeakKey);
        }
        Ok(Self::from_raw(raw))
    }

    /// The key as a PEM section `PUBLIC KEY` (SPKI), the same text as `openssl pkey -pubout` writes.
    pub fn to_pem(&self) -> String {
        let base64 = STANDARD.encode(spki(&self.raw));
        format!("-----BEGIN {PUBLIC}-----\n{base64}\n-----END {PUBLIC}-----\n")
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `signature` is this key's over `message`. A signature of any other length than 64 bytes is not.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.raw).verify(message, signature).is_ok()
    }

    fn from_raw(raw: [u8; KEY_LEN]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &spki(&raw)).as_ref());
        Self { raw, id: KeyId(id) }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// An Ed25519 secret key. The seed is wiped when it is dropped, and is not shown by `Debug`.
pub struct SecretKey {
    // In a box, so that moving the key does not leave copies of the seed behind on the stack.
    seed: Box<Zeroizing<[u8; KEY_LEN]>>,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a new key from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Error::Random`] if the system gives none.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Box::new(Zeroizing::new([0; KEY_LEN]));
        SystemRandom::new().fill(&mut seed[..]).map_err(|_| Error::Random)?;
        Ok(Self::from_seed(seed))
    }

    /// Reads a secret key from the one PEM section `PRIVATE KEY` (unencrypted PKCS#8, version 1 or 2) in `pem`.
    /// Where version 2 carries the public key, it must belong to the secret one.
    ///
    /// # Errors
    /// Says which it is when the file holds no PEM section, several, a public or an encrypted key, a key for
    /// another algorithm, or damaged data.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let der = section(pem, PRIVATE, SectionKind::PrivateKey)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|rejected| refused("private", &der, || rejected.to_string()))?;

        // ring checks the DER but does not give the seed back. In DER that it accepts, nothing before the seed has
        // a variable length except the outermost length field; the comparison below proves that it was found.
        let length_field = match der.get(1) {
            Some(first @ 0x80..) => 1 + usize::from(first & 0x7f),
            _ => 1,
        };
        let start = PKCS8_PREFIX.len() - 1 + length_field;
        let bad =
            || Error::BadKey { kind: "private", reason: "its DER holds no seed where RFC 8410 puts it".to_owned() };
        let mut seed = Box::new(Zeroizing::new([0; KEY_LEN]));
        seed.copy_from_slice(der.get(start..start + KEY_LEN).ok_or_else(bad)?);
        let key = Self::from_seed(seed);
        if key.public.raw != pair.public_key().as_ref() {
            return Err(bad());
        }
        Ok(key)
    }

    /// The key as a PEM section `PRIVATE KEY` (PKCS#8 version 1), in the form `openssl genpkey` writes. Write it to
    /// a file that only its owner can read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; PKCS8_PREFIX.len() + KEY_LEN]);
        der[..PKCS8_PREFIX.len()].copy_from_slice(&PKCS8_PREFIX);
        der[PKCS8_PREFIX.len()..].copy_from_slice(&self.seed[..]);
        // Room for all of it (119 bytes) at once: a string that grows leaves its old contents on the heap.
        let mut pem = Zeroizing::new(String::with_capacity(256));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        STANDARD.encode_string(&der[..], &mut pem);
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        pem
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// The 64 bytes of the signature over `message`. Ed25519 is deterministic: same key, same message, same bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        expand(&self.seed).sign(message).as_ref().to_vec()
    }

    fn from_seed(seed: Box<Zeroizing<[u8; KEY_LEN]>>) -> Self {
        let mut raw = [0; KEY_LEN];
        raw.copy_from_slice(expand(&seed).public_key().as_ref());
        Self { seed, public: PublicKey::from_raw(raw) }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of public key {})", self.public.id)
    }
}

/// ring's form of the key. Made when needed rather than kept, because ring does not wipe it.
fn expand(seed: &[u8; KEY_LEN]) -> Ed25519KeyPair {
    match Ed25519KeyPair::from_seed_unchecked(seed) {
        Ok(pair) => pair,
        Err(_) => {
            unreachable!("ring takes any seed of {KEY_LEN} bytes, and the type says this is one")
        }
    }
}

fn spki(raw: &[u8; KEY_LEN]) -> [u8; SPKI_PREFIX.len() + KEY_LEN] {
    let mut der = [0; SPKI_PREFIX.len() + KEY_LEN];
    der[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    der[SPKI_PREFIX.len()..].copy_from_slice(raw);
    der
}

/// The decoded body of the one PEM section in `pem`, which must be labelled `expected`.
///
/// The decoder steps over sections it does not know, such as an encrypted key, and takes the first of several.
/// Both would end in a misleading message or in the wrong key, so the labels are looked at first.
fn section(pem: &[u8], expected: &'static str, kind: SectionKind) -> Result<Zeroizing<Vec<u8>>, Error> {
    if pem.len() > MAX_PEM {
        return Err(Error::PemTooLarge { size: pem.len(), max: MAX_PEM });
    }
    let mut labels = Vec::new();
    for (index, line) in pem.split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
        if let Some(rest) = line.strip_prefix(b"-----BEGIN ") {
            labels.push(label(rest).ok_or(Error::BadPemLine { expected, line: index + 1 })?);
        }
    }
    match labels.as_slice() {
        [] => return Err(Error::NoPemSection { expected }),
        [found] if found == "ENCRYPTED PRIVATE KEY" && expected == PRIVATE => {
            return Err(Error::EncryptedKey);
        }
        [found] if found == expected => {}
        [found] => {
            return Err(Error::WrongPemSection { expected, found: found.clone(), remedy: remedy(expected, found) });
        }
        several => {
            return Err(Error::ManyPemSections { expected, found: several.len() });
        }
    }
    match <(SectionKind, Vec<u8>)>::from_pem_slice(pem) {
        Ok((found, der)) if found == kind => Ok(Zeroizing::new(der)),
        Ok(_) => Err(Error::NoPemSection { expected }),
        Err(source) => Err(Error::Pem { expected, source }),
    }
}

/// The label of a `-----BEGIN ` line. Only what a label may consist of passes: on a line whose break is missing the
/// rest is key material, and the label goes into error messages.
fn label(rest: &[u8]) -> Option<String> {
    let label = std::str::from_utf8(rest).ok()?.trim_end().strip_suffix("-----")?;
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    (!label.is_empty() && label.len() <= 64 && label.chars().all(plain)).then(|| label.to_owned())
}

fn remedy(expected: &str, found: &str) -> &'static str {
    match (expected, found) {
        (PUBLIC, "CERTIFICATE") => "take the key out of the certificate with `openssl x509 -in CERT -pubkey -noout`",
        (PUBLIC, found) if found.ends_with("PRIVATE KEY") => {
            "give the public half, made with `openssl pkey -in KEY -pubout`, and keep the private key where it belongs"
        }
        (PRIVATE, PUBLIC) => "this is the public half, give the file with the private key",
        _ => {
            "make an Ed25519 key with `openssl genpkey -algorithm ed25519`, and its public half with `openssl pkey -pubout`"
        }
    }
}

/// Why a key's DER was refused: another algorithm, if it names one, else `reason`.
fn refused(kind: &'static str, der: &[u8], reason: impl FnOnce() -> String) -> Error {
    /// OIDs in DER. X25519 and Ed25519 keys look alike, and are what people mix up most.
    const ALGORITHMS: [(&[u8], &str); 7] = [
        (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], "an RSA key"),
        (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "an RSA-PSS key"),
        (&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], "an elliptic curve key (ECDSA, ECDH)"),
        (&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "a DSA key"),
        (&[0x06, 0x03, 0x2b, 0x65, 0x6e], "an X25519 key"),
        (&[0x06, 0x03, 0x2b, 0x65, 0x6f], "an X448 key"),
        (&[0x06, 0x03, 0x2b, 0x65, 0x71], "an Ed448 key"),
    ];
    // The algorithm stands within the first bytes, behind two sequence headers and a version number at most.
    let head = &der[..der.len().min(24)];
    match ALGORITHMS.iter().find(|(oid, _)| head.windows(oid.len()).any(|window| window == *oid)) {
        Some((_, found)) => Error::WrongAlgorithm { found },
        None => Error::BadKey { kind, reason: reason() },
    }
}

/// Whether the encoded point has order 1, 2, 4 or 8. Such a key accepts signatures made without any secret.
fn is_small_order(raw: &[u8; KEY_LEN]) -> bool {
    /// The y coordinates of all such points, little-endian, with those not reduced modulo p = 2^255 - 19.
    const ORDER_8: [[u8; KEY_LEN]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *raw;
    y[31] &= 0x7f; // the sign of x
    let rest_is = |byte: u8| y[1..31].iter().all(|b| *b == byte);
    // y = 0 (order 4) and y = 1 (order 1); y = p - 1 (order 2), and p and p + 1, which are 0 and 1 again.
    let near_zero = y[0] <= 1 && rest_is(0) && y[31] == 0;
    let near_p = (0xec..=0xee).contains(&y[0]) && rest_is(0xff) && y[31] == 0x7f;
    near_zero || near_p || ORDER_8.contains(&y)
}

#[cfg(test)]
mod tests;
