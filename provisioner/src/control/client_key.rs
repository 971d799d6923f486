//! The client key of this process: made for one enrolment, never written anywhere, and gone with the process.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imgstream::digest::Digest;
use imgstream::error::{Error, Result, Retry};
use protocol::ClientKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

/// What comes before the point in the SubjectPublicKeyInfo of an ECDSA key on P-256 (RFC 5480).
const BEFORE_POINT: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key pair: ECDSA on P-256.
pub(super) struct Key {
    /// PKCS#8.
    secret: Zeroizing<Vec<u8>>,
    /// SubjectPublicKeyInfo.
    public: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// `Device` when the kernel gives no random numbers.
    pub(super) fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let failed = |_| Error::device("making a client key: the kernel gives no random numbers");
        // What ring itself keeps of it is not wiped: core dumps are off, and the process is short.
        let secret = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(failed)?;
        let secret = Zeroizing::new(secret.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &secret, &random);
        let pair = pair.map_err(|error| Error::device(format!("making a client key: {error}")))?;
        let public = [&BEFORE_POINT[..], pair.public_key().as_ref()].concat();
        Ok(Key { secret, public })
    }

    /// The public half, as it is enrolled with.
    ///
    /// # Errors
    /// None that can happen: it is a key of that kind.
    pub(super) fn public(&self) -> Result<ClientKey> {
        let text = URL_SAFE_NO_PAD.encode(&self.public);
        ClientKey::try_from(text).map_err(|error| Error::device(format!("making a client key: {error}")))
    }

    /// SHA-256 of the public half, as a ticket has it.
    pub(super) fn digest(&self) -> String {
        Digest::of(&self.public).to_string()
    }

    /// TLS as before, and with this certificate (PEM) shown from now on.
    ///
    /// # Errors
    /// `Source` when that is no certificate over this key.
    pub(super) fn shown(&self, tls: &ClientConfig, certificate: &str) -> Result<ClientConfig> {
        let wrong = |error: &dyn fmt::Display| {
            Error::source_failed(format!("the client certificate from the service is of no use: {error}"))
                .with_retry(Retry::Permanent)
                .with_hint("see that the service and this agent are of versions that suit each other")
        };
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| wrong(&error))?;
        let secret = PrivatePkcs8KeyDer::from(&self.secret[..]).clone_key().into();
        let pair = CertifiedKey::from_der(vec![leaf], secret, &default_provider()).map_err(|error| wrong(&error))?;
        let mut config = tls.clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(pair));
        // A session that was begun without the certificate would be resumed without it.
        config.resumption = Resumption::default();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair as Pair, PublicKeyData};

    use super::super::testing::certificate_over;
    use super::*;

    #[test]
    fn its_public_half_is_what_others_make_of_its_secret_half() {
        let key = Key::new().unwrap();
        let other = Pair::try_from(&key.secret[..]).unwrap();
        assert_eq!(key.public, other.subject_public_key_info());
        assert_eq!(URL_SAFE_NO_PAD.decode(key.public().unwrap().as_str()).unwrap(), key.public);
        assert_ne!(key.public, Key::new().unwrap().public);
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn only_a_certificate_over_this_key_is_shown() {
        let (key, other) = (Key::new().unwrap(), Key::new().unwrap());
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
            .with_no_client_auth();
        assert!(!tls.client_auth_cert_resolver.has_certs());
        let ours = certificate_over(key.public().unwrap().as_str());
        assert!(key.shown(&tls, &ours).unwrap().client_auth_cert_resolver.has_certs());
        let theirs = certificate_over(other.public().unwrap().as_str());
        for certificate in [theirs.as_str(), "", "no PEM"] {
            let error = key.shown(&tls, certificate).unwrap_err();
            assert!(error.to_string().contains("is of no use") && error.retry() == Retry::Permanent, "{error}");
        }
    }
}
