//! What can go wrong, in words an operator can act on.

use crate::{KeyId, Role};

/// Why an envelope or a key was refused.
///
/// All of them are permanent: the same input fails the same way, so trying again cannot help.
/// Text taken from an envelope is escaped and shortened before it stands in a message, because at that point
/// nobody has vouched for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The envelope is larger than [`MAX_ENVELOPE`](crate::MAX_ENVELOPE). Sizes in bytes.
    #[error(
        "the envelope has {size} bytes, at most {max} are read; this is not an envelope, or its payload is too large"
    )]
    EnvelopeTooLarge {
        /// Size of the envelope in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },

    /// The envelope is not the JSON object DSSE asks for, or names a member twice.
    #[error(
        "the envelope is not a DSSE JSON envelope: {source}; was the file cut short, or is it another kind of file?"
    )]
    Json {
        /// Where and why the JSON reader stopped.
        source: serde_json::Error,
    },

    /// A member that holds base64 does not decode. Standard and URL-safe alphabets are read, with padding.
    #[error("the envelope's {field} is not base64: {source}; the file is damaged, fetch or sign it again")]
    Base64 {
        /// The member of the envelope.
        field: &'static str,
        /// What the decoder found.
        source: base64::DecodeError,
    },

    /// The envelope holds another kind of document.
    #[error(
        "expected {expected} (payload type {:?}), found payload type {}; give the envelope of {expected}",
        expected.payload_type(), quote(found)
    )]
    WrongRole {
        /// What the caller asked for.
        expected: Role,
        /// The envelope's payload type, as it stands there: unverified, escape it before you print it.
        found: String,
    },

    /// The envelope carries more than [`MAX_SIGNATURES`](crate::MAX_SIGNATURES) signatures.
    #[error(
        "the envelope carries {found} signatures, at most {max} are allowed; sign the payload anew with the keys that count"
    )]
    TooManySignatures {
        /// How many there are, or would be.
        found: usize,
        /// The limit.
        max: usize,
    },

    /// Too few distinct trusted keys have signed the payload.
    #[error(
        "{valid} of {needed} needed signatures are valid (trusted: {}; the envelope carries {}); \
         have it signed with enough of the trusted keys, or trust the keys it is really signed with",
        list(trusted.iter().map(KeyId::to_string)), claims(claimed)
    )]
    NotEnoughSignatures {
        /// How many distinct trusted keys must have signed.
        needed: usize,
        /// How many have.
        valid: usize,
        /// The trusted keys.
        trusted: Vec<KeyId>,
        /// The key id each signature claims, empty where it claims none: unverified, escape it before you print it.
        claimed: Vec<String>,
    },

    /// This key has signed the envelope before.
    #[error(
        "the envelope already carries a valid signature by key {key}; a second one would not count, use another key"
    )]
    AlreadySigned {
        /// The key.
        key: KeyId,
    },

    /// A trust without keys would accept nothing.
    #[error("no trusted key was given; name at least one public key")]
    NoTrustedKeys,

    /// A threshold of zero would accept anything.
    #[error("the threshold of needed signatures is 0, which would accept an unsigned envelope; it must be at least 1")]
    ZeroThreshold,

    /// More signatures are needed than there are distinct keys.
    #[error(
        "{threshold} signatures are needed but only {keys} distinct trusted keys are given, so nothing could ever \
         be accepted; lower the threshold or name more keys (a key named twice counts once)"
    )]
    ThresholdTooHigh {
        /// Signatures needed.
        threshold: usize,
        /// Distinct keys given.
        keys: usize,
    },

    /// The key file is larger than [`MAX_PEM`](crate::MAX_PEM). Sizes in bytes.
    #[error("the key file has {size} bytes, at most {max} are read; this is not an Ed25519 key in PEM form")]
    PemTooLarge {
        /// Size of the file in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },

    /// There is no `-----BEGIN ...-----` line.
    #[error(
        "expected a PEM section \"{expected}\", found no line \"-----BEGIN ...-----\"; DER can be converted with `openssl pkey -inform DER`"
    )]
    NoPemSection {
        /// The label looked for.
        expected: &'static str,
    },

    /// A `-----BEGIN` line is malformed. Its text is kept out of the message: it may be key material.
    #[error(
        "line {line} starts like a PEM section \"{expected}\" but does not end in five dashes after a label; is the line break missing?"
    )]
    BadPemLine {
        /// The label looked for.
        expected: &'static str,
        /// Line number, from 1.
        line: usize,
    },

    /// There is more than one PEM section, so it is not clear which key is meant.
    #[error("expected one PEM section \"{expected}\", found {found}; give each key a file of its own")]
    ManyPemSections {
        /// The label looked for.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },

    /// The PEM section is of another kind, such as a certificate or a private key in place of a public one.
    #[error("expected a PEM section \"{expected}\", found \"{found}\"; {remedy}")]
    WrongPemSection {
        /// The label looked for.
        expected: &'static str,
        /// The label found.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },

    /// The private key is protected by a passphrase, which this program never asks for.
    #[error(
        "the private key is encrypted, expected an unencrypted PKCS#8 key; decrypt it with `openssl pkey -in KEY -out PLAIN` into a file only you can read"
    )]
    EncryptedKey,

    /// The PEM section cannot be decoded.
    #[error("the PEM section \"{expected}\" cannot be decoded: {source}; the file is damaged")]
    Pem {
        /// The section's label.
        expected: &'static str,
        /// What the decoder found.
        source: rustls_pki_types::pem::Error,
    },

    /// The key is for another algorithm than Ed25519.
    #[error("expected an Ed25519 key, found {found}; make one with `openssl genpkey -algorithm ed25519`")]
    WrongAlgorithm {
        /// The algorithm found.
        found: &'static str,
    },

    /// The key's DER encoding is not what RFC 8410 asks for, or its two halves do not belong together.
    #[error(
        "the {kind} key is not a valid Ed25519 key: {reason}; the file is damaged, or was not written by a key generator"
    )]
    BadKey {
        /// `public` or `private`.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// The public key is a point of small order: anybody can make signatures that it accepts.
    #[error(
        "the public key is one of the few Ed25519 points for which anybody can forge signatures (an all-zero key is one); it was not made by a key generator, replace it"
    )]
    WeakKey,

    /// A key id is not 64 hexadecimal digits.
    #[error("expected a key id of 64 hexadecimal digits, found {}", quote(found))]
    BadKeyId {
        /// The text given.
        found: String,
    },

    /// The operating system gave no random bytes.
    #[error("cannot make a key: the system's random number generator failed; is getrandom(2) allowed here?")]
    Random,
}

/// At most this many key ids stand in a message.
const SHOWN: usize = 8;

/// Escapes and shortens text from outside: it ends up on a terminal.
fn quote(text: &str) -> String {
    const MAX: usize = 100;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn claims(claimed: &[String]) -> String {
    let claim = |id: &String| match id.as_str() {
        "" => "no key".to_owned(),
        id => id.parse::<KeyId>().map_or_else(|_| quote(id), |id| id.to_string()),
    };
    match claimed {
        [] => "no signature".to_owned(),
        [one] => format!("a signature claiming {}{}", if one.is_empty() { "" } else { "key " }, claim(one)),
        many => format!("signatures claiming keys {}", list(many.iter().map(claim))),
    }
}
