//! Whether this run may still write. Whoever holds its lease or its reservation knows, and is asked before the target is first
//! touched, before it is written what makes it boot, and before anything at all is written after that.
//!
//! Once he has said no, nothing is written any more, not even to make the target unbootable: it is somebody else's now.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Run;
use crate::error::{Error, Result};
use crate::progress::Phase;

/// Says whether a run may still write to its target.
pub trait Permit: fmt::Debug + Send + Sync {
    /// Whether it may now. Called on a thread that may be kept waiting for a moment.
    ///
    /// # Errors
    /// Why not. This error, and what the target may hold, is then the run's, and the run writes nothing more.
    fn may_write(&self) -> Result<()>;

    /// Whether it may not any more, as far as is known without asking anybody: a lease that has run out. Asked before each single
    /// write, so it must cost next to nothing; once `true`, it stays so, and [`Permit::may_write`] says why. The run then begins no
    /// further write, as if it had been cancelled, and ends as that: whoever gave the permit knows better.
    fn is_over(&self) -> bool {
        false
    }
}

impl Run {
    /// [`Run::may_write`], on a thread that may wait.
    pub(super) async fn permitted(self: &Arc<Self>) -> Result<()> {
        self.blocking(Run::may_write).await
    }

    /// Asks whether this run may write now.
    pub(super) fn may_write(&self) -> Result<()> {
        if self.is_refused() {
            return Err(Error::target("this run may write nothing more"));
        }
        if let Some(permit) = &self.options.permit {
            self.progress.asking.store(true, Relaxed);
            let answer = permit.may_write();
            self.progress.asking.store(false, Relaxed);
            if let Err(refusal) = answer {
                self.refused.store(true, Relaxed);
                return Err(refusal.in_addition(&self.may_hold()));
            }
        }
        // Whoever gave the device up meanwhile was told that nothing more will be begun.
        if self.writer.is_given_up() { Err(Error::cancelled("waiting to write")) } else { Ok(()) }
    }

    /// Whether this run was told that it may write nothing more.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// What may be on the target, as far as this run knows.
    pub(super) fn may_hold(&self) -> String {
        let (now, target) = (self.progress.snapshot(), self.writer.target().name());
        if !now.has_touched_target() {
            return format!("this run has written nothing to {target}");
        }
        if now.has_entered(Phase::Invalidating) && !now.has_entered(Phase::Committing) {
            return format!("{target} may hold part of the image, and nothing of this run's that boots");
        }
        format!("{target} may hold the whole image, and may boot")
    }
}
