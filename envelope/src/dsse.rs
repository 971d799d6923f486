//! The envelope: DSSE v1.0 protocol, JSON form.

use std::fmt;

use crate::wire::WireEnvelope;
use crate::{Error, KeyId, PublicKey, SecretKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// The largest envelope that is read or extended, in bytes.
pub const MAX_ENVELOPE: usize = 8 * 1024 * 1024;

/// The most signatures an envelope may carry. Each may cost one verification per trusted key.
pub const MAX_SIGNATURES: usize = 64;

/// The largest payload, in bytes, that surely fits into [`MAX_ENVELOPE`] with [`MAX_SIGNATURES`] signatures by
/// [`sign`] and [`add_signature`].
pub const MAX_PAYLOAD: usize = MAX_ENVELOPE / 4 * 3 - 64 * 1024;

/// What an envelope holds. Each role has exactly one payload type, and the signature covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// An image descriptor, signed by an image builder.
    Image,
    /// A run's ticket, signed by the orchestrator.
    Ticket,
}

impl Role {
    /// The DSSE payload type: what stands in the envelope and under the signature.
    pub fn payload_type(self) -> &'static str {
        match self {
            Self::Image => "application/vnd.z-provisioner.image.v1+json",
            Self::Ticket => "application/vnd.z-provisioner.ticket.v1+json",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "an image",
            Self::Ticket => "a ticket",
        })
    }
}

