//! What proves to the service who asks.

use protocol::Token;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Result};

/// A token, or a client certificate with its key.
pub enum Proof {
    /// A token, in a header.
    Token(Token),
    /// A certificate and those between it and its authority, in the handshake.
    Certificate(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

impl Proof {
    /// A certificate and its key, from PEM.
    ///
    /// # Errors
    /// One of them is none.
    pub fn certificate(certificate: &[u8], key: &[u8]) -> Result<Self> {
        let bad = |what: &str, error: &dyn std::fmt::Display| Error::usage(format!("the client {what}: {error}"));
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| bad("certificate", &error))?;
        if chain.is_empty() {
            return Err(bad("certificate", &"there is none in that file"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("certificate's key", &error))?;
        Ok(Proof::Certificate(chain, key))
    }
}

impl From<Token> for Proof {
    fn from(token: Token) -> Self {
        Proof::Token(token)
    }
}
