//! Keeps the lease: renews it in time, again and again while that fails, until it is over. The certificate that this process shows is
//! renewed on the way.

use std::sync::Arc;
use std::time::Duration;

use protocol::Token;
use protocol::control::Lease as Renewed;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::client::{Client, MAX_ANSWER};
use super::client_key::Key;
use super::lease::{self, Lease};
use super::orders::Obedience;
use super::pause::jitter;
use super::trouble::Trouble;

/// The pause after a try that failed, of which a quarter more is random.
const PAUSE: Duration = Duration::from_secs(1);

/// What renews a lease.
pub(super) struct Renewal {
    pub(super) lease: Arc<Lease>,
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) session: Token,
    /// What certificates are over.
    pub(super) key: Arc<Key>,
    pub(super) obedience: Arc<Obedience>,
}

impl Renewal {
    /// Renews it `renew_after` seconds after it was asked for last, until it is over; then cancels the run, which nothing takes back.
    pub(super) async fn keep(self, mut renew_after: u64, cancel: CancellationToken) {
        let renewing = async {
            loop {
                tokio::time::sleep(self.pause(renew_after)).await;
                while !self.renew(&mut renew_after).await {
                    tokio::time::sleep(PAUSE + jitter(PAUSE / 4)).await;
                }
            }
        };
        tokio::select! {
            () = self.lease.ended() => cancel.cancel(),
            () = renewing => {}
        }
    }

    /// How long until it is to be renewed: half of what it has is the longest that is waited, whatever the service says.
    fn pause(&self, renew_after: u64) -> Duration {
        let (heard, usable) = self.lease.heard();
        let due = heard.saturating_add(Duration::from_secs(renew_after.max(1)).min(usable / 2));
        due.saturating_sub(lease::now())
    }

    async fn renew(&self, renew_after: &mut u64) -> bool {
        let asked = lease::now();
        let answer = self.client.post::<Renewed>(&self.path, &self.session, &json!({}), MAX_ANSWER).await;
        match answer {
            Ok(renewed) => {
                self.obedience.hear(&renewed.orders);
                *renew_after = renewed.lease.renew_after;
                if let Some(certificate) = &renewed.certificate {
                    self.show(certificate);
                }
                self.lease.renewed(renewed.lease, asked)
            }
            Err(trouble) => {
                self.note(&trouble);
                false
            }
        }
    }

    /// The one before is good for long enough that the service may try again.
    fn show(&self, certificate: &str) {
        match self.client.show(certificate, &self.key) {
            Ok(()) => tracing::debug!("another certificate is shown from now on"),
            Err(error) => tracing::warn!(%error, "the certificate is not renewed"),
        }
    }

    fn note(&self, trouble: &Trouble) {
        tracing::debug!(%trouble, "the lease was not renewed");
        if trouble.is_over() {
            self.lease.lose(&format!("the service has ended it: {trouble}"));
        } else {
            self.lease.failed(&trouble.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::agent::{Orders, Terms};
    use protocol::control::{Code, Problem};

    use super::super::outbox::Outbox;
    use super::super::testing::{Reply, Service, good, problem, run_id, token, told};
    use super::*;
    use crate::report::Reporter;

    fn renewed(seconds: u64, cancel: bool) -> Reply {
        let lease = Terms { seconds, renew_after: 1 };
        good(&Renewed { lease, orders: Orders { next: 0, cancel, progress_every: None }, certificate: None })
    }

    /// A lease of so many seconds that this service keeps.
    fn keep(service: &Service, seconds: u64) -> (Arc<Lease>, CancellationToken, tokio::task::JoinHandle<()>) {
        let terms = Terms { seconds, renew_after: 1 };
        let lease = Arc::new(Lease::new("attempt 1 of run r".into(), terms, lease::now()));
        let (cancel, outbox) = (CancellationToken::new(), Outbox::default());
        let reporter = Arc::new(Reporter::new(run_id("r"), 1, vec![Box::new(outbox.clone())]));
        let renewal = Renewal {
            lease: Arc::clone(&lease),
            client: service.client().another(Duration::from_secs(1)),
            path: "/v1/agent/runs/r/attempts/1/lease".into(),
            session: token("s"),
            key: Arc::new(Key::new().unwrap()),
            obedience: Arc::new(Obedience::new(reporter, outbox, cancel.clone())),
        };
        let keeping = tokio::spawn(renewal.keep(1, cancel.clone()));
        (lease, cancel, keeping)
    }

    #[tokio::test]
    async fn it_is_renewed_in_time_and_again_while_that_fails() {
        let service = Service::start(|number, _| match number {
            1 => problem(Code::Unavailable),
            2 => Reply::Closed,
            _ => renewed(6, false),
        });
        let (lease, cancel, keeping) = keep(&service, 6);
        tokio::time::sleep(Duration::from_millis(6500)).await;
        assert!(!lease.is_over() && !cancel.is_cancelled());
        let heard = service.heard();
        assert!(heard.len() >= 4, "{heard:?}");
        assert_eq!(heard[0].path, "/v1/agent/runs/r/attempts/1/lease");
        assert_eq!(heard[0].authorization.as_deref(), Some(format!("Bearer {}", "s".repeat(43)).as_str()));
        assert_eq!(heard[0].body, json!({}));
        keeping.abort();
    }

    #[tokio::test]
    async fn without_an_answer_it_ends_the_run_and_says_why() {
        let service = Service::start(|number, _| {
            if number == 0 { Reply::Silence(Duration::from_secs(9)) } else { problem(Code::Unavailable) }
        });
        let (lease, cancel, keeping) = keep(&service, 6);
        tokio::time::timeout(Duration::from_secs(6), keeping).await.unwrap().unwrap();
        assert!(cancel.is_cancelled());
        let error = lease.over().unwrap().to_string();
        assert!(error.contains("last heard 5 s ago; ") && error.contains("(unavailable)"), "{error}");
        assert!(!lease.renewed(Terms { seconds: 60, renew_after: 1 }, lease::now()), "a late answer");
    }

    #[tokio::test]
    async fn an_attempt_that_is_over_ends_the_run_at_once() {
        let service = Service::start(|_, _| told(&Problem::new(Code::AttemptOver, "attempt 2 has begun")));
        let (lease, cancel, keeping) = keep(&service, 60);
        tokio::time::timeout(Duration::from_secs(3), keeping).await.unwrap().unwrap();
        assert!(cancel.is_cancelled() && lease.over().unwrap().to_string().contains("attempt 2 has begun"));
        assert_eq!(service.heard().len(), 1);
    }

    #[tokio::test]
    async fn an_order_to_cancel_is_carried_out_and_the_lease_kept() {
        let service = Service::start(|_, _| renewed(60, true));
        let (lease, cancel, keeping) = keep(&service, 60);
        tokio::time::timeout(Duration::from_secs(3), cancel.cancelled()).await.unwrap();
        assert!(!lease.is_over() && !keeping.is_finished());
        keeping.abort();
    }
}