/// Whose signatures count, and how many of them are needed.
#[derive(Clone, Debug)]
pub struct Trust {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl Trust {
    /// Trusts `keys`, of which at least `threshold` distinct ones must have signed. A key given twice counts once.
    ///
    /// # Errors
    /// [`Error::NoTrustedKeys`], [`Error::ZeroThreshold`], or [`Error::ThresholdTooHigh`] if there are fewer
    /// distinct keys than `threshold`.
    pub fn new(mut keys: Vec<PublicKey>, threshold: usize) -> Result<Self, Error> {
        keys.sort_by_key(PublicKey::id);
        keys.dedup();
        if keys.is_empty() {
            return Err(Error::NoTrustedKeys);
        }
        if threshold == 0 {
            return Err(Error::ZeroThreshold);
        }
        if threshold > keys.len() {
            return Err(Error::ThresholdTooHigh { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// The distinct trusted keys, ordered by id.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many of them must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }
}

/// A payload that enough trusted keys have signed. Only [`open`] makes one.
#[derive(Debug)]
pub struct Opened {
    // What was verified, of which the payload is the end: the bytes that were checked are the bytes that are used.
    pae: Vec<u8>,
    payload_at: usize,
    signers: Vec<KeyId>,
}

impl Opened {
    /// The signed bytes.
    pub fn payload(&self) -> &[u8] {
        &self.pae[self.payload_at..]
    }

    /// The signed bytes.
    pub fn into_payload(mut self) -> Vec<u8> {
        self.pae.drain(..self.payload_at);
        self.pae
    }

    /// The trusted keys whose signature is valid, each once, in the order of the signatures; at least as many as
    /// the threshold.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

/// What an envelope says about itself. **Nothing here has been verified**: anybody can have written it.
#[derive(Debug)]
pub struct Unverified {
    payload: Vec<u8>,
    claimed: Vec<String>,
}

impl Unverified {
    /// The payload, which **nobody has vouched for**. For showing, never for acting upon.
    pub fn payload_unverified(&self) -> &[u8] {
        &self.payload
    }

    /// How many signatures the envelope carries, valid or not.
    pub fn signature_count(&self) -> usize {
        self.claimed.len()
    }

    /// The key id each signature claims to be by, one per signature, empty where it claims none. Any text can
    /// stand there: escape it before you print it.
    pub fn claimed_key_ids(&self) -> &[String] {
        &self.claimed
    }
}

/// Wraps `payload` in an envelope with one signature by `key`; returns the envelope's JSON.
///
/// A payload of more than [`MAX_PAYLOAD`] bytes may give an envelope that [`open`] refuses to read.
pub fn sign(role: Role, payload: &[u8], key: &SecretKey) -> Vec<u8> {
    let (message, _) = pae(role.payload_type(), payload);
    let envelope = serde_json::json!({
        "payload": STANDARD.encode(payload),
        "payloadType": role.payload_type(),
        "signatures": [signature(&message, key)],
    });
    envelope.to_string().into_bytes()
}

/// Adds a signature by `key` to an envelope. The payload, the other signatures and members that DSSE does not know
/// stay as they are. The other signatures are **not** verified, and neither is the payload: know what you sign.
///
/// # Errors
/// As [`peek`], and [`Error::AlreadySigned`] if the envelope carries a valid signature by `key`,
/// [`Error::TooManySignatures`] or [`Error::EnvelopeTooLarge`] if it has no room for another.
pub fn add_signature(envelope: &[u8], role: Role, key: &SecretKey) -> Result<Vec<u8>, Error> {
    let parsed = parse(envelope, role)?;
    let (message, _) = pae(role.payload_type(), &parsed.payload);
    let public = key.public();
    if parsed.signatures.iter().any(|signature| public.verify(&message, &signature.bytes)) {
        return Err(Error::AlreadySigned { key: public.id() });
    }
    if parsed.signatures.len() == MAX_SIGNATURES {
        return Err(Error::TooManySignatures { found: MAX_SIGNATURES + 1, max: MAX_SIGNATURES });
    }

    let mut json: serde_json::Value = serde_json::from_slice(envelope).map_err(|source| Error::Json { source })?;
    if let Some(signatures) = json.get_mut("signatures").and_then(serde_json::Value::as_array_mut) {
        signatures.push(signature(&message, key));
    }
    let signed = json.to_string().into_bytes();
    check_size(&signed)?;
    Ok(signed)
}

/// Gives the payload back if at least [`Trust::threshold`] distinct trusted keys have signed it, as this role.
///
/// In this order: the size is bounded, the JSON is read, the payload type compared, the signatures verified. Key
/// ids in the envelope are hints and nothing else: they say which key is tried first. The payload is not looked at.
///
/// # Errors
/// [`Error::EnvelopeTooLarge`], [`Error::Json`], [`Error::WrongRole`], [`Error::TooManySignatures`],
/// [`Error::Base64`], [`Error::NotEnoughSignatures`].
pub fn open(envelope: &[u8], role: Role, trust: &Trust) -> Result<Opened, Error> {
    let parsed = parse(envelope, role)?;
    let (pae, payload_at) = pae(role.payload_type(), &parsed.payload);
    let signers = signers(&pae, &parsed.signatures, &trust.keys);
    if signers.len() < trust.threshold {
        return Err(Error::NotEnoughSignatures {
            needed: trust.threshold,
            valid: signers.len(),
            trusted: trust.keys.iter().map(PublicKey::id).collect(),
            claimed: parsed.signatures.into_iter().map(|signature| signature.claimed).collect(),
        });
    }
    Ok(Opened { pae, payload_at, signers })
}

/// Reads an envelope **without verifying anything**, for showing what it holds to a person who has no keys for it.
///
/// # Errors
/// [`Error::EnvelopeTooLarge`], [`Error::Json`], [`Error::WrongRole`], [`Error::TooManySignatures`],
/// [`Error::Base64`].
pub fn peek(envelope: &[u8], role: Role) -> Result<Unverified, Error> {
    let parsed = parse(envelope, role)?;
    let claimed = parsed.signatures.into_iter().map(|signature| signature.claimed).collect();
    Ok(Unverified { payload: parsed.payload, claimed })
}

/// DSSE's pre-authentication encoding, which is what gets signed, and where in it the payload starts.
fn pae(payload_type: &str, payload: &[u8]) -> (Vec<u8>, usize) {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    ([head.as_bytes(), payload].concat(), head.len())
}

fn signature(message: &[u8], key: &SecretKey) -> serde_json::Value {
    serde_json::json!({ "keyid": key.public().id().to_string(), "sig": STANDARD.encode(key.sign(message)) })
}

/// The keys that have signed `message`, each once.
fn signers(message: &[u8], signatures: &[Signature], keys: &[PublicKey]) -> Vec<KeyId> {
    let mut signers = Vec::new();
    for signature in signatures {
        let hint = signature.claimed.parse::<KeyId>().ok();
        let hinted = keys.iter().filter(|key| Some(key.id()) == hint);
        let others = keys.iter().filter(|key| Some(key.id()) != hint);
        // A key that has been found needs no second look, which also makes its second signature not count.
        let found = hinted
            .chain(others)
            .filter(|key| !signers.contains(&key.id()))
            .find(|key| key.verify(message, &signature.bytes));
        signers.extend(found.map(PublicKey::id));
    }
    signers
}

/// An envelope of the right role whose signatures nobody has checked.
struct Parsed {
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

struct Signature {
    claimed: String,
    bytes: Vec<u8>,
}

fn parse(envelope: &[u8], role: Role) -> Result<Parsed, Error> {
    check_size(envelope)?;
    let wire: WireEnvelope = serde_json::from_slice(envelope).map_err(|source| Error::Json { source })?;
    if wire.payload_type != role.payload_type() {
        return Err(Error::WrongRole { expected: role, found: wire.payload_type });
    }
    if wire.signatures.count > MAX_SIGNATURES {
        return Err(Error::TooManySignatures { found: wire.signatures.count, max: MAX_SIGNATURES });
    }
    let payload = decode("payload", &wire.payload)?;
    let signatures = wire
        .signatures
        .first
        .into_iter()
        .map(|signature| Ok(Signature { bytes: decode("signature", &signature.sig)?, claimed: signature.keyid }));
    Ok(Parsed { payload, signatures: signatures.collect::<Result<_, Error>>()? })
}

fn check_size(envelope: &[u8]) -> Result<(), Error> {
    if envelope.len() > MAX_ENVELOPE {
        return Err(Error::EnvelopeTooLarge { size: envelope.len(), max: MAX_ENVELOPE });
    }
    Ok(())
}

/// DSSE: "Either standard or URL-safe encoding is allowed". Not a mixture, and not without padding (RFC 4648, 3.2).
fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    let engine = if text.bytes().any(|byte| matches!(byte, b'-' | b'_')) { URL_SAFE } else { STANDARD };
    engine.decode(text).map_err(|source| Error::Base64 { field, source })
}

#[cfg(test)]
mod tests;
