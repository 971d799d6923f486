//! People and platforms: what proves who they are, and what they may do then. Agents are known elsewhere: by session token and key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::control::problem::{Code, Problem};
use protocol::{Digest, Token};
use serde::{Deserialize, Serialize};

use super::revoked::Revoked;
use super::tokens::{self, SessionKey};
use super::{Clients, Folder, OPERATOR_TOKEN, Shown, VIEWER_TOKEN, issuing};
use crate::config;
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
    /// The token of their role; in a session, until then.
    Token { until: Option<Moment> },
    /// This certificate, which another authority than our own may have issued.
    Certificate { fingerprint: Digest, is_ours: bool, until: Moment },
}

/// What a cookie says. The HMAC beside it is over these very bytes, and the digest of the token or of the authorities.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cookie {
    who: Who,
    until: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Digest>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_given: bool,
}

/// What certificates prove.
#[derive(Debug)]
pub struct Certified {
    /// Which authorities there are.
    authorities: Digest,
    /// The names in certificates of the given authority, by role.
    operators: Vec<String>,
    viewers: Vec<String>,
    revoked: Revoked,
}

impl Certified {
    /// Of clients of these authorities, with the names that the configuration gives roles to, but for those in the file `revoked`.
    pub fn new(clients: &Clients, config: &config::Clients, revoked: PathBuf) -> Self {
        let config::Clients { operators, viewers, .. } = config.clone();
        Certified { authorities: clients.digest().clone(), operators, viewers, revoked: Revoked::new(revoked) }
    }

    /// The role in a certificate of ours, or the one that the configuration gives to a name in another's.
    fn role(&self, shown: &Shown) -> Option<Who> {
        if shown.is_ours {
            let mut people = shown.uris.iter().filter_map(|uri| issuing::person(uri));
            return people.next().map(|(role, name)| Who { role, name: name.to_owned() });
        }
        let names = || shown.names.iter().chain(&shown.uris);
        [Role::Operator, Role::Viewer].into_iter().find_map(|role| {
            let name = names().find(|name| self.is_given(role, name))?;
            Some(Who { role, name: name.clone() })
        })
    }

    fn is_given(&self, role: Role, name: &String) -> bool {
        match role {
            Role::Operator => self.operators.contains(name),
            Role::Viewer => self.viewers.contains(name),
        }
    }
}

/// The people that the service knows.
#[derive(Debug, Clone)]
pub struct People {
    operator: Digest,
    viewer: Digest,
    sessions: SessionKey,
    certified: Option<Arc<Certified>>,
}

impl People {
    /// Those whose tokens have these digests. `sessions` signs what browsers keep.
    pub fn new(operator: Digest, viewer: Digest, sessions: SessionKey) -> Self {
        People { operator, viewer, sessions, certified: None }
    }

    /// And those who show certificates.
    #[must_use]
    pub fn with_certificates(mut self, certified: Certified) -> Self {
        self.certified = Some(Arc::new(certified));
        self
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
        Some(Known { who: Who { role, name: format!("{} token", role.name()) }, proof: Proof::Token { until: None } })
    }

    /// Whose certificate this is. `None` where it is no person's.
    ///
    /// # Errors
    /// `unauthorized` where it was a person's and is good no more; `unavailable` where that cannot be found out.
    pub fn by_certificate(&self, shown: &Shown, now: Moment) -> Result<Option<Known>, Problem> {
        let Some((certified, who)) = self.certified.as_ref().and_then(|all| Some((all, all.role(shown)?))) else {
            return Ok(None);
        };
        let void = |why: &str| {
            Problem::new(Code::Unauthorized, format!("the certificate of {} {why}", who.name)).with_hint(
                "ask for a new one: z-orchestrator certificate NAME --role ROLE, or whoever issues them here",
            )
        };
        if shown.until <= now {
            return Err(void("has expired"));
        }
        match certified.revoked.contains(&shown.fingerprint) {
            Ok(false) => {}
            Ok(true) => return Err(void("was revoked")),
            Err(why) => {
                tracing::error!(why, "which certificates were revoked is not known: none counts");
                return Err(Problem::new(Code::Unavailable, "which certificates were revoked is not known now")
                    .with_hint("the service's log says what is wrong with the file `revoked`"));
            }
        }
        let (fingerprint, is_ours, until) = (shown.fingerprint.clone(), shown.is_ours, shown.until);
        Ok(Some(Known { who, proof: Proof::Certificate { fingerprint, is_ours, until } }))
    }

    /// A session for a browser: what it keeps, and for how long. Nothing of it is kept here.
    pub fn begin_session(&self, known: &Known, now: Moment) -> (String, Duration) {
        let longest = now.after(BROWSER_SESSION);
        let (until, certificate, is_given) = match &known.proof {
            Proof::Token { .. } => (longest, None, false),
            Proof::Certificate { fingerprint, is_ours, until } => {
                (longest.min(*until), Some(fingerprint.clone()), !is_ours)
            }
        };
        let cookie = Cookie { who: known.who.clone(), until, certificate, is_given };
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
        let Cookie { who, until, certificate, is_given } = cookie;
        let proof = match certificate {
            None => Proof::Token { until: Some(until) },
            Some(fingerprint) => {
                let certified = self.certified.as_ref()?;
                let has_role = !is_given || certified.is_given(who.role, &who.name);
                // In doubt it was revoked.
                if !has_role || certified.revoked.contains(&fingerprint).unwrap_or(true) {
                    return None;
                }
                Proof::Certificate { fingerprint, is_ours: !is_given, until }
            }
        };
        Some(Known { who, proof })
    }

