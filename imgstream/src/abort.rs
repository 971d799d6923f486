//! The first fatal error of a run, and how everybody learns that it is over.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::pipeline::Permit;

/// `work`, unless `token` is cancelled first: `what` was being done then.
///
/// # Errors
/// Those of `work`, or `Cancelled`.
pub async fn unless_cancelled<T>(
    token: &CancellationToken,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        outcome = work => outcome,
        () = token.cancelled() => Err(Error::cancelled(what)),
    }
}

/// Whether nothing more may be begun: the run is over, or has lost its right to write.
#[derive(Debug, Clone)]
pub struct Over {
    token: CancellationToken,
    permit: Option<Arc<dyn Permit>>,
}

impl Over {
    /// Once `token` is cancelled, or the permit is over.
    pub fn new(token: CancellationToken, permit: Option<Arc<dyn Permit>>) -> Self {
        Over { token, permit }
    }

    /// Asked right before each write: whoever was stopped for a while must not begin one with a right that has passed meanwhile.
    /// What one finds out, all learn by the token.
    pub fn is_over(&self) -> bool {
        if self.token.is_cancelled() {
            return true;
        }
        let has_passed = self.has_passed();
        if has_passed {
            self.token.cancel();
        }
        has_passed
    }

    /// Whether the permit is over. Unlike the end of a run, it also ends what would clean up.
    pub fn has_passed(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.is_over())
    }
}

impl From<CancellationToken> for Over {
    fn from(token: CancellationToken) -> Self {
        Over::new(token, None)
    }
}

/// Shared by everything that works on one run.
#[derive(Debug)]
pub struct Abort {
    over: Over,
    first: Mutex<Option<Error>>,
}

impl Abort {
    /// Also over when `parent` is cancelled.
    pub fn new(parent: &CancellationToken) -> Self {
        Self::with_permit(parent, None)
    }

    /// Also over when `parent` is cancelled, or the permit is over.
    pub fn with_permit(parent: &CancellationToken, permit: Option<Arc<dyn Permit>>) -> Self {
        Abort { over: Over::new(parent.child_token(), permit), first: Mutex::new(None) }
    }

    /// Ends the run because of `error`. Later errors are consequences of the first, and only logged.
    pub fn fail(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() || self.token().is_cancelled() {
            tracing::debug!(%error, "after the run was over");
        }
        if first.is_none() {
            *first = Some(error);
        }
        drop(first);
        self.token().cancel();
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.over.is_over()
    }

    /// What says so.
    pub fn over(&self) -> &Over {
        &self.over
    }

    /// Becomes ready when the run is over.
    pub fn token(&self) -> &CancellationToken {
        &self.over.token
    }

    /// `Ok` while the run goes on; else `Cancelled`. For whoever works beside others: why it is over is told once, to whoever
    /// started them.
    ///
    /// # Errors
    /// `Cancelled` while `what` was being done.
    pub fn unless_over(&self, what: &str) -> Result<(), Error> {
        if self.is_over() { Err(Error::cancelled(what)) } else { Ok(()) }
    }

    /// `Ok` while the run goes on; else why it is over: `what` was being done.
    ///
    /// # Errors
    /// The first error, the first time it is asked for; else `Cancelled`.
    pub fn check(&self, what: &str) -> Result<(), Error> {
        if !self.is_over() {
            return Ok(());
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(first.unwrap_or_else(|| Error::cancelled(what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_first_error_is_left_for_whoever_started_the_others() {
        let abort = Abort::new(&CancellationToken::new());
        assert!(abort.unless_over("a").is_ok() && abort.check("a").is_ok());
        abort.fail(Error::device("first"));
        abort.fail(Error::proof("second"));
        assert_eq!(abort.unless_over("reading").unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(abort.check("writing").unwrap_err().kind(), Kind::Device);
        assert_eq!(abort.check("writing").unwrap_err().kind(), Kind::Cancelled, "told twice");
    }
}
