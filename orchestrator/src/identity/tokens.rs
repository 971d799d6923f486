//! Tokens: random ones, of which the service keeps digests only; of these, enrolment tokens, by which it is seen that the service has made
//! them; and sessions' ones, which are computed and kept nowhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{Digest, RunId, Token};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::Folder;
use crate::error::{Error, Result};

const SESSION: &str = "session.key";
const KEY_LEN: usize = 32;
/// Random bytes of an enrolment token, and bytes of its tag.
const HALF: usize = KEY_LEN / 2;

/// A new token: 32 random bytes.
///
/// # Errors
/// The system gives no random numbers.
pub fn random() -> Result<Token> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    fill(&mut bytes[..])?;
    Ok(token(&bytes))
}

/// What the service keeps of a token: the SHA-256 of its text.
pub fn digest(token: &Token) -> Digest {
    sha256(token.reveal().as_bytes())
}

/// Whether a digest is that of a token. How long it takes says nothing about either.
pub fn matches(token: &Token, expected: &Digest) -> bool {
    is_equal(digest(token).as_str().as_bytes(), expected.as_str().as_bytes())
}

/// Whether two tokens are the same. How long it takes says nothing about either.
pub fn is_same(one: &Token, other: &Token) -> bool {
    is_equal(one.reveal().as_bytes(), other.reveal().as_bytes())
}

fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let pairs = one.iter().zip(other);
    let differences = pairs.fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
    one.len() == other.len() && differences == 0
}

/// The token in one of the folder's files, which is made at the first start: its digest. Whoever removes the file gets a new one at the next
/// start.
///
/// # Errors
/// The file cannot be read or made, others may read it, or it holds something else.
pub fn of_people(folder: &Folder, file: &str) -> Result<Digest> {
    if let Some(bytes) = folder.read_secret(file, 256)? {
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim().to_owned();
        let token = Token::try_from(text).map_err(|error| {
            Error::refused(format!("{}: {error}", folder.file(file).display()))
                .with_hint("remove it, and a new one is made")
        })?;
        return Ok(digest(&token));
    }
    let token = random()?;
    let line = Zeroizing::new(format!("{}\n", token.reveal()));
    folder.write_secret(file, line.as_bytes())?;
    Ok(digest(&token))
}

/// What session tokens are computed with, and enrolment tokens known by. Nothing about sessions is stored, so they outlive a restart as long
/// as this key does.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl SessionKey {
    /// The data folder's key, made at the first start.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or it holds something else.
    pub fn open(folder: &Folder) -> Result<Self> {
        if let Some(bytes) = folder.read_secret(SESSION, KEY_LEN)? {
            let bytes: &[u8; KEY_LEN] = bytes.as_slice().try_into().map_err(|_| {
                Error::refused(format!("{} has {} bytes, not {KEY_LEN}", folder.file(SESSION).display(), bytes.len()))
                    .with_hint("remove it, and a new one is made: agents that are running then lose their session")
            })?;
            return Ok(Self::new(bytes));
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        fill(&mut bytes[..])?;
        folder.write_secret(SESSION, &bytes[..])?;
        Ok(Self::new(&bytes))
    }

    /// A key of these bytes.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        SessionKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The session token of an attempt, for the process that has enrolled with a nonce of this digest.
    pub fn session(&self, run: &RunId, attempt: u32, nonce: &Digest) -> Token {
        token(&self.tag(&of_attempt(run, &attempt.to_be_bytes(), nonce)))
    }

    /// Whether a token is [`Self::session`]'s for these. How long it takes says nothing about the right one.
    pub fn is_session(&self, session: &Token, run: &RunId, attempt: u32, nonce: &Digest) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(session.reveal()).map(Zeroizing::new) else { return false };
        self.is_tag(&of_attempt(run, &attempt.to_be_bytes(), nonce), &tag)
    }

    /// A new enrolment token: 16 random bytes and as many of the HMAC over them.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn enrolment(&self) -> Result<Token> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        let (random, tag) = bytes.split_at_mut(HALF);
        fill(random)?;
        tag.copy_from_slice(&self.tag(&of_enrolment(random))[..HALF]);
        Ok(token(&bytes))
    }

    /// Whether this service has ever made an enrolment token, be it void since or not. That one is good only the engine can say.
    pub fn has_made(&self, enrolment: &Token) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(enrolment.reveal()).map(Zeroizing::new) else { return false };
        let Some((random, tag)) = bytes.split_at_checked(HALF) else { return false };
        let expected = self.tag(&of_enrolment(random));
        is_equal(tag, &expected[..HALF])
    }

    /// The HMAC over these parts. The first says what they are, so that none is taken for another.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(hmac::sign(&self.0, &message(parts)).as_ref());
        bytes
    }

    /// Whether this is [`Self::tag`] of these parts. How long it takes says nothing about the right one.
    pub(super) fn is_tag(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        hmac::verify(&self.0, &message(parts), tag).is_ok()
    }
}

/// What the session token of an attempt is the HMAC of.
fn of_attempt<'a>(run: &'a RunId, attempt: &'a [u8; 4], nonce: &'a Digest) -> [&'a [u8]; 4] {
    [b"z-orchestrator session v1", run.as_str().as_bytes(), attempt, nonce.as_str().as_bytes()]
}

