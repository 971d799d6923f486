//! One request and its answer, which is bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Response};
use protocol::control::Problem;
use protocol::control::problem::MEDIA_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use super::Client;
use crate::dial::{AGENT, Connection};
use crate::error::{Error, Result};
use crate::text::printable;

/// Largest refusal that is read, in bytes.
const MAX_PROBLEM: usize = 64 << 10;

/// What is asked.
pub(super) struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

/// What was answered: something good.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: Bytes,
}

impl Request {
    pub(super) fn new(method: Method, path: &str) -> Self {
        Request { method, path: path.to_owned(), query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn query(mut self, key: &'static str, value: &str) -> Self {
        self.query.push((key, value.to_owned()));
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn idempotency_key(self, key: &str) -> Self {
        self.header(HeaderName::from_static("idempotency-key"), key)
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_vec(body).map_err(|error| Error::system(format!("writing a request: {error}")))?;
        self.body = json.into();
        Ok(self.header(CONTENT_TYPE, "application/json"))
    }

    /// The request as it is sent: without the server's name in its first line, which stands in `Host`.
    fn built(self, client: &Client) -> Result<hyper::Request<Full<Bytes>>> {
        let bad = |error: &dyn std::fmt::Display| Error::system(format!("making a request: {error}"));
        let mut url: Url = client.base.join(&self.path).map_err(|error| bad(&error))?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut builder = hyper::Request::builder().method(self.method).uri(format!("{}{query}", url.path()));
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        builder = builder.header(HOST, host).header(USER_AGENT, AGENT);
        if let Some(token) = &client.token {
            let bearer = Zeroizing::new(format!("Bearer {}", token.reveal()));
            let mut bearer = HeaderValue::from_str(&bearer).map_err(|error| bad(&error))?;
            bearer.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, bearer);
        }
        if !self.headers.iter().any(|(name, _)| name == ACCEPT) {
            builder = builder.header(ACCEPT, "application/json");
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(self.body)).map_err(|error| bad(&error))
    }
}

impl Answer {
    /// What it says.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::unavailable(format!("the service's answer is not understood: {error}"))
                .with_hint("is it z-orchestrator that answers there, and of this version?")
        })
    }
}

impl Client {
    /// Asks once, and reads an answer of at most `most` bytes. A refusal is an error.
    pub(super) async fn exchange(&self, request: Request, most: usize) -> Result<Answer> {
        let within = self.times.answer;
        let exchanged = tokio::time::timeout(within, async {
            let (_connection, answer) = self.ask(request).await?;
            let status = answer.status().as_u16();
            let body = self.whole(answer.into_body(), most).await?;
            Ok(Answer { status, body })
        });
        let late = |_| {
            Err(Error::unavailable(format!("{} did not answer in {} s", self.url(), within.as_secs())).with_retry(None))
        };
        exchanged.await.unwrap_or_else(late)
    }

    /// Asks once; the answer is good, and its body has yet to come.
    pub(super) async fn ask(&self, request: Request) -> Result<(Connection, Response<Incoming>)> {
        let request = request.built(self)?;
        let mut connection = self.connect().await?;
        let answer = connection.ask(request).await;
        let answer = answer.map_err(|error| self.lost(&error).with_source(error))?;
        if answer.status().is_success() {
            return Ok((connection, answer));
        }
        let (head, body) = answer.into_parts();
        let body = self.whole(body, MAX_PROBLEM).await;
        Err(self.refusal(head.status.as_u16(), &head.headers, body.unwrap_or_default()))
    }

    async fn whole(&self, body: Incoming, most: usize) -> Result<Bytes> {
        match Limited::new(body, most).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Error::unavailable(format!("{} answered with more than {most} bytes", self.url()))
                    .with_hint("is it z-orchestrator that answers there?"))
            }
            Err(error) => Err(self.lost(&error).with_source(error)),
        }
    }

    /// Why it was refused. What the status says counts for more than what the body does.
    fn refusal(&self, status: u16, headers: &HeaderMap, body: Bytes) -> Error {
        let is_problem =
            headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE.as_bytes()));
        let problem = serde_json::from_slice::<Problem>(&body).ok().filter(|_| is_problem);
        let mut error = match problem {
            Some(problem) => Error::from(Problem { status, ..problem }),
            None => self.unexplained(status, &body),
        };
        if status == 401 && error.hint().is_none() {
            error = error.with_hint("give the operator's token of this very service with --operator-token, or a client certificate with --certificate");
        }
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let may_pass = matches!(status, 408 | 429 | 502 | 503 | 504);
        match error.retry() {
            None if may_pass => error.with_retry(seconds.map(Duration::from_secs)),
            _ => error,
        }
    }

    /// A refusal by something else than the service, such as a proxy before it.
    fn unexplained(&self, status: u16, body: &[u8]) -> Error {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let text = printable(text.trim());
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        let message = format!("{} answered {status}{said}", self.url());
        let error = if (400..500).contains(&status) { Error::refused(message) } else { Error::unavailable(message) };
        error.with_hint("is it z-orchestrator that answers there, and not something before it?")
    }
}
