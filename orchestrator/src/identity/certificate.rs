//! The server's certificate: the authority's, renewed in time, or one that is given. It can change while the service runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use zeroize::Zeroizing;

use super::authority::{MAX_PEM, validity};
use super::{Authority, Clients, Folder, bounded};
use crate::error::{Context, Error, Result};
use crate::model::Moment;

const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";
const VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// With less than this left it is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// What stands before the names in the certificate's file. Readers of PEM pass over it.
const NAMES: &str = "names: ";

/// Where the certificate comes from.
#[derive(Debug)]
pub enum Source {
    /// The service's own authority issues it.
    Own {
        /// The data folder.
        folder: Arc<Folder>,
        /// The names and addresses that clients and agents use.
        names: Vec<ServerName<'static>>,
    },
    /// Somebody else has issued it.
    Given {
        /// Its file: PEM, the server's certificate first, those between it and the authority after it.
        certificate: PathBuf,
        /// Its key's file: PEM.
        key: PathBuf,
    },
}

/// The certificate that clients and agents are shown.
#[derive(Debug)]
pub struct Certificates {
    source: Source,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the certificate; makes or renews one's own where that is due.
    ///
    /// # Errors
    /// A file cannot be read or written, is no certificate or key, or the two do not belong together.
    pub fn open(source: Source, now: Moment) -> Result<Self> {
        let current = RwLock::new(Arc::new(load(&source, now)?));
        Ok(Certificates { source, current })
    }

    /// Renews it where that is due, or reads again what was given. Connections from now on see it; `true` where it is another one.
    ///
    /// # Errors
    /// As of [`Self::open`]; the one before stays in use.
    pub fn refresh(&self, now: Moment) -> Result<bool> {
        let new = load(&self.source, now)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let differs = current.cert != new.cert;
        *current = Arc::new(new);
        Ok(differs)
    }

