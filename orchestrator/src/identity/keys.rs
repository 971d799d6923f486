//! What the engine asks of keys: it knows no cryptography itself.

use protocol::{ClientKey, Digest, RunId, Token};

use super::{Authority, Grant, SessionKey, TicketKey, VALIDITY, issuing, tokens};
use crate::engine::Credentials;
use crate::model::{Moment, Record};

/// The keys by which attempts are known, and by which they are allowed.
#[derive(Debug)]
pub struct Keys {
    /// What session tokens are computed with.
    pub sessions: SessionKey,
    /// Who issues the certificates of attempts.
    pub authority: Authority,
    /// What tickets are signed with.
    pub tickets: TicketKey,
}

impl Credentials for Keys {
    fn new_token(&self) -> Result<Token, String> {
        tokens::random().map_err(|error| error.to_string())
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
        let issued = self.authority.issue_attempt(run, attempt, key, VALIDITY, Moment::of_wall_clock());
        issued.map_err(|error| error.to_string())
    }

    fn ticket(&self, record: &Record, spec: &str, nonce: &Token) -> Result<String, String> {
        let (run, attempt, order) = (&record.run, record.attempt(), &record.order);
        let client_key = record.current().and_then(|current| current.client_key.as_ref());
        let grant = Grant { run, attempt, order, spec, nonce, client_key };
        self.tickets.issue(&grant, Moment::of_wall_clock()).map_err(|error| error.to_string())
    }
}
