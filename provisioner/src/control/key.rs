//! The key of a run that the service has made: asked for once, when nothing but the target is still to be opened.
//!
//! The service gives an attempt the key once. So it is asked again only while the request surely was not heard. Once it may have been and
//! there is no answer, this attempt goes without; the next one gets the key anew.

use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};
use protocol::Token;
use protocol::control::Code;
use protocol::control::key::ReleasedKey;
use protocol::control::run::Nothing;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{Client, MAX_ANSWER, TRY};
use super::pause::Pauses;
use super::trouble::Trouble;
use crate::luks::Key;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a request that is surely not heard is repeated.
const PATIENCE: Duration = Duration::from_secs(120);
const ANEW: &str =
    "a key is given once to each attempt: the next attempt of the run gets it anew, and goes on with what is there";

/// Where an attempt gets the key of its run.
#[derive(Debug)]
pub struct KeyDesk {
    client: Client,
    path: String,
    session: Token,
    patience: Duration,
}

impl KeyDesk {
    pub(super) fn new(client: Client, path: String, session: Token) -> Self {
        KeyDesk { client, path, session, patience: PATIENCE }
    }

    /// Asks for the key.
    ///
    /// # Errors
    /// `Source`: temporary where the next attempt may get it, as when an answer was lost; permanent where the key is destroyed, or the
    /// service refuses it for good. `Cancelled`.
    pub async fn ask(&self, cancel: &CancellationToken) -> Result<Key> {
        cancel.run_until_cancelled(self.tries()).await.unwrap_or_else(|| Err(Error::cancelled("asking for the key")))
    }

    async fn tries(&self) -> Result<Key> {
        let deadline = Instant::now() + self.patience;
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            // A connection of its own for each try: on one that is kept, a client says again what may have been heard.
            let client = self.client.another(TRY);
            let asked = client.post::<ReleasedKey>(&self.path, &self.session, &Nothing {}, MAX_ANSWER).await;
            let trouble = match asked {
                Ok(ReleasedKey { key }) => return Ok(key.into()),
                Err(trouble) => trouble,
            };
            let next = Instant::now() + pauses.next(trouble.retry_after());
            if trouble.may_be_done() || !trouble.may_pass() || next >= deadline {
                return Err(without_key(trouble));
            }
            sleep_until(next).await;
        }
    }
}

/// Why there is no key, and whether the next attempt may have it.
fn without_key(trouble: Trouble) -> Error {
    let lost = trouble.may_be_done();
    let again = lost || trouble.may_pass() || trouble.code() == Some(&Code::KeyReleased);
    let error = trouble.into_error();
    // However this error came about, it is the way to the service that has failed.
    let hint = error.hint().map(ToOwned::to_owned);
    let error = match error.kind() {
        Kind::Source => error,
        _ => Error::source_failed(error.to_string()).with_source(error),
    };
    let what = if lost { "whether the key was given is not known" } else { "the key was not given" };
    let error = error.in_addition(what).with_retry(if again { Retry::Temporary } else { Retry::Permanent });
    match hint {
        Some(hint) if !lost => error.with_hint(hint),
        _ if again => error.with_hint(ANEW),
        _ => error.with_hint("see what the service says of the run: z-orchestrator run show"),
    }
}

#[cfg(test)]
mod tests {
    use protocol::UnlockKey;
    use protocol::control::Problem;

    use super::super::testing::{Reply, Service, answer, good, problem, token, told};
    use super::*;

    fn key() -> UnlockKey {
        UnlockKey::of(&[7; UnlockKey::BYTES])
    }

    fn desk(service: &Service) -> KeyDesk {
        KeyDesk::new(service.client(), "/v1/agent/runs/r/attempts/2/key".into(), token("s"))
    }

    async fn ask(service: &Service) -> Result<Key> {
        desk(service).ask(&CancellationToken::new()).await
    }

    #[tokio::test]
    async fn it_is_asked_for_with_the_session_and_shows_nothing() {
        let service = Service::start(|_, _| good(&ReleasedKey { key: key() }));
        let desk = desk(&service);
        let given = desk.ask(&CancellationToken::new()).await.unwrap();
        assert_eq!(given.passphrase(), key().reveal().as_bytes());
        let heard = service.heard();
        assert_eq!((heard.len(), heard[0].path.as_str()), (1, "/v1/agent/runs/r/attempts/2/key"));
        assert_eq!(heard[0].authorization.as_deref(), Some(format!("Bearer {}", "s".repeat(43)).as_str()));
        let shown = format!("{desk:?} {given:?}");
        assert!(!shown.contains(key().reveal()) && !shown.contains(&"s".repeat(43)), "{shown}");
    }

    #[tokio::test]
    async fn what_may_have_been_heard_is_not_asked_again() {
        let half = format!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{{\"key\": \"{}", &key().reveal()[..20]);
        for reply in [
            Reply::Closed,
            Reply::Bytes(half.into_bytes()),
            answer("200 OK", "application/json", "{\"key\":\"AAAA\"}"),
            answer("502 Bad Gateway", "text/html", "<html>"),
            problem(Code::Unavailable),
        ] {
            let mut reply = Some(reply);
            let service = Service::start(move |_, _| reply.take().unwrap_or(Reply::Closed));
            let error = tokio::time::timeout(TRY * 2, ask(&service)).await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary), "{error}");
            assert!(error.to_string().contains("is not known") && error.hint() == Some(ANEW), "{error}");
            assert_eq!((service.heard().len(), service.connections()), (1, 1), "{error}");
            assert!(!error.to_string().contains(&key().reveal()[..20]), "{error}");
        }
    }

    #[tokio::test]
    async fn what_surely_was_not_heard_is_asked_again() {
        let service = Service::start(|number, _| match number {
            0 => told(&Problem::new(Code::TooMany, "wait").retry_after(1)),
            _ => good(&ReleasedKey { key: key() }),
        });
        assert_eq!(ask(&service).await.unwrap().passphrase(), key().reveal().as_bytes());
        assert_eq!((service.heard().len(), service.connections()), (2, 2));
    }

    #[tokio::test]
    async fn nobody_there_is_waited_for_only_so_long() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let service = Service::start(|_, _| Reply::Closed);
        let mut desk = desk(&service);
        let address = super::super::address::Address::of_service(&format!("http://{nobody}")).unwrap();
        desk.client = Client::new(address, None, super::super::testing::dial()).unwrap();
        desk.patience = Duration::from_millis(100);
        let error = desk.ask(&CancellationToken::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary), "{error}");
        assert!(error.to_string().contains("the key was not given"), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        for (code, retry) in [
            (Code::KeyReleased, Retry::Temporary),
            (Code::KeyGone, Retry::Permanent),
            (Code::AttemptOver, Retry::Permanent),
            (Code::NotFound, Retry::Permanent),
        ] {
            let replied = code.clone();
            let service = Service::start(move |_, _| problem(replied.clone()));
            let error = ask(&service).await.unwrap_err();
            assert_eq!((error.kind(), error.retry()), (Kind::Source, retry), "{error}");
            assert!(error.to_string().contains(code.name()) && error.hint().is_some(), "{error}");
            assert_eq!(service.heard().len(), 1);
        }
    }

    #[tokio::test]
    async fn it_can_be_cancelled() {
        let service = Service::start(|_, _| Reply::Silence(Duration::from_secs(5)));
        let cancel = CancellationToken::new();
        let cancelling = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancelling.cancel();
        });
        let error = desk(&service).ask(&cancel).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Cancelled, "cancelled while asking for the key"));
    }
}
