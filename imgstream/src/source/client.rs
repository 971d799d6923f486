//! The HTTP/1.1 client that registry and static servers share: GET, redirects, kept connections.
//!
//! One request at a time per connection. Every wait is bounded by one timeout, and says what was waited for.

use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use url::{Origin, Position, Url};

use super::answer::Answer;
use super::dial::Dial;
use super::fault::fault;
use super::{SourceOptions, Waits, tls};
use crate::error::{Error, Result};

const MAX_REDIRECTS: usize = 5;
/// Largest head of an answer, in bytes. How many headers it may have (100) is hyper's own limit.
const MAX_HEAD: usize = 64 << 10;
/// Connections kept for the next request: a server that redirects each time elsewhere must not use up our files.
const MAX_IDLE: usize = 64;
const USER_AGENT: &str = concat!("imgstream/", env!("CARGO_PKG_VERSION"));

pub(super) type Sender = SendRequest<Empty<Bytes>>;

/// Sends GET requests and keeps connections.
#[derive(Debug)]
pub(super) struct Client {
    /// Made when first needed: reading the machine's certificates takes a while, and plain HTTP needs none.
    tls: OnceLock<Arc<ClientConfig>>,
    pub(super) timeout: Duration,
    dial: Dial,
    /// Connections nobody uses now, the latest last.
    idle: Mutex<VecDeque<(Origin, Sender)>>,
    /// Requests that wait for a connection, and for an answer or more of one.
    connecting: AtomicUsize,
    answering: AtomicUsize,
}

