//! Seals keys with AES-256-GCM. What is sealed says for which run: under another one it does not open. It names its KEK as well, so that
//! the KEK can be changed: what one of before has sealed still opens, and is sealed anew.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, FutureExt, ready};
use protocol::{RunId, UnlockKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Kek;
use crate::engine::{Keeper, KeeperError};
use crate::error::{Error, Result};
use crate::model::Sealed;

/// Which form of sealing this is. It stands in what is sealed, and in what its seal is computed over.
const VERSION: &str = "z-orchestrator-key-1";

/// Keeps keys in the runs' own records.
pub struct Sealer {
    current: Cipher,
    /// Those that open only.
    previous: Vec<Cipher>,
    random: SystemRandom,
    /// Whether it was said that nothing is sealed with those any more.
    said: AtomicBool,
}

/// A KEK at work.
struct Cipher {
    key: LessSafeKey,
    /// Which KEK that is.
    id: String,
}

impl Cipher {
    fn new(kek: &Kek) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, kek.reveal());
        let key = key.map_err(|_| Error::system("the key-encryption key does not fit its cipher"))?;
        Ok(Cipher { key: LessSafeKey::new(key), id: kek.id() })
    }
}

/// What is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: String,
    /// The id of the KEK.
    kek: String,
    nonce: String,
    key: String,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(KEK {})", self.id())
    }
}

impl Sealer {
    /// With this key.
    ///
    /// # Errors
    /// None that can happen: a KEK has the length that the cipher wants.
    pub fn new(kek: &Kek) -> Result<Self> {
        let current = Cipher::new(kek)?;
        Ok(Sealer { current, previous: Vec::new(), random: SystemRandom::new(), said: AtomicBool::new(false) })
    }

    /// The same, that opens what these have sealed as well.
    ///
    /// # Errors
    /// One of them is the one that it seals with.
    pub fn with_previous(mut self, previous: &[Kek]) -> Result<Self> {
        self.previous = previous.iter().map(Cipher::new).collect::<Result<_>>()?;
        if self.previous.iter().any(|previous| previous.id == self.current.id) {
            let detail = format!("`keys.previous` has the key-encryption key {}, which is the present one", self.id());
            return Err(Error::usage(detail).with_hint(
                "to change it, put another one (`head -c 32 /dev/urandom | base64`, mode 600) where the present one is; else take it out of `keys.previous`",
            ));
        }
        Ok(self)
    }

    /// Which KEK it seals with.
    pub fn id(&self) -> &str {
        &self.current.id
    }

    /// Which KEKs it opens with besides that.
    pub fn previous(&self) -> impl Iterator<Item = &str> {
        self.previous.iter().map(|cipher| cipher.id.as_str())
    }

    fn make(&self, run: &RunId) -> Result<Sealed, KeeperError> {
        let mut bytes = Zeroizing::new([0; UnlockKey::BYTES]);
        self.random.fill(&mut bytes[..]).map_err(|_| defect(run, "the system gives no random numbers"))?;
        self.seal(run, &UnlockKey::of(&bytes))
    }

