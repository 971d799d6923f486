//! People and platforms: what proves who they are, and what they may do then. Agents are known elsewhere: by their session token.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{Digest, Token};
use serde::{Deserialize, Serialize};

use super::tokens::{self, SessionKey};
use super::{Folder, OPERATOR_TOKEN, VIEWER_TOKEN};
use crate::error::Result;
use crate::model::Moment;

/// How long a browser's session lasts.
pub const BROWSER_SESSION: Duration = Duration::from_secs(12 * 3600);
/// Longest cookie that is read, in bytes.
const MAX_COOKIE: usize = 1024;
const BROWSER: &[u8] = b"z-orchestrator browser v1";

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and act.
    Operator,
}

impl Role {
    /// As it is written in certificates and answers.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }
}

/// Who somebody has proven to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Who {
    /// What they may do.
    pub role: Role,
    /// The name in their certificate, or which token they have.
    pub name: String,
}

/// Somebody, and what it is by which they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who it is.
    pub who: Who,
    /// What a session of theirs depends on.
    pub(crate) proof: Proof,
}

/// What a session depends on: it is void without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The token of their role.
    Token,
}

/// What a cookie says. The HMAC beside it is over these very bytes and the digest of the token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cookie {
    who: Who,
    until: Moment,
}

/// The people that the service knows.
#[derive(Debug, Clone)]
pub struct People {
    operator: Digest,
    viewer: Digest,
    sessions: SessionKey,
}

impl People {
    /// Those whose tokens have these digests. `sessions` signs what browsers keep.
    pub fn new(operator: Digest, viewer: Digest, sessions: SessionKey) -> Self {
        People { operator, viewer, sessions }
    }

    /// Those whose tokens are in the data folder. What is missing there is made.
    ///
    /// # Errors
    /// A file cannot be read or made, others may read it, or it holds something else.
    pub fn open(folder: &Folder, sessions: SessionKey) -> Result<Self> {
        let (operator, viewer) = (tokens::of_people(folder, OPERATOR_TOKEN)?, tokens::of_people(folder, VIEWER_TOKEN)?);
        Ok(Self::new(operator, viewer, sessions))
    }

    /// Whose token this is.
    pub fn by_token(&self, token: &Token) -> Option<Known> {
        let of = |role| tokens::matches(token, self.token_of(role)).then_some(role);
        // Both are compared, whichever it is.
        let (operator, viewer) = (of(Role::Operator), of(Role::Viewer));
        let role = operator.or(viewer)?;
        Some(Known { who: Who { role, name: format!("{} token", role.name()) }, proof: Proof::Token })
    }

    /// A session for a browser: what it keeps, and for how long. Nothing of it is kept here.
    pub fn begin_session(&self, known: &Known, now: Moment) -> (String, Duration) {
        let until = now.after(BROWSER_SESSION);
        let cookie = Cookie { who: known.who.clone(), until };
        // It is made of texts and numbers: nothing of it can fail to be written.
        let said = serde_json::to_vec(&cookie).unwrap_or_default();
        let tag = self.sessions.tag(&self.parts(&cookie, &said));
        (format!("{}.{}", URL_SAFE_NO_PAD.encode(&said), URL_SAFE_NO_PAD.encode(tag)), until.from_now(now))
    }

    /// Whose session this is. `None` where it is over, of another service, or what it was begun with counts no more.
    pub fn by_session(&self, text: &str, now: Moment) -> Option<Known> {
        let (said, tag) = text.split_once('.').filter(|_| text.len() <= MAX_COOKIE)?;
        let (said, tag) = (URL_SAFE_NO_PAD.decode(said).ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?);
        // Which token it is about must be read before it can be believed; nothing else of it is used until then.
        let cookie: Cookie = serde_json::from_slice(&said).ok()?;
        if !self.sessions.is_tag(&self.parts(&cookie, &said), &tag) || cookie.until <= now {
            return None;
        }
        Some(Known { who: cookie.who, proof: Proof::Token })
    }

