//! Enrolment: the first thing that is said to the service, again and again with the same nonce until there is an answer.

use std::cell::RefCell;
use std::time::Duration;

use imgstream::error::{Error, Result, Retry};
use protocol::Token;
use protocol::control::{Code, Enrol, Enrolled};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::lease;
use super::named::Named;
use super::pause::{Pauses, told};
use super::trouble::Trouble;

const PATH: &str = "/v1/agent/enrol";
/// Largest answer: a run spec and a ticket, as JSON texts within JSON.
const MAX_ENROLLED: usize = 2 << 20;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Who enrols, and how long that may take.
pub(super) struct Applicant<'a> {
    pub(super) client: &'a Client,
    /// The enrolment token.
    pub(super) token: &'a Token,
    pub(super) enrol: &'a Enrol,
    pub(super) within: Duration,
    pub(super) named: Named,
}

impl Applicant<'_> {
    /// Enrols. What comes with the answer is when the service may have begun to count the lease, on the clock of leases. `say` hears
    /// what is waited for.
    ///
    /// # Errors
    /// `Source` when the service refuses for good, or nothing that may pass has passed in time; `Cancelled`.
    pub(super) async fn enrol(&self, say: &dyn Fn(&str), cancel: &CancellationToken) -> Result<(Enrolled, Duration)> {
        let why = RefCell::new("it has not answered yet".to_owned());
        let enrolling = told(self.tries(&why), || {
            say(&format!("waiting to enrol with {}: {}", self.client.address(), why.borrow()));
        });
        cancel.run_until_cancelled(enrolling).await.unwrap_or_else(|| Err(Error::cancelled("enrolling")))
    }

    async fn tries(&self, why: &RefCell<String>) -> Result<(Enrolled, Duration)> {
        let deadline = Instant::now() + self.within;
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut counted: Option<Duration> = None;
        loop {
            let asked = lease::now();
            let asking = self.client.post::<Enrolled>(PATH, self.token, self.enrol, MAX_ENROLLED);
            let trouble = match timeout_at(deadline, asking).await {
                Ok(Ok(enrolled)) => return Ok((enrolled, counted.unwrap_or(asked))),
                Ok(Err(trouble)) if !trouble.may_pass() => return Err(refused(trouble, &self.named)),
                Ok(Err(trouble)) => trouble,
                Err(_) => return Err(self.too_late(&why.borrow())),
            };
            why.replace(trouble.to_string());
            // It may have enrolled this process when the answer was lost, and count from then.
            let is_known_not_to = trouble.status().is_some() && !trouble.may_be_done();
            counted = if is_known_not_to { None } else { counted.or(trouble.may_be_done().then_some(asked)) };
            let next = Instant::now() + pauses.next(trouble.retry_after());
            if next >= deadline {
                return Err(self.too_late(&why.borrow()));
            }
            sleep_until(next).await;
        }
    }

    fn too_late(&self, why: &str) -> Error {
        let (service, within) = (self.client.address(), self.within.as_secs());
        let longer = self.named.enrol_within;
        Error::source_failed(format!("not enrolled with {service} within {within} s: {why}")).with_hint(format!(
            "see that the service is up, can be reached from here, and waits for this run; {longer} waits longer"
        ))
    }
}

