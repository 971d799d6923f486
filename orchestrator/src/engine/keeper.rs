//! Who keeps the keys of disks. The engine knows when one is made, may be opened, and is gone; it knows no cryptography.

use futures_util::future::{BoxFuture, ready};
use protocol::control::problem::{Code, Problem};
use protocol::{RunId, UnlockKey};

use crate::model::Sealed;

/// Makes keys, and keeps them so that nobody else can open them.
///
/// What it keeps of a key is [`Sealed`], which the engine stores with the run, in the transaction that says what has become of it: the key
/// itself, encrypted ([`Sealer`](crate::keys::Sealer)), or the place where it lies ([`Vault`](crate::keys::Vault)). Of a key that lies
/// elsewhere the engine
///
/// - stores the place before it has the key made there, so that one which is never a run's is found and destroyed;
/// - has it destroyed once it has stored that the run has forgotten it, for as long as that takes, also after a restart. Until then the run
///   says so ([`Record::remains`](crate::model::Record::remains)).
///
/// A keeper must refuse what another has sealed, and say who that is: it must neither make it up nor take it for destroyed.
pub trait Keeper: Send + Sync {
    /// Where the next key of a run is to lie: a place that no key has had. None for a keeper that puts the key itself into what is sealed.
    fn place<'a>(&'a self, _run: &'a RunId) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Makes a key for a run, at the place that was asked for. After an error it may lie there.
    fn make<'a>(&'a self, run: &'a RunId, place: Option<&'a Sealed>) -> BoxFuture<'a, Result<Sealed, KeeperError>>;

    /// Opens the key of a run. What was sealed for another run does not open.
    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>>;

    /// Destroys a key where it lies, for good. What is not there is destroyed.
    fn destroy<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<(), KeeperError>>;

    /// Looks at a key that is stored: where it is sealed as a new one would be, there is nothing to do; else it is sealed anew, and stored
    /// in place of the one that was given. The same key opens with both.
    fn renew<'a>(&'a self, _: &'a RunId, _: &'a Sealed) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        Box::pin(ready(Ok(None)))
    }

    /// Keys that are stored were looked at: so many were sealed anew, and are stored so. `left`: how many should be and are not yet, where all
    /// were looked at. Those that do not open, and will not by themselves, are not among them.
    fn renewed(&self, _keys: u64, _left: Option<u64>) {}
}

/// Why a keeper did not do it. It says nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct KeeperError {
    /// What was tried, and what happened.
    pub what: String,
    /// What to do.
    pub hint: String,
    /// Whether it may work later by itself.
    pub may_pass: bool,
}

impl From<KeeperError> for Problem {
    fn from(error: KeeperError) -> Self {
        tracing::error!(%error, hint = error.hint, "a key");
        // Not `unavailable`: with that nobody knows whether something was done, and here nothing was.
        let problem = Problem::new(Code::KeyShut, error.what).with_hint(error.hint);
        if error.may_pass { problem.retry_after(5) } else { problem }
    }
}