    fn token_of(&self, role: Role) -> &Digest {
        match role {
            Role::Operator => &self.operator,
            Role::Viewer => &self.viewer,
        }
    }

    fn parts<'a>(&'a self, cookie: &Cookie, said: &'a [u8]) -> [&'a [u8]; 3] {
        [BROWSER, said, self.token_of(cookie.who.role).as_str().as_bytes()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_800_000_000_000);

    fn people(operator: &Token, viewer: &Token) -> People {
        People::new(tokens::digest(operator), tokens::digest(viewer), SessionKey::new(&[7; 32]))
    }

    #[test]
    fn a_token_has_a_role_and_another_has_none() {
        let (operator, viewer) = (tokens::random().unwrap(), tokens::random().unwrap());
        let people = people(&operator, &viewer);
        let known = people.by_token(&operator).unwrap().who;
        assert_eq!((known.role, known.name.as_str()), (Role::Operator, "operator token"));
        let known = people.by_token(&viewer).unwrap().who;
        assert_eq!((known.role, known.name.as_str()), (Role::Viewer, "viewer token"));
        assert_eq!(people.by_token(&tokens::random().unwrap()), None);
    }

    #[test]
    fn a_session_lasts_as_long_as_its_time_its_token_and_its_key() {
        let (operator, viewer) = (tokens::random().unwrap(), tokens::random().unwrap());
        let before = people(&operator, &viewer);
        let known = before.by_token(&operator).unwrap();
        let (cookie, length) = before.begin_session(&known, NOW);
        assert_eq!(length, BROWSER_SESSION);
        assert!(cookie.len() < 256 && !cookie.contains(operator.reveal()), "{cookie}");
        // Another process with the same files knows it.
        let after = people(&operator, &viewer);
        assert_eq!(after.by_session(&cookie, NOW), Some(known.clone()));
        let last = NOW.after(BROWSER_SESSION);
        assert_eq!(after.by_session(&cookie, Moment(last.0 - 1)), Some(known));
        assert_eq!(after.by_session(&cookie, last), None);
        // The viewer's token was replaced: that is nothing to an operator. Then the operator's was.
        let stranger = tokens::random().unwrap();
        assert!(people(&operator, &stranger).by_session(&cookie, NOW).is_some());
        assert_eq!(people(&stranger, &viewer).by_session(&cookie, NOW), None);
        let other = People::new(tokens::digest(&operator), tokens::digest(&viewer), SessionKey::new(&[8; 32]));
        assert_eq!(other.by_session(&cookie, NOW), None);
    }

    #[test]
    fn a_session_says_what_it_said_or_nothing() {
        let (operator, viewer) = (tokens::random().unwrap(), tokens::random().unwrap());
        let people = people(&operator, &viewer);
        let (cookie, _) = people.begin_session(&people.by_token(&viewer).unwrap(), NOW);
        let (said, tag) = cookie.split_once('.').unwrap();
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(said).unwrap()).unwrap();
        for (from, to) in [("\"viewer\"", "\"operator\""), ("viewer token", "somebody"), ("18", "28")] {
            assert!(text.contains(from), "{text}");
            let forged = format!("{}.{tag}", URL_SAFE_NO_PAD.encode(text.replacen(from, to, 1)));
            assert_eq!(people.by_session(&forged, NOW), None, "{from} became {to}");
        }
        for (at, _) in cookie.char_indices() {
            let mut flipped = cookie.clone().into_bytes();
            flipped[at] ^= 1;
            assert_eq!(people.by_session(&String::from_utf8_lossy(&flipped), NOW), None, "byte {at}");
        }
        for nonsense in ["", ".", "x", "a.b", &"a".repeat(MAX_COOKIE + 1), &format!("{said}.")] {
            assert_eq!(people.by_session(nonsense, NOW), None, "{nonsense}");
        }
    }
}
