//! Certificates that the service's own authority issues for clients: for people, from the command line, and for attempts, when their agents
//! enrol. What one is for stands in its URI.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{ClientKey, Digest, RunId};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use zeroize::Zeroizing;

use super::authority::validity;
use super::tokens::sha256;
use super::{Authority, Role};
use crate::error::{Error, Result};
use crate::model::Moment;

/// What the URI in a person's certificate begins with; role and name follow.
const PERSON: &str = "urn:z-orchestrator:role:";
const ATTEMPT: &str = "urn:z-orchestrator:attempt:";
/// Longest name of a person, in bytes.
const MAX_NAME: usize = 64;
/// How far back this machine's clock may be set.
const A_DAY: Duration = Duration::from_secs(86_400);
/// Bytes of a key's DER before its point.
const BEFORE_POINT: usize = 26;

/// A certificate for a person, and its key.
#[derive(Debug)]
pub struct PersonCertificate {
    /// The certificate (PEM).
    pub certificate: String,
    /// The key (PEM, PKCS#8).
    pub key: Zeroizing<String>,
    /// SHA-256 of the certificate, by which it is revoked.
    pub fingerprint: Digest,
}

/// The key of an agent, for the authority.
struct AgentKey(Vec<u8>);

impl PublicKeyData for AgentKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.get(BEFORE_POINT..).unwrap_or_default()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// SHA-256 of a key (SPKI in DER).
pub(super) fn digest_of(key: &ClientKey) -> Digest {
    sha256(&der(key))
}

fn der(key: &ClientKey) -> Vec<u8> {
    // It was checked when it came in.
    URL_SAFE_NO_PAD.decode(key.as_str()).unwrap_or_default()
}

/// Whether a person can be called so: it stands in URIs, log lines and on screens.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

/// The role and the name in a URI of a certificate, where it is a person's.
pub(super) fn person(uri: &str) -> Option<(Role, &str)> {
    let (role, name) = uri.strip_prefix(PERSON)?.split_once(':')?;
    let role = [Role::Viewer, Role::Operator].into_iter().find(|known| known.name() == role)?;
    is_name(name).then_some((role, name))
}

impl Authority {
    /// Issues a certificate for a person, with a key of its own, good for this long.
    ///
    /// # Errors
    /// The name breaks its rule, or this machine does not do it.
    pub fn issue_person(&self, name: &str, role: Role, length: Duration, now: Moment) -> Result<PersonCertificate> {
        if !is_name(name) {
            return Err(Error::usage(format!("{name:?} is no name for a certificate"))
                .with_hint(format!("give 1 to {MAX_NAME} letters, digits, '.', '_', '-' or '@'")));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
        let params = client(name, format!("{PERSON}{}:{name}", role.name()), length, now)?;
        let certificate = self.issue(&params, &key)?;
        let fingerprint = sha256(certificate.der());
        Ok(PersonCertificate { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()), fingerprint })
    }

    /// Issues the certificate of an attempt over the key that its agent has made (PEM). Nothing of it is kept.
    ///
    /// # Errors
    /// This machine does not do it.
    pub fn issue_attempt(
        &self,
        run: &RunId,
        attempt: u32,
        key: &ClientKey,
        length: Duration,
        now: Moment,
    ) -> Result<String> {
        let mut params = client("z-provisioner", format!("{ATTEMPT}{run}:{attempt}"), length, now)?;
        // The key is new, and nobody but this service looks: a clock that is set back must not shut the attempt out.
        params.not_before -= A_DAY;
        Ok(self.issue(&params, &AgentKey(der(key)))?.pem())
    }
}

/// A certificate that is good for a client and nothing else.
fn client(name: &str, uri: String, length: Duration, now: Moment) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| failed(&error))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(|error| failed(&error))?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, length);
    Ok(params)
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::system(format!("making a client's certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_as_we_write_it_names_a_person() {
        assert_eq!(
            person("urn:z-orchestrator:role:operator:ada@example.com"),
            Some((Role::Operator, "ada@example.com"))
        );
        assert_eq!(person("urn:z-orchestrator:role:viewer:wall-3"), Some((Role::Viewer, "wall-3")));
        for uri in [
            "urn:z-orchestrator:role:king:ada",
            "urn:z-orchestrator:role:operator:",
            "urn:z-orchestrator:role:operator:a b",
            "urn:z-orchestrator:role:operator:a:b",
            "urn:z-orchestrator:role:operator",
            "URN:z-orchestrator:role:operator:ada",
            "urn:z-orchestrator:attempt:r-1:1",
            "",
        ] {
            assert_eq!(person(uri), None, "{uri}");
        }
        assert_eq!(person(&format!("urn:z-orchestrator:role:viewer:{}", "a".repeat(65))), None);
    }

    #[test]
    fn the_key_in_a_certificate_is_the_agents_to_the_byte() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let der = key.subject_public_key_info();
        let text = ClientKey::try_from(URL_SAFE_NO_PAD.encode(&der)).unwrap();
        assert_eq!(AgentKey(self::der(&text)).subject_public_key_info(), der);
        assert_eq!(digest_of(&text), sha256(&der));
    }
}
