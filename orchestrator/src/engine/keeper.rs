//! Who keeps the keys of disks. The engine knows when one is made, may be opened, and is gone; it knows no cryptography.

use futures_util::future::{BoxFuture, ready};
use protocol::control::problem::{Code, Problem};
use protocol::{RunId, UnlockKey};

use crate::model::Sealed;

/// Makes keys, and keeps them so that nobody else can open them.
///
/// What it keeps of a key is [`Sealed`], which the engine stores with the run, in the transaction that says what has become of it. There
/// are two ways to implement this. [`Sealer`](crate::keys::Sealer) puts the key itself into it, encrypted, so that the store holds all there is.
/// One that keeps keys elsewhere, such as HashiCorp Vault's KV version 2, puts the *place* into it: the path (`secret/data/z/runs/RUN`) and
/// the version that the write has answered. There
///
/// - `make` draws the 32 bytes, writes them with `cas: 0` (or to a path with a random part, since a run may get a second key), and answers
///   once Vault has answered; a write whose answer is lost leaves a secret that no run names;
/// - `open` reads exactly that version, and fails with what to do where Vault is sealed, away, or has it no more;
/// - `destroy` destroys that version (`destroy`, not `delete`, which can be undone) and then removes its metadata; a version that is not
///   there is destroyed. It is called after the run's record has forgotten the key, and tried again a few times; a service killed in
///   between never calls it. So such an implementation lists its paths at the start and destroys those of runs that have no key.
pub trait Keeper: Send + Sync {
    /// Makes a key for a run.
    fn make<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Sealed, KeeperError>>;

    /// Opens the key of a run. What was sealed for another run does not open.
    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>>;

    /// Forgets what it keeps of a key besides what is sealed.
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