/// What half of an enrolment token is the HMAC of.
fn of_enrolment(random: &[u8]) -> [&[u8]; 2] {
    [b"z-orchestrator enrolment v1", random]
}

/// The parts, each with its length before it: no two different sets of parts have the same bytes.
fn message(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// SHA-256 as the protocol writes it.
pub fn sha256(bytes: &[u8]) -> Digest {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in ring::digest::digest(&ring::digest::SHA256, bytes).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    match Digest::try_from(text) {
        Ok(digest) => digest,
        Err(_) => unreachable!("32 bytes are 64 hex digits"),
    }
}

fn token(bytes: &[u8; KEY_LEN]) -> Token {
    match Token::try_from(URL_SAFE_NO_PAD.encode(bytes)) {
        Ok(token) => token,
        Err(_) => unreachable!("32 bytes are 43 characters of base64url"),
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| {
        Error::system("the system's random number generator failed").with_hint("is getrandom(2) allowed here?")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(name: &str) -> RunId {
        name.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let (token, other) = (random().unwrap(), random().unwrap());
        assert!(matches(&token, &digest(&token)) && !matches(&other, &digest(&token)));
        assert!(is_same(&token, &token.clone()) && !is_same(&token, &other));
        let known = Token::try_from("A".repeat(43)).unwrap();
        // printf A…A | sha256sum
        assert_eq!(digest(&known), sha256("A".repeat(43).as_bytes()));
        assert_eq!(sha256(b"abc").as_str(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_session_is_of_one_run_one_attempt_one_process_and_one_key() {
        let (key, other) = (SessionKey::new(&[1; 32]), SessionKey::new(&[2; 32]));
        let (nonce, stranger) = (sha256(b"nonce"), sha256(b"stranger"));
        let session = key.session(&run("a"), 1, &nonce);
        assert_eq!(session, key.session(&run("a"), 1, &nonce));
        assert!(key.is_session(&session, &run("a"), 1, &nonce));
        assert!(!key.is_session(&session, &run("b"), 1, &nonce));
        assert!(!key.is_session(&session, &run("a"), 2, &nonce));
        assert!(!key.is_session(&session, &run("a"), 1, &stranger));
        assert!(!other.is_session(&session, &run("a"), 1, &nonce));
        assert!(!key.is_session(&Token::try_from("-".repeat(43)).unwrap(), &run("a"), 1, &nonce));
        assert!(!key.is_session(&random().unwrap(), &run("a"), 1, &nonce));
    }

    #[test]
    fn it_is_seen_which_service_has_made_an_enrolment_token() {
        let (key, other) = (SessionKey::new(&[1; 32]), SessionKey::new(&[2; 32]));
        let made = key.enrolment().unwrap();
        assert!(key.has_made(&made) && !other.has_made(&made));
        assert_ne!(made, key.enrolment().unwrap());
        assert!(!key.has_made(&random().unwrap()) && !key.has_made(&key.session(&run("a"), 1, &sha256(b"n"))));
        // Each of its bits counts.
        let bytes = URL_SAFE_NO_PAD.decode(made.reveal()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut wrong: [u8; KEY_LEN] = bytes.as_slice().try_into().unwrap();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.has_made(&token(&wrong)), "{bit}");
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let key = SessionKey::new(&[b'k'; 32]);
        let session = key.session(&run("a"), 1, &sha256(b"n"));
        let shown = format!("{key:?} {session:?}");
        assert_eq!(shown, "SessionKey(…) Token(…)");
    }

    #[test]
    fn tokens_and_sessions_outlive_a_restart_and_nonsense_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let (first, session) = (
            of_people(&folder, "operator.token").unwrap(),
            SessionKey::open(&folder).unwrap().session(&run("a"), 1, &sha256(b"n")),
        );
        assert_eq!(of_people(&folder, "operator.token").unwrap(), first);
        let again = SessionKey::open(&folder).unwrap().session(&run("a"), 1, &sha256(b"n"));
        assert_eq!(again, session);
        let text = std::fs::read_to_string(folder.file("operator.token")).unwrap();
        assert_eq!(digest(&Token::try_from(text.trim().to_owned()).unwrap()), first);
        folder.write_secret("operator.token", b"letmein").unwrap();
        let error = of_people(&folder, "operator.token").unwrap_err();
        assert!(!error.lines().contains("letmein"));
        folder.write_secret("session.key", b"short").unwrap();
        SessionKey::open(&folder).unwrap_err();
    }

    proptest! {
        #[test]
        fn different_parts_are_different_messages(
            a in "[a-z0-9]{1,8}", b in "[a-z0-9]{1,8}", m in 0u32..4, n in 0u32..4
        ) {
            let nonce = sha256(b"n");
            let same = message(&of_attempt(&run(&a), &m.to_be_bytes(), &nonce))
                == message(&of_attempt(&run(&b), &n.to_be_bytes(), &nonce));
            prop_assert_eq!(same, a == b && m == n);
        }
    }
}