    fn seal(&self, run: &RunId, key: &UnlockKey) -> Result<Sealed, KeeperError> {
        // 96 random bits: a service seals far fewer than 2^32 keys with one KEK.
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| defect(run, "the system gives no random numbers"))?;
        // Room for the tag: it must not move while it is not encrypted.
        let mut text = Zeroizing::new(Vec::with_capacity(UnlockKey::LEN + AES_256_GCM.tag_len()));
        text.extend_from_slice(key.reveal().as_bytes());
        let (nonce_of, cipher) = (Nonce::assume_unique_for_key(nonce), &self.current);
        let sealed = cipher.key.seal_in_place_append_tag(nonce_of, context(run), &mut *text);
        sealed.map_err(|_| defect(run, "it does not encrypt"))?;
        let envelope = Envelope {
            version: VERSION.into(),
            kek: cipher.id.clone(),
            nonce: STANDARD.encode(nonce),
            key: STANDARD.encode(&*text),
        };
        let text = serde_json::to_string(&envelope).map_err(|error| defect(run, &error.to_string()))?;
        Ok(Sealed::new(text))
    }

    fn open(&self, run: &RunId, sealed: &Sealed) -> Result<UnlockKey, KeeperError> {
        if sealed.is_elsewhere() {
            return Err(elsewhere(run));
        }
        let envelope = envelope(sealed).ok_or_else(|| broken(run, self.id()))?;
        let cipher = std::iter::once(&self.current).chain(&self.previous).find(|cipher| cipher.id == envelope.kek);
        let cipher = cipher.ok_or_else(|| self.other(run, &envelope.kek))?;
        let broken = || broken(run, &cipher.id);
        let nonce = STANDARD.decode(&envelope.nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce = Nonce::assume_unique_for_key(nonce.ok_or_else(broken)?);
        let mut text = Zeroizing::new(STANDARD.decode(&envelope.key).map_err(|_| broken())?);
        let text = cipher.key.open_in_place(nonce, context(run), &mut text).map_err(|_| broken())?;
        let text = std::str::from_utf8(text).map_err(|_| broken())?;
        UnlockKey::try_from(text.to_owned()).map_err(|_| broken())
    }

    /// Under the present KEK, where it is under another.
    fn renew(&self, run: &RunId, sealed: &Sealed) -> Result<Option<Sealed>, KeeperError> {
        if kek_of(sealed).is_some_and(|kek| kek == self.id()) {
            return Ok(None);
        }
        self.seal(run, &self.open(run, sealed)?).map(Some)
    }

    fn other(&self, run: &RunId, kek: &str) -> KeeperError {
        KeeperError {
            what: format!(
                "the key of run {run} was sealed with the key-encryption key {}, and this service has {}",
                crate::text::printable(kek),
                self.id()
            ),
            hint: "give the service that key back (`keys` of its configuration, or kek.key in its data folder; `keys.previous` where the one that it has is to stay) and start it again; where it is lost, so are the keys sealed with it".into(),
            may_pass: false,
        }
    }
}

/// What is stored, where it makes sense.
fn envelope(sealed: &Sealed) -> Option<Envelope> {
    serde_json::from_str(sealed.text()).ok().filter(|envelope: &Envelope| envelope.version == VERSION)
}

/// The id of the KEK that has sealed a key; nothing where that is not to be seen.
pub(crate) fn kek_of(sealed: &Sealed) -> Option<String> {
    envelope(sealed).map(|envelope| envelope.kek)
}

fn broken(run: &RunId, kek: &str) -> KeeperError {
    KeeperError {
        what: format!(
            "the key of run {run} does not open under the key-encryption key {kek}, which it was sealed with: what is stored of it was changed, or is another run's"
        ),
        hint: "restore the store from a backup of before that; or destroy the key (z-orchestrator run destroy-key) and install anew".into(),
        may_pass: false,
    }
}

/// What a seal is computed over besides the key. A run's name has no line breaks.
fn context(run: &RunId) -> Aad<Vec<u8>> {
    Aad::from(format!("{VERSION}\n{run}").into_bytes())
}

/// It is somewhere that this service is not told of.
fn elsewhere(run: &RunId) -> KeeperError {
    KeeperError {
        what: format!("the key of run {run} is kept in a Vault, and this service keeps keys in its store"),
        hint: "give `keys.vault` back, as it was when the key was made, and start the service again".into(),
        may_pass: false,
    }
}

fn defect(run: &RunId, why: &str) -> KeeperError {
    KeeperError {
        what: format!("making a key for run {run}: {why}"),
        hint: "look at this machine; and report it".into(),
        may_pass: false,
    }
}

