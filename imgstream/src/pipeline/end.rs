//! How a run ends, in bounded time: with its steps, because it stands still, or because it is over for another reason and
//! what still runs must come to rest. A device that does not answer at all is given up.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Report, Run};
use crate::error::{Error, Kind, Result};
use crate::watchdog::{Place, Stall, Watchdog};

/// How long the device may answer nothing when the run is over and only has to come to rest.
const SETTLING: Duration = Duration::from_secs(10);

impl Run {
    /// All steps, and what follows when they fail.
    pub(super) async fn to_its_end(self: &Arc<Self>) -> Result<Report> {
        let settling = SETTLING.min(self.options.stall_limit);
        let watchdog = self.watchdog();
        let mut steps = pin!(self.steps());
        let mut stall = None;
        let mut report = tokio::select! {
            report = &mut steps => Some(report),
            found = watchdog.stalled_for(self.options.stall_limit) => {
                stall = Some(found);
                None
            }
            () = self.abort.token().cancelled() => None,
        };
        if report.is_none() {
            // Everybody stops what he is doing, and the steps end, unless somebody never comes back from the kernel.
            self.abort.token().cancel();
            report = tokio::select! {
                report = &mut steps => Some(report),
                _ = watchdog.stalled_for(settling) => None,
            };
        }
        let came_back = report.is_some();
        let error = match report {
            Some(Ok(report)) => return Ok(report),
            Some(Err(error)) if stall.is_none() || error.kind() != Kind::Cancelled => error,
            _ => self.reason(stall.as_ref()),
        };
        // Nothing of ours may still be writing when the caller learns that it is over.
        let was_refused = self.is_refused();
        let rests = if came_back {
            tokio::select! {
                outcome = self.blocking(|run| { run.writer.settle(); run.trim_padding() }) => Some(outcome),
                _ = watchdog.stalled_for(settling) => None,
            }
        } else {
            None
        };
        Err(match rests {
            None => self.give_up(error, stall.as_ref(), &watchdog),
            Some(Err(refusal)) if !was_refused && self.is_refused() => {
                refusal.in_addition(&format!("before that: {error}"))
            }
            Some(_) => error,
        })
    }

    fn watchdog(&self) -> Watchdog {
        Watchdog::new(
            Arc::clone(&self.progress),
            self.plans.image().sources().to_vec(),
            Some(Arc::clone(self.writer.target())),
            self.options.stall_warning.min(self.options.stall_limit / 2),
        )
    }

    /// Why the run is over, where its steps did not say it.
    fn reason(&self, stall: Option<&Stall>) -> Error {
        let first = || self.abort.check("writing").err().unwrap_or_else(|| Error::cancelled("writing"));
        stall.map_or_else(first, Stall::error)
    }

    /// Leaves behind what does not come back. It keeps the memory that the kernel may still read, and if it ever comes back
    /// it finds that it may write nothing more.
    fn give_up(&self, error: Error, stall: Option<&Stall>, watchdog: &Watchdog) -> Error {
        self.writer.give_up();
        let Some(unanswered) = watchdog.unanswered() else {
            return error.in_addition("given up: a thread of the data path does not end");
        };
        self.progress.given_up.store(true, Relaxed);
        let told = stall.is_some_and(|stall| matches!(stall.place, Place::Device(_)));
        let what = if told { String::new() } else { format!(" ({unanswered})") };
        let device = unanswered.device;
        error
            .in_addition(&format!(
                "{device} was given up{what}: it may still be written when it answers again, and what it holds is uncertain"
            ))
            .with_hint(format!("let nothing use {device} before it answers again or is gone; then write it again"))
    }
}
