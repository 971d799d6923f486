//! Seals keys with AES-256-GCM. What is sealed says for which run: under another one it does not open.

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
    key: LessSafeKey,
    /// Which KEK that is.
    id: String,
    random: SystemRandom,
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
        write!(f, "Sealer(KEK {})", self.id)
    }
}

impl Sealer {
    /// With this key.
    ///
    /// # Errors
    /// None that can happen: a KEK has the length that the cipher wants.
    pub fn new(kek: &Kek) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, kek.reveal());
        let key = key.map_err(|_| Error::system("the key-encryption key does not fit its cipher"))?;
        Ok(Sealer { key: LessSafeKey::new(key), id: kek.id(), random: SystemRandom::new() })
    }

    /// Which KEK it has.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn make(&self, run: &RunId) -> Result<Sealed, KeeperError> {
        let mut bytes = Zeroizing::new([0; UnlockKey::BYTES]);
        // 96 random bits: a service makes far fewer than 2^32 keys.
        let mut nonce = [0; NONCE_LEN];
        let drawn = self.random.fill(&mut bytes[..]).and_then(|()| self.random.fill(&mut nonce));
        drawn.map_err(|_| defect(run, "the system gives no random numbers"))?;
        let key = UnlockKey::of(&bytes);
        // Room for the tag: it must not move while it is not encrypted.
        let mut text = Zeroizing::new(Vec::with_capacity(UnlockKey::LEN + AES_256_GCM.tag_len()));
        text.extend_from_slice(key.reveal().as_bytes());
        let sealed = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context(run), &mut *text);
        sealed.map_err(|_| defect(run, "it does not encrypt"))?;
        let envelope = Envelope {
            version: VERSION.into(),
            kek: self.id.clone(),
            nonce: STANDARD.encode(nonce),
            key: STANDARD.encode(&*text),
        };
        let text = serde_json::to_string(&envelope).map_err(|error| defect(run, &error.to_string()))?;
        Ok(Sealed::new(text))
    }

    fn open(&self, run: &RunId, sealed: &Sealed) -> Result<UnlockKey, KeeperError> {
        let broken = || {
            KeeperError {
            what: format!(
                "the key of run {run} does not open under the key-encryption key {}, which it was sealed with: what is stored of it was changed, or is another run's",
                self.id
            ),
            hint: "restore the store from a backup of before that; or destroy the key (z-orchestrator run destroy-key) and install anew".into(),
            may_pass: false,
        }
        };
        if sealed.is_elsewhere() {
            return Err(elsewhere(run));
        }
        let envelope: Envelope = serde_json::from_str(sealed.text()).map_err(|_| broken())?;
        if envelope.version != VERSION {
            return Err(broken());
        }
        if envelope.kek != self.id {
            return Err(self.other(run, &envelope.kek));
        }
        let nonce = STANDARD.decode(&envelope.nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce = Nonce::assume_unique_for_key(nonce.ok_or_else(broken)?);
        let mut text = Zeroizing::new(STANDARD.decode(&envelope.key).map_err(|_| broken())?);
        let text = self.key.open_in_place(nonce, context(run), &mut text).map_err(|_| broken())?;
        let text = std::str::from_utf8(text).map_err(|_| broken())?;
        UnlockKey::try_from(text.to_owned()).map_err(|_| broken())
    }

    fn other(&self, run: &RunId, kek: &str) -> KeeperError {
        KeeperError {
            what: format!(
                "the key of run {run} was sealed with the key-encryption key {}, and this service has {}",
                crate::text::printable(kek),
                self.id
            ),
            hint: "give the service that key back (`keys` of its configuration, or kek.key in its data folder) and start it again; where it is lost, so are the keys sealed with it".into(),
            may_pass: false,
        }
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
}
