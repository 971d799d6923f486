//! The service's own certificate authority: ECDSA P-256, ten years, in the data folder. Whoever trusts it trusts this service alone.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{CA, Folder};
use crate::error::{Error, Result};
use crate::model::Moment;

const KEY: &str = "ca.key";
/// Largest certificate or key that is read, in bytes.
pub(super) const MAX_PEM: usize = 64 << 10;
const VALIDITY: Duration = Duration::from_secs(3652 * 86_400);
/// How far another clock may be behind this one's.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// The authority. It issues what it is asked to: it is the caller who knows for whom.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// The data folder's authority, made at the first start.
    ///
    /// # Errors
    /// Its files cannot be read or made, others may read its key, or key and certificate are not of one authority.
    pub fn open(folder: &Folder, now: Moment) -> Result<Self> {
        let known = folder.read(CA, MAX_PEM)?;
        let key = match folder.read_secret(KEY, MAX_PEM)? {
            Some(pem) => parse_key(&pem, folder)?,
            None if known.is_some() => {
                return Err(Error::refused(format!("{} is there without its key {KEY}", folder.file(CA).display()))
                    .with_hint("restore the key from a backup; or remove ca.pem as well: a new authority is made, and clients and agents must be told to trust that one"));
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed("its key", error))?;
                folder.write_secret(KEY, Zeroizing::new(key.serialize_pem()).as_bytes())?;
                key
            }
        };
        let params = params(&key, now)?;
        let certificate = match known {
            Some(pem) => parse_certificate(&pem, &key, folder)?,
            None => {
                let certificate = params.self_signed(&key).map_err(|error| failed("its certificate", error))?;
                folder.write(CA, certificate.pem().as_bytes())?;
                certificate.der().clone()
            }
        };
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// The data folder's authority, which must be there.
    ///
    /// # Errors
    /// It is not, its files cannot be read, others may read its key, or key and certificate are not of one authority.
    pub fn known(folder: &Folder, now: Moment) -> Result<Self> {
        let missing = |name: &str| {
            Error::refused(format!("there is no {}", folder.file(name).display()))
                .with_hint("start the service once, which makes its authority; or name its data folder with --data")
        };
        let key = folder.read_secret(KEY, MAX_PEM)?.ok_or_else(|| missing(KEY))?;
        let certificate = folder.read(CA, MAX_PEM)?.ok_or_else(|| missing(CA))?;
        let key = parse_key(&key, folder)?;
        let (params, certificate) = (params(&key, now)?, parse_certificate(&certificate, &key, folder)?);
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Issues a certificate, for a server or for a client, over the public key that its holder has.
    ///
    /// # Errors
    /// The parameters contradict each other.
    pub fn issue(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate> {
        params.signed_by(key, &self.issuer).map_err(|error| failed("a certificate", error))
    }
}

/// Validity from now on, for as long as this.
pub(super) fn validity(params: &mut CertificateParams, now: Moment, length: Duration) {
    let now = OffsetDateTime::from_unix_timestamp(now.0 / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now - CLOCKS_DIFFER;
    params.not_after = now + length;
}

/// What its certificate says. The name is made from the key, so that issuing needs nothing but the key, and no two authorities have one
/// name.
fn params(key: &KeyPair, now: Moment) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| failed("its certificate", error))?;
    let id = super::tokens::sha256(&key.subject_public_key_info());
    let id: String = id.as_str().chars().skip("sha256:".len()).take(16).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("z-orchestrator authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, VALIDITY);
    Ok(params)
}

fn parse_key(pem: &[u8], folder: &Folder) -> Result<KeyPair> {
    let text = std::str::from_utf8(pem).unwrap_or_default();
    KeyPair::from_pem(text).map_err(|error| {
        Error::refused(format!("{} is no key: {error}", folder.file(KEY).display()))
            .with_hint("restore it from a backup")
    })
}

fn parse_certificate(pem: &[u8], key: &KeyPair, folder: &Folder) -> Result<CertificateDer<'static>> {
    let certificate = CertificateDer::from_pem_slice(pem)
        .map_err(|error| Error::refused(format!("{} is no certificate: {error}", folder.file(CA).display())))?;
    let public = key.subject_public_key_info();
    if !certificate.windows(public.len()).any(|window| window == public) {
        return Err(Error::refused(format!("{} is not the certificate of {KEY}", folder.file(CA).display()))
            .with_hint("restore both from one backup"));
    }
    Ok(certificate)
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::system(format!("the service's certificate authority: making {what}: {error}"))
}