    /// Whether somebody who was known still is: for answers that last. A token is good as long as the process has it, a session until its end.
    pub fn still_knows(&self, known: &Known, now: Moment) -> bool {
        match &known.proof {
            Proof::Token { until } => until.is_none_or(|until| until > now),
            Proof::Certificate { fingerprint, until, .. } => {
                let revoked = self.certified.as_ref().map(|certified| certified.revoked.contains(fingerprint));
                *until > now && revoked == Some(Ok(false))
            }
        }
    }

    fn token_of(&self, role: Role) -> &Digest {
        match role {
            Role::Operator => &self.operator,
            Role::Viewer => &self.viewer,
        }
    }

    fn parts<'a>(&'a self, cookie: &Cookie, said: &'a [u8]) -> [&'a [u8]; 3] {
        // A token's digest and the authorities' stand in the same place: which it is, is in what is said.
        let authorities = self.certified.as_ref().filter(|_| cookie.certificate.is_some());
        let proof = authorities.map_or(self.token_of(cookie.who.role), |certified| &certified.authorities);
        [BROWSER, said, proof.as_str().as_bytes()]
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
        let last = NOW.after(BROWSER_SESSION);
        let session = after.by_session(&cookie, NOW).unwrap();
        assert_eq!((&session.who, after.by_session(&cookie, Moment(last.0 - 1))), (&known.who, Some(session.clone())));
        // An answer that lasts ends with it.
        assert!(after.still_knows(&session, Moment(last.0 - 1)) && !after.still_knows(&session, last));
        assert!(after.still_knows(&known, last), "a token has no end");
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

    fn shown(is_ours: bool, uri: &str, dns: &str, until: Moment) -> Shown {
        let (fingerprint, key) = (tokens::sha256(uri.as_bytes()), tokens::sha256(b"key"));
        let (uris, names) = (vec![uri.into()], vec![dns.into()]);
        Shown { fingerprint, key, client_key: None, is_ours, until, ends: std::time::Instant::now(), uris, names }
    }

    /// People with certificates, of a service with this authority, which gives this name a role.
    fn certified(folder: &std::path::Path, data: &str, operator: &str) -> People {
        let data = Folder::open(&folder.join(data)).unwrap();
        let clients = Clients::open(&super::super::Authority::open(&data, NOW).unwrap(), None).unwrap();
        let config = config::Clients { operators: vec![operator.into()], ..config::Clients::default() };
        let nobody = tokens::sha256(b"nobody's");
        let people = People::new(nobody.clone(), nobody, SessionKey::new(&[7; 32]));
        people.with_certificates(Certified::new(&clients, &config, folder.join("revoked")))
    }

    #[test]
    fn a_session_begun_with_a_certificate_ends_with_it() {
        let temporary = tempfile::tempdir().unwrap();
        let people = certified(temporary.path(), "data", "ci.example.com");
        let soon = NOW.after(Duration::from_secs(60));
        let ada = shown(true, "urn:z-orchestrator:role:operator:ada", "ci.example.org", soon);
        let known = people.by_certificate(&ada, NOW).unwrap().unwrap();
        assert_eq!((known.who.role, known.who.name.as_str()), (Role::Operator, "ada"));
        assert_eq!(people.by_certificate(&ada, soon).unwrap_err().code, Code::Unauthorized);
        let (cookie, length) = people.begin_session(&known, NOW);
        assert_eq!(length, Duration::from_secs(60));
        assert_eq!(people.by_session(&cookie, NOW), Some(known.clone()));
        assert_eq!(people.by_session(&cookie, soon), None);
        // Another authority, or none: its certificates are not known any more.
        assert_eq!(certified(temporary.path(), "other", "ci.example.com").by_session(&cookie, NOW), None);
        let nobody = tokens::sha256(b"nobody's");
        let without = People::new(nobody.clone(), nobody, SessionKey::new(&[7; 32]));
        assert_eq!((without.by_session(&cookie, NOW), without.by_certificate(&ada, NOW)), (None, Ok(None)));
        assert!(people.still_knows(&known, NOW) && !people.still_knows(&known, soon));
        std::fs::write(temporary.path().join("revoked"), ada.fingerprint.as_str()).unwrap();
        assert!(!people.still_knows(&known, NOW));
        assert_eq!(people.by_certificate(&ada, NOW).unwrap_err().code, Code::Unauthorized);
        assert_eq!(people.by_session(&cookie, NOW), None);
    }

    #[test]
    fn a_name_in_anothers_certificate_has_the_role_that_the_configuration_gives_it() {
        let temporary = tempfile::tempdir().unwrap();
        let people = certified(temporary.path(), "data", "ci.example.com");
        let far = NOW.after(BROWSER_SESSION * 2);
        let role = "urn:z-orchestrator:role:operator:eve";
        let theirs = shown(false, role, "ci.example.com", far);
        let known = people.by_certificate(&theirs, NOW).unwrap().unwrap();
        assert_eq!((known.who.role, known.who.name.as_str()), (Role::Operator, "ci.example.com"));
        assert_eq!(people.by_certificate(&shown(false, role, "eve.example.com", far), NOW), Ok(None));
        // The same name in ours gives nothing, and an agent's is nobody's.
        let ours = shown(true, "urn:z-orchestrator:attempt:r-1:1", "ci.example.com", far);
        assert_eq!(people.by_certificate(&ours, NOW), Ok(None));
        let (cookie, length) = people.begin_session(&known, NOW);
        assert_eq!(length, BROWSER_SESSION);
        assert_eq!(people.by_session(&cookie, NOW).unwrap().who, known.who);
        assert_eq!(certified(temporary.path(), "data", "else.example.com").by_session(&cookie, NOW), None);
    }
}
