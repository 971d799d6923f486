//! The HTTP client of this crate: a POST of JSON, one answer of bounded size in bounded time. Its connections are `connection`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use imgstream::error::{Error, Result};
use imgstream::source::{Dial, fault};
use protocol::Token;
use protocol::control::problem::{MEDIA_TYPE, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use super::address::Address;
use super::client_key::Key;
use super::connection::{Connection, Endpoint, Idle};
use super::trouble::{Refusal, Trouble};

/// How long a request may take, connection and answer included.
pub(crate) const TRY: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes, where nothing else is said.
pub(super) const MAX_ANSWER: usize = 64 << 10;
const USER_AGENT: &str = concat!("z-provisioner/", env!("CARGO_PKG_VERSION"));

/// Asks one service. A request takes the connection that waits for one, else makes one; so nobody waits for another's request.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Arc<Endpoint>,
    idle: Arc<Idle>,
    timeout: Duration,
}

/// What is asked.
struct Asked<'a> {
    path: &'a str,
    bearer: Option<&'a Token>,
    body: Bytes,
}

/// The whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    /// For the service at `address`. With `https` it must show a certificate of `ca_pem`, and no other authority counts.
    ///
    /// # Errors
    /// `Usage` when there is no usable certificate in `ca_pem`, or none is given.
    pub(crate) fn new(address: Address, ca_pem: Option<&[u8]>, dial: Dial) -> Result<Self> {
        let endpoint = Arc::new(Endpoint::new(address, ca_pem, dial)?);
        Ok(Client { endpoint, idle: Arc::default(), timeout: TRY })
    }

    /// Another one for the same service, whose requests may take this long at most. The two share the connection that waits: as long as
    /// they do not ask at the same time, there is one.
    pub(super) fn beside(&self, timeout: Duration) -> Self {
        let (endpoint, idle) = (Arc::clone(&self.endpoint), Arc::clone(&self.idle));
        Client { endpoint, idle, timeout: timeout.min(TRY) }
    }

    /// Another one for the same service, with a connection of its own, whose requests may take this long at most.
    pub(super) fn another(&self, timeout: Duration) -> Self {
        Client { idle: Arc::default(), ..self.beside(timeout) }
    }

    /// Shows this certificate (PEM) over this key from now on, where connections are TLS; so do those made of this one.
    ///
    /// # Errors
    /// As of [`Key::shown`]; then nothing has changed.
    pub(super) fn show(&self, certificate: &str, key: &Key) -> Result<()> {
        self.endpoint.show(certificate, key)
    }

    /// Where the service is.
    pub(super) fn address(&self) -> &Address {
        self.endpoint.address()
    }

    /// Posts what is to be said as JSON, and reads the answer, of at most `limit` bytes.
    ///
    /// # Errors
    /// That there was no answer, or not the one that was asked for.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: &Token,
        said: &impl Serialize,
        limit: usize,
    ) -> Result<T, Trouble> {
        self.post_bytes(path, bearer, json(said)?, limit).await
    }

    /// [`Client::post`] of what is JSON already.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: &Token,
        body: Bytes,
        limit: usize,
    ) -> Result<T, Trouble> {
        let answer = self.send(Asked { path, bearer: Some(bearer), body }, limit).await?;
        if !answer.status.is_success() {
            return Err(Trouble::Refused(Box::new(self.refusal(path, &answer))));
        }
        let said = serde_json::from_slice(&answer.body);
        // There may be a secret in it: it is wiped, unless the connection's own buffer still holds it.
        if let Ok(mut body) = answer.body.try_into_mut() {
            body.zeroize();
        }
        said.map_err(|error| {
            let error = Error::corrupt(format!("{}: the answer makes no sense: {error}", self.what(path)))
                .with_hint("is this the orchestrating service, and of a version that suits this agent?");
            Trouble::Failed { error, sent: true }
        })
    }

    /// Posts JSON to the address itself. Whatever comes with the status is not looked at.
    ///
    /// # Errors
    /// That there was no answer, or a status other than 2xx.
    pub(crate) async fn tell(&self, body: Bytes) -> Result<(), Trouble> {
        let answer = self.send(Asked { path: "", bearer: None, body }, 0).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(Trouble::Refused(Box::new(self.refusal("", &answer))))
    }

    fn what(&self, path: &str) -> String {
        format!("{}{path}", self.address())
    }

    fn refusal(&self, path: &str, answer: &Answer) -> Refusal {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = header(header::CONTENT_TYPE).and_then(|text| text.split(';').next()).map(str::trim);
        let problem = (media_type == Some(MEDIA_TYPE)).then(|| serde_json::from_slice::<Problem>(&answer.body).ok());
        let retry_after = header(header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        Refusal {
            what: self.what(path),
            status: answer.status.as_u16(),
            problem: problem.flatten(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    /// `limit`: 0 where the body is not wanted.
    async fn send(&self, asked: Asked<'_>, limit: usize) -> Result<Answer, Trouble> {
        let mut sent = false;
        let exchange = tokio::time::timeout(self.timeout, self.exchange(&asked, limit, &mut sent)).await;
        let exchanged = exchange.unwrap_or_else(|_| {
            let (what, seconds) = (self.what(asked.path), self.timeout.as_secs_f32());
            Err(Error::source_failed(format!("{what}: no answer within {seconds} s")))
        });
        exchanged.map_err(|error| Trouble::Failed { error, sent })
    }

    async fn exchange(&self, asked: &Asked<'_>, limit: usize, sent: &mut bool) -> Result<Answer> {
        // The service may have closed it just now; that is nobody's fault, and saying the same twice does no harm.
        if let Some(mut connection) = self.idle.take(&self.endpoint)
            && connection.sender.ready().await.is_ok()
        {
            *sent = true;
            match self.ask(&mut connection, asked, limit).await {
                Ok(answer) => {
                    self.idle.keep(connection);
                    return Ok(answer);
                }
                Err(error) => tracing::debug!(%error, "a kept connection is gone"),
            }
        }
        let mut connection = self.endpoint.connect(&self.what(asked.path)).await?;
        *sent = true;
        let answer = self.ask(&mut connection, asked, limit).await?;
        // What was not read to its end is in the way of the next answer.
        if limit > 0 {
            self.idle.keep(connection);
        }
        Ok(answer)
    }

    async fn ask(&self, connection: &mut Connection, asked: &Asked<'_>, limit: usize) -> Result<Answer> {
        let what = self.what(asked.path);
        let response = connection.sender.send_request(self.request(asked)?).await;
        let response: Response<Incoming> = response.map_err(|error| fault(&format!("{what}: asking"), error))?;
        let (head, body) = response.into_parts();
        let body = if limit == 0 { Bytes::new() } else { whole(body, limit.max(MAX_ANSWER), &what).await? };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn request(&self, asked: &Asked<'_>) -> Result<Request<Full<Bytes>>> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::usage(format!("{}: cannot be asked: {error}", self.what(asked.path)))
        };
        let mut request = Request::post(self.address().path(asked.path))
            .header(header::HOST, self.address().authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = asked.bearer {
            let text = Zeroizing::new(format!("Bearer {}", token.reveal()));
            let mut value = HeaderValue::from_str(&text).map_err(|error| wrong(&error))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::new(asked.body.clone())).map_err(|error| wrong(&error))
    }
}

/// The whole body, of at most `limit` bytes.
async fn whole(body: Incoming, limit: usize, what: &str) -> Result<Bytes> {
    let read = Limited::new(body, limit).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => fault(&format!("{what}: reading the answer"), *error),
        Err(_) => Error::corrupt(format!("{what}: the answer has more than {limit} bytes, and was not read further"))
            .with_hint("is this the orchestrating service?"),
    })
}

/// What is to be said, as JSON.
fn json(said: &impl Serialize) -> Result<Bytes, Trouble> {
    serde_json::to_vec(said).map(Bytes::from).map_err(|error| Trouble::Failed {
        error: Error::usage(format!("writing what is to be said as JSON: {error}")),
        sent: false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Reply, Service, good, token};
    use super::*;

    async fn asks(client: &Client) -> Value {
        client.post("/", &token("s"), &json!({}), MAX_ANSWER).await.unwrap()
    }

    #[tokio::test]
    async fn two_clients_beside_each_other_have_one_connection_unless_both_ask() {
        let service = Service::start(|_, heard| match heard.body["slowly"].is_null() {
            true => good(&json!({})),
            false => Reply::Slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        });
        let one = service.client();
        let other = one.beside(TRY);
        for _ in 0..3 {
            asks(&one).await;
            asks(&other).await;
        }
        assert_eq!(service.connections(), 1);
        let slow = async { one.post::<Value>("/", &token("s"), &json!({"slowly": 1}), MAX_ANSWER).await.unwrap() };
        let quick = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let began = std::time::Instant::now();
            asks(&other).await;
            assert!(began.elapsed() < Duration::from_secs(1), "it waited for the other's answer");
        };
        tokio::join!(slow, quick);
        assert_eq!(service.connections(), 2);
        // One of them is kept, and enough again.
        asks(&one).await;
        asks(&other).await;
        asks(&one.another(TRY)).await;
        assert_eq!(service.connections(), 3, "whoever wants a connection of his own has one");
    }
}
