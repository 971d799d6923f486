//! Sends what waits in the outbox, until the service has the end of the run.

use std::sync::Arc;
use std::time::Duration;

use protocol::Token;
use protocol::control::Orders;
use protocol::control::agent::MAX_EVENTS;
use tokio::time::{Instant, sleep};

use super::client::{Client, MAX_ANSWER};
use super::lease::Lease;
use super::orders::Obedience;
use super::outbox::{Batch, Fallback, Outbox};
use super::pause::Pauses;
use super::trouble::Trouble;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause before a report that was refused is sent in smaller parts.
const PART: Duration = Duration::from_millis(50);

/// What became of the end of the run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The service has it.
    Accepted,
    /// Nobody wants it: the attempt is over.
    NotWanted(String),
    /// The service does not take it, however short it is.
    Refused(String),
}

/// Sends reports.
pub(super) struct Sender {
    pub(super) outbox: Outbox,
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) session: Token,
    pub(super) obedience: Arc<Obedience>,
    pub(super) lease: Arc<Lease>,
}

impl Sender {
    /// Reports until the end of the run has been accepted, or never will be.
    pub(super) async fn send(self) -> Delivered {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        let (mut most, mut since) = (MAX_EVENTS, Instant::now());
        loop {
            self.outbox.due(since).await;
            let Some(batch) = self.outbox.batch(most) else { continue };
            since = Instant::now();
            let body = batch.body.clone();
            let answer = self.client.post_bytes::<Orders>(&self.path, &self.session, body, MAX_ANSWER).await;
            match answer {
                Ok(orders) => {
                    let has_moved = self.heard(&batch, orders);
                    if self.outbox.is_accepted() {
                        return Delivered::Accepted;
                    }
                    most = (most * 2).min(MAX_EVENTS);
                    if has_moved { pauses.reset() } else { sleep(pauses.next(None)).await }
                }
                Err(trouble) => {
                    tracing::debug!(%trouble, events = batch.count, "a report was not taken");
                    self.outbox.set_trouble(trouble.to_string());
                    if let Some(delivered) = self.ended_by(&trouble, &batch) {
                        return delivered;
                    }
                    if is_about_content(&trouble) {
                        most = (batch.count / 2).max(1);
                        sleep(PART).await;
                    } else {
                        sleep(pauses.next(trouble.retry_after())).await;
                    }
                }
            }
        }
    }

    /// Whether the answer took anything off us. One that does not is waited upon as if there had been none.
    fn heard(&self, batch: &Batch, orders: Orders) -> bool {
        self.obedience.hear(&orders);
        let has_moved = self.outbox.answered(batch, orders.next);
        if !has_moved {
            let said = format!("{} has answered that event {} was not reported", self.client.address(), orders.next);
            self.outbox.set_trouble(said);
        }
        has_moved
    }

    fn ended_by(&self, trouble: &Trouble, batch: &Batch) -> Option<Delivered> {
        if trouble.is_over() {
            self.lease.lose(&format!("the service has ended it: {trouble}"));
            return Some(Delivered::NotWanted(trouble.to_string()));
        }
        let is_alone = is_about_content(trouble) && batch.count == 1;
        let is_hopeless = is_alone && self.outbox.refused(batch.last) == Fallback::Hopeless;
        is_hopeless.then(|| Delivered::Refused(trouble.to_string()))
    }
}

/// Whether something in the report is refused, and the rest of it may be taken.
fn is_about_content(trouble: &Trouble) -> bool {
    matches!(trouble.status(), Some(400 | 413 | 422))
}

#[cfg(test)]
mod tests;
