//! What the engine asks of keys: it knows no cryptography itself.

use std::time::Duration;

use protocol::{ClientKey, Digest, RunId, Token};

use super::{Authority, Grant, SessionKey, TicketKey, issuing, tokens};
use crate::engine::{Agent, Credentials, Standing};
use crate::model::{Moment, Record};

/// The keys by which attempts are known, and by which they are allowed.
#[derive(Debug)]
pub struct Keys {
    /// What session tokens are computed with, and enrolment tokens made.
    pub sessions: SessionKey,
    /// Who issues the certificates of attempts.
    pub authority: Authority,
    /// What tickets are signed with.
    pub tickets: TicketKey,
    /// How long such a certificate is good.
    pub validity: Duration,
}

impl Credentials for Keys {
    fn new_token(&self) -> Result<Token, String> {
        self.sessions.enrolment().map_err(|error| error.to_string())
    }

    fn digest(&self, token: &Token) -> Digest {
        tokens::digest(token)
    }

    fn digest_of(&self, text: &str) -> Digest {
        tokens::sha256(text.as_bytes())
    }

    fn session(&self, run: &RunId, attempt: u32, nonce: &Digest) -> Token {
        self.sessions.session(run, attempt, nonce)
    }

    fn is_same(&self, one: &Token, other: &Token) -> bool {
        tokens::is_same(one, other)
    }

    fn digest_of_key(&self, key: &ClientKey) -> Digest {
        issuing::digest_of(key)
    }

    fn certificate(&self, run: &RunId, attempt: u32, key: &ClientKey) -> Result<String, String> {
        let issued = self.authority.issue_attempt(run, attempt, key, self.validity, Moment::of_wall_clock());
        issued.map_err(|error| error.to_string())
    }

    fn renewed(&self, agent: &Agent, shown: Standing<'_>) -> Result<Option<String>, String> {
        (shown.left < self.validity / 2).then(|| self.certificate(&agent.run, agent.attempt, shown.key)).transpose()
    }

    fn ticket(&self, record: &Record, spec: &str, nonce: &Token) -> Result<String, String> {
        let (run, attempt, order) = (&record.run, record.attempt(), &record.order);
        let client_key = record.current().and_then(|current| current.client_key.as_ref());
        let grant = Grant { run, attempt, order, spec, nonce, client_key };
        self.tickets.issue(&grant, Moment::of_wall_clock()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rcgen::{KeyPair, PublicKeyData};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::super::{Clients, Folder};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_certificate_is_renewed_over_its_own_key_once_half_of_it_has_passed() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let now = Moment::of_wall_clock();
        let keys = Keys {
            sessions: SessionKey::open(&folder).unwrap(),
            authority: Authority::open(&folder, now).unwrap(),
            tickets: TicketKey::open(&folder).unwrap(),
            validity: 4 * HOUR,
        };
        let clients = Clients::open(&keys.authority, None).unwrap();
        let shown = |pem: &str| clients.shown(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), now).unwrap();
        let pair = KeyPair::generate().unwrap();
        let key = ClientKey::try_from(URL_SAFE_NO_PAD.encode(pair.subject_public_key_info())).unwrap();
        let agent = Agent { run: "r-1".to_owned().try_into().unwrap(), attempt: 2 };
        let first = shown(&keys.certificate(&agent.run, 2, &key).unwrap());
        assert_eq!(first.client_key.as_ref(), Some(&key));
        let renewed = |left| keys.renewed(&agent, Standing { key: &key, left }).unwrap();
        assert_eq!((renewed(4 * HOUR), renewed(2 * HOUR)), (None, None));
        let second = shown(&renewed(2 * HOUR - HOUR / 60).unwrap());
        assert_eq!((&second.key, &second.uris, second.is_ours), (&first.key, &first.uris, true));
        assert!(second.fingerprint != first.fingerprint && second.until >= first.until);
    }
}
