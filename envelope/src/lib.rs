//! Signed envelopes: [DSSE](https://github.com/secure-systems-lab/dsse) v1.0 in its JSON form, with Ed25519
//! signatures and ordinary PEM keys.
//!
//! An envelope carries opaque payload bytes. [`sign`] wraps them, [`open`] gives them back once enough trusted
//! keys have signed them. The payload is never interpreted here: the signed bytes are the bytes, and whoever
//! parses them does it after [`open`].
//!
//! Each kind of document has one payload type (see [`Role`]), which the signature covers. A ticket can therefore
//! never be passed off as an image, even when one key signs both.
//!
//! ```
//! use envelope::{Role, SecretKey, Trust, open, sign};
//!
//! # fn main() -> Result<(), envelope::Error> {
//! let key = SecretKey::generate()?;
//! let bytes = sign(Role::Image, b"{\"name\":\"rhel\"}", &key);
//!
//! let trust = Trust::new(vec![key.public()], 1)?;
//! let opened = open(&bytes, Role::Image, &trust)?;
//! assert_eq!(opened.payload(), b"{\"name\":\"rhel\"}");
//! assert_eq!(opened.signers(), [key.public().id()]);
//! # Ok(())
//! # }
//! ```
//!
//! # Working with the `openssl` command
//!
//! Keys are PKCS#8 (`openssl genpkey -algorithm ed25519`) and SPKI (`openssl pkey -pubout`) in PEM. A signature
//! is plain Ed25519 (RFC 8032) over DSSE's pre-authentication encoding, so `openssl pkeyutl -sign -rawin` and
//! `-verify -rawin` make and check the same signatures.
//!
//! # What is not defended
//!
//! A seed is wiped when its [`SecretKey`] is dropped. The key schedule that *ring* expands from it for each
//! signature, and the text buffer in which `rustls-pki-types` collects a PEM section, are freed without being
//! wiped: neither crate offers it. Processes that hold secret keys should not dump core.

#![forbid(unsafe_code)]

pub mod distinct;
mod dsse;
mod error;
mod keys;
mod wire;

pub use dsse::{
    MAX_ENVELOPE, MAX_PAYLOAD, MAX_SIGNATURES, Opened, Role, Trust, Unverified, add_signature, open, peek, sign,
};
pub use error::Error;
pub use keys::{KeyId, MAX_PEM, PublicKey, SecretKey};
