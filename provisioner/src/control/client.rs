//! The HTTP client of this crate: a POST of JSON, one answer of bounded size in bounded time, one connection that is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use imgstream::error::{Error, Result, Retry};
use imgstream::source::{Dial, fault, trusting};
use protocol::Token;
use protocol::control::problem::{MEDIA_TYPE, Problem};
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use zeroize::{Zeroize, Zeroizing};

use super::address::Address;
use super::client_key::Key;
use super::trouble::{Refusal, Trouble};

/// How long a request may take, connection and answer included.
pub(crate) const TRY: Duration = Duration::from_secs(10);
/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Largest answer that is read, in bytes, where nothing else is said.
pub(super) const MAX_ANSWER: usize = 64 << 10;
const USER_AGENT: &str = concat!("z-provisioner/", env!("CARGO_PKG_VERSION"));
const CERTIFICATES: &str = "compare the authority that is trusted (--orchestrator-ca, or `trust.orchestrator_ca` of a medium) with the one that signed the service's certificate, and the name in that with the URL; look at this machine's clock";

/// Asks one service, one request after the other. Whoever must not wait for another's request has a client of his own.
#[derive(Debug)]
pub(crate) struct Client {
    address: Arc<Address>,
    tls: Option<Tls>,
    dial: Arc<Dial>,
    timeout: Duration,
    kept: Mutex<Option<Connection>>,
}

/// TLS, made once.
#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TLS")
    }
}

/// A connection, and the task that moves its bytes, which ends with it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
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
        let tls = match ca_pem {
            _ if !address.is_https() => None,
            Some(pem) => Some(Tls(TlsConnector::from(trusting(pem)?))),
            None => {
                return Err(Error::usage(format!(
                    "{address}: nothing says which authority's certificate it must have"
                ))
                .with_hint("give the authority's certificate (PEM) with --orchestrator-ca"));
            }
        };
        let (address, dial) = (Arc::new(address), Arc::new(dial));
        Ok(Client { address, tls, dial, timeout: TRY, kept: Mutex::default() })
    }

    /// Another one for the same service, with a connection of its own, whose requests may take this long at most.
    pub(super) fn another(&self, timeout: Duration) -> Self {
        let (address, tls, dial) = (Arc::clone(&self.address), self.tls.clone(), Arc::clone(&self.dial));
        Client { address, tls, dial, timeout: timeout.min(TRY), kept: Mutex::default() }
    }

    /// Another one for the same service, which shows this certificate (PEM) over this key on connections of its own, where they are TLS.
    ///
    /// # Errors
    /// As of [`Key::shown`].
    pub(super) fn showing(&self, certificate: &str, key: &Key) -> Result<Self> {
        let mut other = self.another(self.timeout);
        if let Some(Tls(connector)) = &self.tls {
            other.tls = Some(Tls(TlsConnector::from(Arc::new(key.shown(connector.config(), certificate)?))));
        }
        Ok(other)
    }

    /// Where the service is.
    pub(super) fn address(&self) -> &Address {
        &self.address
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
        format!("{}{path}", self.address)
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
        let mut kept = self.kept.lock().await;
        // The service may have closed it just now; that is nobody's fault, and saying the same twice does no harm.
        if let Some(mut connection) = kept.take()
            && connection.sender.ready().await.is_ok()
        {
            *sent = true;
            match self.ask(&mut connection, asked, limit).await {
                Ok(answer) => {
                    *kept = Some(connection);
                    return Ok(answer);
                }
                Err(error) => tracing::debug!(%error, "a kept connection is gone"),
            }
        }
        let mut connection = self.connect(asked.path).await?;
        *sent = true;
        let answer = self.ask(&mut connection, asked, limit).await?;
        // What was not read to its end is in the way of the next answer.
        *kept = (limit > 0).then_some(connection);
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
        let mut request = Request::post(self.address.path(asked.path))
            .header(header::HOST, self.address.authority())
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

    async fn connect(&self, path: &str) -> Result<Connection> {
        let (what, host) = (self.what(path), self.address.host().to_owned());
        let found = tokio::net::lookup_host((host.clone(), self.address.port())).await;
        let found = found.map_err(|error| {
            fault(&format!("{what}: looking up its name"), error)
                .with_hint("look at the host's name, and at /etc/resolv.conf")
        })?;
        let tcp = self.dial.connect(&format!("{what}: connecting"), &found.collect::<Vec<_>>()).await?;
        let _ = tcp.set_nodelay(true);
        let Some(Tls(connector)) = &self.tls else { return self.handshake(&what, TokioIo::new(tcp)).await };
        let name = ServerName::try_from(host).map_err(|error| Error::usage(format!("{what}: its host: {error}")))?;
        let tls = connector.connect(name, tcp).await.map_err(|error| {
            let error = fault(&format!("{what}: agreeing on TLS"), error);
            if error.retry() == Retry::OtherSource { error.with_hint(CERTIFICATES) } else { error }
        })?;
        self.handshake(&what, TokioIo::new(tls)).await
    }

    async fn handshake<I>(&self, what: &str, io: I) -> Result<Connection>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let started = http1::Builder::new().max_header_size(MAX_HEAD).handshake(io).await;
        let (sender, connection) = started.map_err(|error| fault(&format!("{what}: starting HTTP"), error))?;
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, task })
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
