//! Certificates of clients: whose are believed, and what one says. What its holder may do is decided elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{ClientKey, Digest};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::authority::MAX_PEM;
use super::tokens::sha256;
use super::{Authority, bounded, expiry};
use crate::error::{Context, Error, Result};
use crate::model::Moment;

/// The authorities whose clients are believed: the service's own, and one that is given.
#[derive(Debug, Clone)]
pub struct Clients {
    all: Arc<dyn ClientCertVerifier>,
    ours: Arc<dyn ClientCertVerifier>,
    digest: Digest,
}

/// A certificate whose holder has proven to have its key, and that one of the authorities has issued for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// SHA-256 of its key (SPKI in DER).
    pub key: Digest,
    /// The key itself, where the service's own authority has issued the certificate and it is of the kind that agents have.
    pub client_key: Option<ClientKey>,
    /// Whether the service's own authority has issued it. What another one writes into a certificate gives no role by itself.
    pub is_ours: bool,
    /// Until when it is good.
    pub until: Moment,
    /// When that is on a clock that does not jump, as it was when the certificate was shown.
    pub ends: Instant,
    /// The URIs that it is for.
    pub uris: Vec<String>,
    /// The DNS names that it is for.
    pub names: Vec<String>,
}

impl Clients {
    /// Of this authority, and of those in a file (PEM) where one is given.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate of an authority.
    pub fn open(own: &Authority, given: Option<&Path>) -> Result<Self> {
        let (mut ours, mut all) = (RootCertStore::empty(), RootCertStore::empty());
        let failed = |error: &dyn std::fmt::Display| Error::system(format!("setting TLS up for clients: {error}"));
        ours.add(own.certificate().clone()).map_err(|error| failed(&error))?;
        all.add(own.certificate().clone()).map_err(|error| failed(&error))?;
        let mut bytes = own.certificate().to_vec();
        for certificate in given.map(authorities).transpose()?.unwrap_or_default() {
            bytes.extend_from_slice(&certificate);
            let path = given.map(Path::display);
            all.add(certificate).map_err(|error| {
                let path = path.map(|path| path.to_string()).unwrap_or_default();
                Error::usage(format!("`clients.authority`, {path}: {error}"))
            })?;
        }
        let verifier = |roots: RootCertStore| {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            // Who shows none is no stranger yet: browsers and agents that enrol bring something else. Each path says what it needs.
            builder.allow_unauthenticated().build().map_err(|error| failed(&error))
        };
        Ok(Clients { all: verifier(all)?, ours: verifier(ours)?, digest: sha256(&bytes) })
    }

    /// What a TLS handshake asks: a certificate of any of them, or none.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.all)
    }

    /// Which authorities they are.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What a certificate says that a handshake has accepted. `None` where it cannot be read, which no such certificate is.
    pub fn shown(&self, certificate: &CertificateDer<'_>, now: Moment) -> Option<Shown> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)));
        let key = parsed.subject_public_key_info();
        // Another authority may have our name, and not our key.
        let is_ours = self.ours.verify_client_cert(certificate, &[], at).is_ok();
        let until = expiry::of(certificate)?;
        let client_key = is_ours.then(|| ClientKey::try_from(URL_SAFE_NO_PAD.encode(&key)).ok()).flatten();
        Some(Shown {
            fingerprint: sha256(certificate),
            key: sha256(&key),
            client_key,
            is_ours,
            until,
            ends: Instant::now() + until.from_now(now),
            uris: parsed.valid_uri_names().map(str::to_owned).collect(),
            names: parsed.valid_dns_names().map(str::to_owned).collect(),
        })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: &dyn std::fmt::Display| {
        Error::usage(format!("`clients.authority`, {}: {why}", path.display()))
            .with_hint("give the certificates (PEM) of those who issue certificates for people and platforms")
    };
    let read = std::fs::File::open(path).and_then(|file| bounded(file, MAX_PEM));
    let read = read.doing(|| format!("reading `clients.authority`, {}", path.display()))?;
    let pem = read.ok_or_else(|| bad(&format!("it has more than {MAX_PEM} bytes")))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| bad(&error))?;
    if found.is_empty() { Err(bad(&"there is no certificate in it")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

    use super::super::{Folder, Role};
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// An authority of somebody else, that calls itself as ours does, and its file.
    fn impostor(folder: &Folder, own: &Authority) -> (Issuer<'static, KeyPair>, std::path::PathBuf) {
        let text = String::from_utf8_lossy(own.certificate()).into_owned();
        let name: String = text.split("z-orchestrator authority ").nth(1).unwrap().chars().take(16).collect();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("z-orchestrator authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let path = folder.file("given.pem");
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        (Issuer::new(params, key), path)
    }

    #[test]
    fn what_a_certificate_says_is_read_and_whose_it_is_is_a_matter_of_keys() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let now = Moment::of_wall_clock();
        let own = Authority::open(&folder, now).unwrap();
        let (issuer, path) = impostor(&folder, &own);
        let clients = Clients::open(&own, Some(&path)).unwrap();
        let person = own.issue_person("ada", Role::Operator, DAY, now).unwrap();
        let certificate = CertificateDer::from_pem_slice(person.certificate.as_bytes()).unwrap();
        let shown = clients.shown(&certificate, now).unwrap();
        assert!(shown.is_ours && shown.names.is_empty(), "{shown:?}");
        assert_eq!(
            (shown.uris, shown.fingerprint),
            (vec!["urn:z-orchestrator:role:operator:ada".into()], person.fingerprint)
        );
        assert_eq!(shown.until.0 / 1000, now.after(DAY).0 / 1000);
        // Past its time it is nobody's.
        assert!(!clients.shown(&certificate, now.after(DAY * 2)).unwrap().is_ours);

        let mut params = CertificateParams::new(vec!["ci.example.com".into()]).unwrap();
        params.subject_alt_names.push(SanType::URI("urn:z-orchestrator:role:operator:eve".try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let theirs = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let shown = clients.shown(theirs.der(), now).unwrap();
        assert!(!shown.is_ours && shown.names == ["ci.example.com"] && shown.uris.len() == 1, "{shown:?}");
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap()));
        clients.verifier().verify_client_cert(theirs.der(), &[], at).unwrap();
        let without = Clients::open(&own, None).unwrap();
        without.verifier().verify_client_cert(theirs.der(), &[], at).unwrap_err();
        assert_ne!(without.digest(), clients.digest());
    }

    #[test]
    fn a_file_without_an_authority_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let own = Authority::open(&folder, Moment::of_wall_clock()).unwrap();
        let path = folder.file("given.pem");
        assert!(Clients::open(&own, Some(&path)).unwrap_err().to_string().contains("given.pem"));
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, text).unwrap();
            let error = Clients::open(&own, Some(&path)).unwrap_err();
            assert!(error.to_string().contains("`clients.authority`"), "{error}");
        }
    }
}
