//! What the service wants of the run: in its answer to each report and each renewal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use protocol::control::Orders;
use protocol::event::Body;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::report::Reporter;

/// Carries out orders.
pub(super) struct Obedience {
    reporter: Arc<Reporter>,
    outbox: Outbox,
    cancel: CancellationToken,
    cancelled: AtomicBool,
}

impl Obedience {
    pub(super) fn new(reporter: Arc<Reporter>, outbox: Outbox, cancel: CancellationToken) -> Self {
        Obedience { reporter, outbox, cancel, cancelled: AtomicBool::new(false) }
    }

    /// Does what is wanted. A run that has ended is not cancelled any more.
    pub(super) fn hear(&self, orders: &Orders) {
        if let Some(milliseconds) = orders.progress_every {
            self.outbox.set_pace(Duration::from_millis(milliseconds));
        }
        if orders.cancel && !self.outbox.has_ended() && !self.cancelled.swap(true, Relaxed) {
            let message = "the service has cancelled the run: stopping as soon as writes in flight have ended";
            self.reporter.emit(Body::Warning { message: message.into() });
            self.cancel.cancel();
        }
    }
}