/// Counts one who waits, for as long as it lives.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn on(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Relaxed);
        Waiting(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a request says besides its URL.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers {
    pub(super) accept: Option<&'static str>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) range: Option<Range<u64>>,
}

impl Client {
    pub(super) fn new(options: &SourceOptions) -> Result<Arc<Self>> {
        let tls = OnceLock::new();
        if let Some(ca) = &options.ca_pem {
            let _ = tls.set(tls::client_config(Some(ca))?);
        }
        Ok(Arc::new(Client {
            tls,
            timeout: options.timeout,
            dial: Dial::new(options),
            idle: Mutex::default(),
            connecting: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
        }))
    }

    pub(super) fn waits(&self) -> Waits {
        Waits { network: self.connecting.load(Relaxed), source: self.answering.load(Relaxed) }
    }

    /// Counts a wait for the server, until dropped.
    pub(super) fn awaiting_answer(&self) -> Waiting<'_> {
        Waiting::on(&self.answering)
    }

    /// Sends a GET and follows redirects. Credentials stay with the host they were meant for.
    pub(super) async fn get(self: &Arc<Self>, url: &Url, mut headers: Headers) -> Result<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.get_once(&url, &headers).await?;
            let Some(next) = answer.redirect()? else {
                return Ok(answer);
            };
            if next.origin() != url.origin() {
                headers.authorization = None;
            }
            url = next;
        }
        Err(wrong(&url, format_args!("redirected more than {MAX_REDIRECTS} times")))
    }

    async fn get_once(self: &Arc<Self>, url: &Url, headers: &Headers) -> Result<Answer> {
        if let Some(answer) = self.get_by_kept(url, headers).await? {
            return Ok(answer);
        }
        let mut sender = self.connect(url).await?;
        let response = self.send(&mut sender, url, headers).await??;
        Ok(Answer::new(url.clone(), response, sender, Arc::clone(self)))
    }

    /// A kept connection may have been closed by the server just now; that is nobody's fault, and a new one is tried.
    async fn get_by_kept(self: &Arc<Self>, url: &Url, headers: &Headers) -> Result<Option<Answer>> {
        while let Some(mut sender) = self.take_idle(&url.origin()) {
            if !matches!(tokio::time::timeout(self.timeout, sender.ready()).await, Ok(Ok(()))) {
                continue;
            }
            match self.send(&mut sender, url, headers).await? {
                Ok(response) => return Ok(Some(Answer::new(url.clone(), response, sender, Arc::clone(self)))),
                Err(error) => tracing::debug!(%error, "a kept connection is gone"),
            }
        }
        Ok(None)
    }

    /// The head of the answer. The inner error is the connection's; after the outer one there is no use in another.
    async fn send(&self, sender: &mut Sender, url: &Url, headers: &Headers) -> Result<Result<Response<Incoming>>> {
        let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(accept) = headers.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = &headers.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(range) = &headers.range {
            request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let request =
            request.body(Empty::new()).map_err(|error| wrong(url, format_args!("cannot be asked: {error}")))?;
        let _waiting = self.awaiting_answer();
        self.bounded(url, "waiting for an answer", sender.send_request(request)).await
    }

    async fn connect(&self, url: &Url) -> Result<Sender> {
        let (true, Some(host), Some(port)) =
            (matches!(url.scheme(), "http" | "https"), url.host_str(), url.port_or_known_default())
        else {
            return Err(wrong(url, "is not an HTTP address"));
        };
        let _waiting = Waiting::on(&self.connecting);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found = self.bounded(url, "looking up its name", tokio::net::lookup_host((host.clone(), port))).await?;
        let addresses: Vec<_> =
            found.map_err(|error| error.with_hint("look at the host's name, and at /etc/resolv.conf"))?.collect();
        let what = format!("{}: connecting", named(url));
        let tcp = self.in_time(&what, self.dial.connect(&what, &addresses)).await??;
        // Requests are one small packet each; waiting for more of them only delays the answer.
        let _ = tcp.set_nodelay(true);
        if url.scheme() == "http" {
            return self.handshake(url, TokioIo::new(tcp)).await;
        }
        let name = ServerName::try_from(host).map_err(|error| wrong(url, error))?;
        let connector = tokio_rustls::TlsConnector::from(self.tls()?);
        let tls = self.bounded(url, "agreeing on TLS", connector.connect(name, tcp)).await??;
        self.handshake(url, TokioIo::new(tls)).await
    }

    async fn handshake<I>(&self, url: &Url, io: I) -> Result<Sender>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let starting = http1::Builder::new().max_header_size(MAX_HEAD).handshake(io);
        let (sender, connection) = self.bounded(url, "starting HTTP", starting).await??;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }

    /// `work` with its time limit, which is the outer error; what the connection had against it is the inner one.
    async fn bounded<T, E>(&self, url: &Url, what: &str, work: impl Future<Output = Result<T, E>>) -> Result<Result<T>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let what = format!("{}: {what}", named(url));
        let done = self.in_time(&what, work).await?;
        Ok(done.map_err(|error| fault(&what, error)))
    }

    async fn in_time<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.timeout, work).await.map_err(|_| {
            Error::source_failed(format!("{what}: not done in {} s", self.timeout.as_secs_f32()))
                .with_hint("look at the server, and at what lies between; --timeout waits longer")
        })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        if self.tls.get().is_none() {
            let _ = self.tls.set(tls::client_config(None)?);
        }
        self.tls.get().cloned().ok_or_else(|| Error::usage("TLS cannot be set up"))
    }

    fn take_idle(&self, origin: &Origin) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|(kept, _)| kept == origin)?;
        idle.remove(at).map(|(_, sender)| sender)
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, url: &Url, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back((url.origin(), sender));
    }
}

/// A URL as messages show it: without a query, which may carry a signature that gives access, and not for ever.
pub(super) fn named(url: &Url) -> String {
    const LONGEST: usize = 200;
    let shown = format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPath]);
    match url.query() {
        _ if shown.len() > LONGEST => shown.chars().take(LONGEST).chain(['…']).collect(),
        Some(_) => shown + "?…",
        None => shown,
    }
}

/// The error for a server that does `what` and will do it again: another source may do better.
pub(super) fn wrong(url: &Url, what: impl Display) -> Error {
    Error::corrupt(format!("{}: {what}", named(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_gives_access() {
        let shown = |text: &str| named(&text.parse().unwrap());
        assert_eq!(shown("https://me:secret@s3.example.com/a/b?X-Amz-Signature=12#f"), "https://s3.example.com/a/b?…");
        assert_eq!(shown("http://[::1]:8080/index.json"), "http://[::1]:8080/index.json");
        assert_eq!(shown("http://h/\u{1b}[2J\u{202e}"), "http://h/%1B[2J%E2%80%AE");
        assert_eq!(shown(&format!("http://h/{}", "x".repeat(9000))).chars().count(), 201);
        assert_eq!(shown("file:///etc/passwd"), "file:///etc/passwd");
    }
}
