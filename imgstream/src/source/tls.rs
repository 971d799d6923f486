//! TLS for sources: rustls with ring. Image data proves itself by its digests; TLS here is for privacy and for registries
//! that want it, with certificates checked as everywhere else.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// A client configuration that trusts the certificates in `ca_pem` and nobody else: for whoever else speaks TLS by [`super::Dial`].
///
/// # Errors
/// [`crate::error::Kind::Usage`] when there is none, or one that cannot be used.
pub fn trusting(ca_pem: &[u8]) -> Result<Arc<ClientConfig>> {
    client_config(Some(ca_pem))
}

/// A client configuration that trusts `ca_pem`, or the machine's certificates where none are given.
pub(super) fn client_config(ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| refused(&error))?;
                roots.add(certificate).map_err(|error| refused(&error))?;
            }
            if roots.is_empty() {
                return Err(Error::usage("the CA file holds no certificate"));
            }
        }
        // A machine without a store can still use plain HTTP; TLS then fails by name at the first connection.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::usage(format!("the TLS certificates cannot be used: {error}"))
}