impl Keeper for Sealer {
    fn make<'a>(&'a self, run: &'a RunId, _: Option<&'a Sealed>) -> BoxFuture<'a, Result<Sealed, KeeperError>> {
        ready(self.make(run)).boxed()
    }

    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>> {
        ready(self.open(run, sealed)).boxed()
    }

    /// The record was all there was.
    fn destroy<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<(), KeeperError>> {
        ready(if sealed.is_elsewhere() { Err(elsewhere(run)) } else { Ok(()) }).boxed()
    }

    fn renew<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        ready(self.renew(run, sealed)).boxed()
    }

    fn renewed(&self, keys: u64, left: Option<u64>) {
        let kek = self.id();
        if keys > 0 {
            tracing::info!(target: "audit", keys, kek, "keys were sealed anew with the present key-encryption key");
        }
        if left == Some(0) && !self.previous.is_empty() && !self.said.swap(true, Ordering::Relaxed) {
            let previous: Vec<&str> = self.previous().collect();
            tracing::info!(
                "nothing is sealed any more with the previous key-encryption key {}: take it out of `keys.previous`, and keep it only as long as backups of the store that need it",
                previous.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> RunId {
        name.to_owned().try_into().unwrap()
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Kek::of([byte; Kek::BYTES])).unwrap()
    }

    #[test]
    fn a_key_opens_for_its_run_and_is_not_in_what_is_sealed() {
        let sealer = sealer(1);
        let (one, other) = (sealer.make(&run("r-1")).unwrap(), sealer.make(&run("r-1")).unwrap());
        let key = sealer.open(&run("r-1"), &one).unwrap();
        assert_eq!(key.reveal().len(), UnlockKey::LEN);
        assert!(sealer.open(&run("r-1"), &other).unwrap() != key, "each is drawn anew");
        assert!(!one.text().contains(&key.reveal()[..4]) && !format!("{one:?} {sealer:?}").contains(one.text()));
        let envelope: serde_json::Value = serde_json::from_str(one.text()).unwrap();
        assert_eq!(envelope["kek"], sealer.id());
    }

    #[test]
    fn a_sealed_key_moved_to_another_run_or_changed_does_not_open() {
        let sealer = sealer(1);
        let sealed = sealer.make(&run("r-1")).unwrap();
        let refused = |run: &RunId, sealed: &Sealed| {
            let error = sealer.open(run, sealed).unwrap_err();
            assert!(error.what.contains("does not open") && !error.may_pass, "{error}");
        };
        refused(&run("r-2"), &sealed);
        let mut envelope: Envelope = serde_json::from_str(sealed.text()).unwrap();
        let whole = STANDARD.decode(&envelope.key).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            envelope.key = STANDARD.encode(bytes);
            refused(&run("r-1"), &Sealed::new(serde_json::to_string(&envelope).unwrap()));
        }
        for text in ["", "{}", &sealed.text().replace(VERSION, "z-orchestrator-key-2")] {
            refused(&run("r-1"), &Sealed::new(text.into()));
        }
    }

    #[test]
    fn another_kek_opens_nothing_and_is_named() {
        let (one, other) = (sealer(1), sealer(2));
        let sealed = one.make(&run("r-1")).unwrap();
        let error = other.open(&run("r-1"), &sealed).unwrap_err();
        assert!(error.what.contains(one.id()) && error.what.contains(other.id()), "{error}");
        assert!(error.hint.contains("kek.key") && !error.may_pass);
        // One that claims to be the right one is none.
        let claimed = Sealed::new(sealed.text().replace(one.id(), other.id()));
        assert!(other.open(&run("r-1"), &claimed).unwrap_err().what.contains("does not open"));
    }

    #[test]
    fn a_kek_of_before_opens_and_what_it_has_sealed_is_sealed_anew() {
        let (old, other) = (sealer(1), sealer(3));
        let new = sealer(2).with_previous(&[Kek::of([3; Kek::BYTES]), Kek::of([1; Kek::BYTES])]).unwrap();
        let sealed = old.make(&run("r-1")).unwrap();
        let key = old.open(&run("r-1"), &sealed).unwrap();
        assert!(new.open(&run("r-1"), &sealed).unwrap() == key);
        let again = new.renew(&run("r-1"), &sealed).unwrap().unwrap();
        assert_eq!((kek_of(&sealed).as_deref(), kek_of(&again).as_deref()), (Some(old.id()), Some(new.id())));
        assert!(sealer(2).open(&run("r-1"), &again).unwrap() == key, "without the old one");
        assert_eq!(new.renew(&run("r-1"), &again).unwrap(), None);
        assert_eq!(
            kek_of(&new.make(&run("r-1")).unwrap()).as_deref(),
            Some(new.id()),
            "new ones are under the new one"
        );
        // Nothing is sealed anew that does not open: another run's, one that claims a KEK, one of a KEK that is not there.
        assert!(new.renew(&run("r-2"), &sealed).unwrap_err().what.contains("does not open"));
        let claimed = Sealed::new(sealed.text().replace(old.id(), other.id()));
        assert!(new.renew(&run("r-1"), &claimed).unwrap_err().what.contains("does not open"));
        let error = new.renew(&run("r-1"), &sealer(4).make(&run("r-1")).unwrap()).unwrap_err();
        assert!(error.what.contains(sealer(4).id()) && error.hint.contains("`keys.previous`"), "{error}");
        let error = sealer(2).with_previous(&[Kek::of([2; Kek::BYTES])]).unwrap_err();
        assert!(error.to_string().contains("the present one") && error.hint().is_some(), "{error}");
    }
}