    /// TLS 1.2 and 1.3 with this certificate. Clients are asked for theirs, and need not have one; one that is not good ends the
    /// handshake. The server adds the protocols it speaks.
    ///
    /// # Errors
    /// None that can happen: ring has what both versions need.
    pub fn server_config(self: &Arc<Self>, clients: &Clients) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::system(format!("setting TLS up: {error}")))?;
        let builder = builder.with_client_cert_verifier(clients.verifier());
        Ok(builder.with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(source: &Source, now: Moment) -> Result<CertifiedKey> {
    match source {
        Source::Own { folder, names } => own(folder, names, now),
        Source::Given { certificate, key } => given(certificate, key),
    }
}

fn given(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let read = |path: &Path| {
        let file = std::fs::File::open(path).and_then(|file| bounded(file, MAX_PEM));
        file.doing(|| format!("reading {}", path.display()))?
            .ok_or_else(|| Error::usage(format!("{} has more than {MAX_PEM} bytes", path.display())))
    };
    let bad = |path: &Path, error: &dyn std::fmt::Display| Error::usage(format!("{}: {error}", path.display()));
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| bad(certificate, &error))?;
    if chain.is_empty() {
        return Err(bad(certificate, &"there is no certificate in it")
            .with_hint("`tls.certificate` is PEM: the server's certificate first, those that issued it after it"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| bad(key, &error))?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|error| {
        Error::usage(format!("{} and {}: {error}", certificate.display(), key.display()))
            .with_hint("`tls.certificate` and `tls.key` must belong together")
    })
}

fn own(folder: &Folder, names: &[ServerName<'static>], now: Moment) -> Result<CertifiedKey> {
    let authority = Authority::open(folder, now)?;
    if let Some(known) = known(folder, names, &authority, now)? {
        return Ok(known);
    }
    let (key, pem) = issue(&authority, names, now)?;
    let secret = Zeroizing::new(key.serialize_pem());
    // With the new key and the old certificate, the pair is refused at the next start and made anew.
    folder.write_secret(KEY, secret.as_bytes())?;
    folder.write(CERTIFICATE, pem.as_bytes())?;
    known(folder, names, &authority, now)?.ok_or_else(|| {
        Error::refused(format!("the authority in {} does not vouch for what it has issued", folder.path().display()))
            .with_hint("is ca.pem of another authority than ca.key? Restore both from one backup")
    })
}

fn issue(authority: &Authority, names: &[ServerName<'static>], now: Moment) -> Result<(KeyPair, String)> {
    let failed = |error: rcgen::Error| Error::system(format!("making the server's certificate: {error}"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let texts: Vec<String> = names.iter().map(|name| name.to_str().into_owned()).collect();
    let mut params = CertificateParams::new(texts).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "z-orchestrator");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, VALIDITY);
    let certificate = authority.issue(&params, &key)?;
    Ok((key, format!("{}\n{}", names_line(names), certificate.pem())))
}

fn names_line(names: &[ServerName<'static>]) -> String {
    let names: Vec<_> = names.iter().map(ServerName::to_str).collect();
    format!("{NAMES}{}", names.join(", "))
}

/// The certificate in the folder, where it is one of this authority for exactly these names that is good for long enough.
fn known(
    folder: &Folder,
    names: &[ServerName<'static>],
    authority: &Authority,
    now: Moment,
) -> Result<Option<CertifiedKey>> {
    let (Some(pem), Some(key)) = (folder.read(CERTIFICATE, MAX_PEM)?, folder.read_secret(KEY, MAX_PEM)?) else {
        return Ok(None);
    };
    let is_for_these = pem.split(|byte| *byte == b'\n').any(|line| line == names_line(names).as_bytes());
    let certificate = CertificateDer::from_pem_slice(&pem).ok();
    let (true, Some(certificate), Ok(key)) = (is_for_these, certificate, PrivateKeyDer::from_pem_slice(&key)) else {
        return Ok(None);
    };
    let provider = Arc::new(ring::default_provider());
    let later = now.after(RENEWED_BEFORE);
    let is_good = [now, later].iter().all(|at| vouches(authority, &certificate, names, *at, &provider));
    Ok(is_good.then(|| CertifiedKey::from_der(vec![certificate], key, &provider).ok()).flatten())
}

/// Whether whoever trusts the authority takes the certificate for all these names at that time.
fn vouches(
    authority: &Authority,
    certificate: &CertificateDer<'static>,
    names: &[ServerName<'static>],
    at: Moment,
    provider: &Arc<CryptoProvider>,
) -> bool {
    let mut roots = RootCertStore::empty();
    let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)));
    if roots.add(authority.certificate().clone()).is_err() {
        return false;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.is_ok_and(|verifier| {
        names.iter().all(|name| verifier.verify_server_cert(certificate, &[], name, &[], at).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn names(names: &[&str]) -> Vec<ServerName<'static>> {
        names.iter().map(|name| ServerName::try_from((*name).to_owned()).unwrap()).collect()
    }

    fn folder() -> (tempfile::TempDir, Arc<Folder>) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        (temporary, Arc::new(folder))
    }

    fn open(folder: &Arc<Folder>, for_names: &[&str], now: Moment) -> Result<Certificates> {
        Certificates::open(Source::Own { folder: Arc::clone(folder), names: names(for_names) }, now)
    }

    fn shown(certificates: &Certificates) -> CertificateDer<'static> {
        certificates.current.read().unwrap().cert[0].clone()
    }

    #[test]
    fn it_is_renewed_in_time_and_when_the_names_change_and_not_else() {
        let (_temporary, folder) = folder();
        let now = Moment::of_wall_clock();
        let all = ["localhost", "127.0.0.1", "::1", "z.example.com"];
        let first = open(&folder, &all, now).unwrap();
        let authority = std::fs::read(folder.file("ca.pem")).unwrap();
        assert_eq!(shown(&open(&folder, &all, now.after(59 * DAY)).unwrap()), shown(&first));
        assert!(!first.refresh(now.after(59 * DAY)).unwrap());
        let before = shown(&first);
        assert!(first.refresh(now.after(61 * DAY)).unwrap());
        assert_ne!(shown(&first), before);
        let fewer = open(&folder, &all[..3], now.after(61 * DAY)).unwrap();
        assert_ne!(shown(&fewer), shown(&first));
        assert_eq!(std::fs::read(folder.file("ca.pem")).unwrap(), authority, "clients trust it");
    }

    #[test]
    fn the_authority_vouches_for_its_names_in_its_time_only() {
        let (_temporary, folder) = folder();
        let now = Moment::of_wall_clock();
        let certificate = shown(&open(&folder, &["localhost", "10.0.0.7"], now).unwrap());
        let (authority, provider) = (Authority::open(&folder, now).unwrap(), Arc::new(ring::default_provider()));
        let vouches = |name, at| vouches(&authority, &certificate, &names(&[name]), at, &provider);
        assert!(vouches("localhost", now) && vouches("10.0.0.7", now.after(89 * DAY)));
        assert!(!vouches("10.0.0.8", now) && !vouches("localhost", now.after(91 * DAY)));
    }

    #[test]
    fn damage_is_made_good_where_nobody_trusted_it_and_refused_where_somebody_did() {
        let (_temporary, folder) = folder();
        let now = Moment::of_wall_clock();
        open(&folder, &["localhost"], now).unwrap();
        folder.write("server.pem", b"nonsense").unwrap();
        open(&folder, &["localhost"], now).unwrap();
        let (_other_temporary, other) = self::folder();
        open(&other, &["localhost"], now).unwrap();
        folder.write("ca.pem", &std::fs::read(other.file("ca.pem")).unwrap()).unwrap();
        assert!(open(&folder, &["localhost"], now).unwrap_err().to_string().contains("is not the certificate of"));
        std::fs::remove_file(folder.file("ca.key")).unwrap();
        assert!(open(&folder, &["localhost"], now).unwrap_err().to_string().contains("without its key"));
    }

    #[test]
    fn a_given_pair_is_read_again_and_must_match() {
        let (temporary, folder) = folder();
        let now = Moment::of_wall_clock();
        open(&folder, &["localhost"], now).unwrap();
        let copy = |name: &str| {
            let to = temporary.path().join(name);
            std::fs::copy(folder.file(name), &to).unwrap();
            to
        };
        let source = Source::Given { certificate: copy("server.pem"), key: copy("server.key") };
        let given = Certificates::open(source, now).unwrap();
        assert!(!given.refresh(now).unwrap());
        open(&folder, &["example.com"], now).unwrap();
        copy("server.key");
        let error = given.refresh(now).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("belong together")), "{error}");
        copy("server.pem");
        assert!(given.refresh(now).unwrap());
        std::fs::write(temporary.path().join("server.pem"), "").unwrap();
        assert!(given.refresh(now).unwrap_err().to_string().contains("no certificate in it"));
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let (_temporary, folder) = folder();
        let now = Moment::of_wall_clock();
        let certificates = Arc::new(open(&folder, &["localhost"], now).unwrap());
        let authority = Authority::open(&folder, now).unwrap();
        let clients = Clients::open(&authority, None).unwrap();
        let shown =
            format!("{certificates:?} {:?} {authority:?} {clients:?}", certificates.server_config(&clients).unwrap());
        for name in ["ca.key", "server.key"] {
            let pem = std::fs::read_to_string(folder.file(name)).unwrap();
            assert!(pem.lines().all(|line| !shown.contains(line)));
        }
    }
}