/// The service's own hint is better than ours, which only knows the kind of refusal.
fn refused(trouble: Trouble, named: &Named) -> Error {
    let code = trouble.code().cloned();
    let error = trouble.into_error();
    let error = error.in_addition("this process is not enrolled");
    if error.hint().is_some() {
        return error.with_retry(Retry::Permanent);
    }
    let hint = match code {
        Some(Code::Unauthorized) => {
            format!("give the enrolment token of this attempt with {}; a token is good for one attempt", named.token)
        }
        Some(Code::Forbidden) => {
            format!("the token is another run's or server's: compare {} and {} with it", named.run, named.server)
        }
        Some(Code::AlreadyEnrolled) => format!("{}; a new attempt gets a new token", named.used),
        Some(Code::AttemptOver | Code::Revoked) => {
            "see what became of the run at the service; a new attempt gets a new token".into()
        }
        _ => format!("see what the service's log says of it, and whether {} names the right one", named.service),
    };
    error.with_retry(Retry::Permanent).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use imgstream::error::Kind;
    use protocol::control::Problem;
    use protocol::control::agent::Terms;

    use super::super::testing::{Reply, Service, answer, good, problem, run_id, token, told};
    use super::super::trouble::Refusal;
    use super::*;

    fn enrolled() -> Enrolled {
        let lease = Terms { seconds: 60, renew_after: 20 };
        Enrolled {
            run: run_id("r"),
            attempt: 1,
            session: token("s"),
            lease,
            spec: "{}".into(),
            ticket: "t".into(),
            certificate: "c".into(),
        }
    }

    fn application() -> Enrol {
        let client_key = super::super::client_key::Key::new().unwrap().public().unwrap();
        Enrol { run: None, nonce: token("n"), client_key, agent: "a".into(), server: None }
    }

    async fn enrol(service: &Service, within: u64) -> Result<(Enrolled, Duration)> {
        let client = service.client().another(Duration::from_secs(1));
        let (token, within) = (token("e"), Duration::from_secs(within));
        let enrol = application();
        let applicant = Applicant { client: &client, token: &token, enrol: &enrol, within, named: Named::OPTIONS };
        applicant.enrol(&|_| (), &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn it_is_said_again_with_the_same_nonce_until_there_is_an_answer() {
        let service = Service::start(|number, _| match number {
            0 => Reply::Closed,
            1 => told(&Problem::new(Code::NotYet, "two runs are before it").retry_after(1)),
            2 => answer("502 Bad Gateway", "text/html", "<html>"),
            _ => good(&enrolled()),
        });
        let before = lease::now();
        let (answer, counted) = enrol(&service, 30).await.unwrap();
        assert_eq!(answer, enrolled());
        let heard = service.heard();
        assert_eq!((heard.len(), heard[0].path.as_str()), (4, PATH));
        assert_eq!(heard[0].authorization.as_deref(), Some(format!("Bearer {}", "e".repeat(43)).as_str()));
        assert!(heard.iter().all(|heard| heard.body["nonce"] == "n".repeat(43)), "{heard:?}");
        assert_eq!(heard[0].body.as_object().unwrap().len(), 3, "nothing is said that is not known");
        // The first may have been heard, the second was not granted, the third may have been.
        let after = counted - before;
        assert!(
            after >= Duration::from_secs(1) && counted + Duration::from_millis(900) < lease::now() + FIRST_PAUSE * 3,
            "{after:?}"
        );
    }

    #[tokio::test]
    async fn a_lost_answer_may_have_begun_the_lease() {
        let service = Service::start(|number, _| if number == 0 { Reply::Closed } else { good(&enrolled()) });
        let before = lease::now();
        let (_, counted) = enrol(&service, 30).await.unwrap();
        assert!(counted - before < Duration::from_millis(400), "from the first, not from the second");
        let service = Service::start(|number, _| if number == 0 { problem(Code::NotYet) } else { good(&enrolled()) });
        let before = lease::now();
        let (_, counted) = enrol(&service, 30).await.unwrap();
        assert!(counted - before >= Duration::from_millis(500), "the first was not granted");
    }

    #[tokio::test]
    async fn a_refusal_ends_it_at_once_and_says_what_to_do() {
        for (code, hint) in [
            (Code::Unauthorized, "--token"),
            (Code::Forbidden, "--run and --server"),
            (Code::AlreadyEnrolled, "the other process"),
            (Code::AttemptOver, "what became of the run"),
            (Code::Revoked, "what became of the run"),
        ] {
            let replied = code.clone();
            let service = Service::start(move |_, _| problem(replied.clone()));
            let error = enrol(&service, 30).await.unwrap_err();
            assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Permanent), "{error}");
            assert!(error.hint().unwrap().contains(hint) && error.to_string().contains(code.name()), "{error}");
            assert_eq!(service.heard().len(), 1);
            assert!(!error.to_string().contains(&"e".repeat(43)));
        }
        let service = Service::start(|_, _| told(&Problem::new(Code::Forbidden, "no").with_hint("ask Ada")));
        assert_eq!(enrol(&service, 30).await.unwrap_err().hint(), Some("ask Ada"));
    }

    #[test]
    fn what_to_do_is_said_in_the_words_of_whoever_configured_it() {
        for (named, token, names) in [
            (Named::OPTIONS, "--token", "--run and --server"),
            (Named::KEYS, "`orchestrator.token`", "`orchestrator.run` and `server`"),
        ] {
            let hint = |code| {
                let problem = Problem::new(code, "for a test");
                let refusal =
                    Refusal { what: "POST".into(), status: problem.status, problem: Some(problem), retry_after: None };
                refused(Trouble::Refused(Box::new(refusal)), &named).hint().unwrap().to_owned()
            };
            assert!(hint(Code::Unauthorized).contains(token) && hint(Code::Forbidden).contains(names));
        }
    }

    #[tokio::test]
    async fn answers_that_are_no_answers_are_not_believed() {
        let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_ENROLLED));
        for (reply, says) in [
            (answer("200 OK", "application/json", &huge), "more than 2097152 bytes"),
            (answer("200 OK", "application/json", "{\"run\":7}"), "the answer makes no sense"),
            (answer("302 Found", "text/html", ""), "it answered 302 Found"),
            (Reply::Bytes(b"\x15\x03\x01\x00\x02\x02\x16".to_vec()), "asking"),
        ] {
            let mut reply = Some(reply);
            let service = Service::start(move |_, _| reply.take().unwrap_or(Reply::Closed));
            let error = enrol(&service, 30).await.unwrap_err();
            assert!(error.to_string().contains(says) && error.kind() == Kind::Source, "{error}");
        }
    }

    #[tokio::test]
    async fn it_is_bounded_when_the_service_is_slow_or_away() {
        let service = Service::start(|_, _| Reply::Slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n".to_vec()));
        let since = Instant::now();
        let error = enrol(&service, 3).await.unwrap_err();
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary));
        assert!(
            error.to_string().contains("within 3 s: ") && error.to_string().contains("no answer within 1 s"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn it_can_be_cancelled() {
        let service = Service::start(|_, _| problem(Code::NotYet));
        let (client, cancel, token) = (service.client(), CancellationToken::new(), token("e"));
        let enrol = application();
        let applicant = Applicant {
            client: &client,
            token: &token,
            enrol: &enrol,
            within: Duration::from_secs(600),
            named: Named::OPTIONS,
        };
        let cancelling = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancelling.cancel();
        });
        let error = applicant.enrol(&|_| (), &cancel).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Cancelled, "cancelled while enrolling"));
    }
}
