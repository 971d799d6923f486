//! What the engine asks of keys: it knows no cryptography itself.

use protocol::{Digest, RunId, Token};

use super::{Grant, SessionKey, TicketKey, tokens};
use crate::engine::Credentials;
use crate::model::{Moment, Record};

/// The keys by which attempts are known, and by which they are allowed.
#[derive(Debug)]
pub struct Keys {
    /// What session tokens are computed with.
    pub sessions: SessionKey,
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

    fn ticket(&self, record: &Record, spec: &str, nonce: &Token) -> Result<String, String> {
        let (run, attempt, order) = (&record.run, record.attempt(), &record.order);
        let grant = Grant { run, attempt, order, spec, nonce, client_key: None };
        self.tickets.issue(&grant, Moment::of_wall_clock()).map_err(|error| error.to_string())
    }
}
