//! HTTP/1.1 with ranges: the client that registry and static servers share, and the static layout source.
//!
//! One request at a time per connection; connections are kept and used again. Every wait is bounded by one timeout.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use url::{Origin, Url};

use super::{Boxed, Source, SourceOptions, Stream, Waits, fetch_blob, tls};
use crate::error::{Error, Result, Retry};
use crate::manifest::BlobRef;
use crate::manifest::layout::{self, Choice};

const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("imgstream/", env!("CARGO_PKG_VERSION"));

type Sender = SendRequest<Empty<Bytes>>;

/// Sends GET requests and keeps connections.
#[derive(Debug)]
pub(super) struct Client {
    /// Made when first needed: reading the machine's certificates takes a while, and plain HTTP needs none.
    tls: OnceLock<Arc<ClientConfig>>,
    timeout: Duration,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
    /// Requests that wait for a connection, and for an answer or more of one.
    connecting: AtomicUsize,
    answering: AtomicUsize,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

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

/// The head of an answer and the connection its body comes from.
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) response: Response<Incoming>,
    sender: Sender,
    client: Arc<Client>,
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
            idle: Mutex::default(),
            connecting: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
        }))
    }

    pub(super) fn waits(&self) -> Waits {
        Waits { network: self.connecting.load(Relaxed), source: self.answering.load(Relaxed) }
    }

    /// Sends a GET and follows redirects. Credentials stay with the host they were meant for.
    pub(super) async fn get(self: &Arc<Self>, url: &Url, mut headers: Headers) -> Result<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.get_once(&url, &headers).await?;
            if !answer.response.status().is_redirection() {
                return Ok(answer);
            }
            let next = answer.redirect_target()?;
            if next.origin() != url.origin() {
                headers.authorization = None;
            }
            url = next;
        }
        Err(Error::source_failed(format!("{url}: redirected more than {MAX_REDIRECTS} times"))
            .with_retry(Retry::OtherSource))
    }

    async fn get_once(self: &Arc<Self>, url: &Url, headers: &Headers) -> Result<Answer> {
        let key = url.origin().ascii_serialization();
        // A kept connection may have been closed by the server just now; that is nobody's fault, so try a new one.
        while let Some(mut sender) = self.take_idle(&key) {
            if sender.ready().await.is_err() {
                continue;
            }
            match self.send(&mut sender, url, headers).await {
                Ok(response) => return Ok(self.answer(url, response, sender)),
                Err(error) if error.retry() == Retry::Temporary => {
                    tracing::debug!(%error, "kept connection is gone")
                }
                Err(error) => return Err(error),
            }
        }
        let mut sender = self.connect(url).await?;
        let response = self.send(&mut sender, url, headers).await?;
        Ok(self.answer(url, response, sender))
    }

    fn answer(self: &Arc<Self>, url: &Url, response: Response<Incoming>, sender: Sender) -> Answer {
        Answer { url: url.clone(), response, sender, client: Arc::clone(self) }
    }

    async fn send(&self, sender: &mut Sender, url: &Url, headers: &Headers) -> Result<Response<Incoming>> {
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::get(target)
            .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(accept) = headers.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = &headers.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(range) = &headers.range {
            request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let request = request.body(Empty::new()).map_err(|error| Error::usage(format!("{url}: {error}")))?;
        let _waiting = Waiting::on(&self.answering);
        self.bounded(url, "waiting for an answer", sender.send_request(request)).await
    }

    async fn connect(&self, url: &Url) -> Result<Sender> {
        let Origin::Tuple(_, host, port) = url.origin() else {
            return Err(Error::usage(format!("{url} has no host")));
        };
        let _waiting = Waiting::on(&self.connecting);
        let host = host.to_string();
        let address = (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port);
        let tcp = self.bounded(url, "connecting", TcpStream::connect(address.clone())).await?;
        // Requests are one small packet each; waiting for more of them only delays the answer.
        let _ = tcp.set_nodelay(true);
        if url.scheme() != "https" {
            return self.handshake(url, TokioIo::new(tcp)).await;
        }
        let name = ServerName::try_from(address.0).map_err(|error| Error::usage(format!("{url}: {error}")))?;
        let connector = tokio_rustls::TlsConnector::from(self.tls()?);
        let tls = self.bounded(url, "agreeing on TLS", connector.connect(name, tcp)).await.map_err(|error| {
            error
                .with_hint("a private CA is given with --ca; a server without TLS is named with http:// or oci+http://")
        })?;
        self.handshake(url, TokioIo::new(tls)).await
    }

    async fn handshake<I>(&self, url: &Url, io: I) -> Result<Sender>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = self.bounded(url, "starting HTTP", http1::handshake(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn bounded<T, E>(&self, url: &Url, what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                Err(Error::source_failed(format!("{url}: {what}: {}", innermost(&error))).with_source(error))
            }
            Err(_) => Err(Error::source_failed(format!("{url}: {what}: nothing for {} s", self.timeout.as_secs()))),
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        if self.tls.get().is_none() {
            let _ = self.tls.set(tls::client_config(None)?);
        }
        self.tls.get().cloned().ok_or_else(|| Error::usage("TLS cannot be set up"))
    }

    fn take_idle(&self, key: &str) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key)?.pop()
    }

    fn keep(&self, key: String, sender: Sender) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(sender);
    }
}

/// hyper's own messages name the step, its innermost cause names the reason.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl Answer {
    /// The error for a status that is not the wanted one.
    pub(super) fn unexpected_status(&self) -> Error {
        let status = self.response.status();
        let message = format!("{} answers {status}", self.url);
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
        {
            return Error::source_failed(message);
        }
        let error = Error::source_failed(message).with_retry(Retry::OtherSource);
        match status {
            StatusCode::NOT_FOUND => {
                error.with_hint("check that the address is the directory with `index.json`, or the repository and tag")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                error.with_hint("give credentials with --registry-auth FILE (docker's config.json)")
            }
            _ => error,
        }
    }

    fn redirect_target(&self) -> Result<Url> {
        let refuse =
            |why: &str| Error::source_failed(format!("{}: redirected {why}", self.url)).with_retry(Retry::OtherSource);
        let location = self.response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| refuse("without a location"))?;
        let next = self.url.join(location).map_err(|error| refuse(&format!("to {location:?}: {error}")))?;
        match (self.url.scheme(), next.scheme()) {
            ("https", "https") | ("http", "http" | "https") => Ok(next),
            ("https", _) => Err(refuse("from TLS to plain HTTP")),
            _ => Err(refuse("to something that is not HTTP")),
        }
    }

    /// The body as a stream. The connection is kept for the next request when the body has been read to its end.
    pub(super) fn into_stream(self) -> Result<BodyStream> {
        let encoding = self.response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|value| value != "identity") {
            return Err(Error::source_failed(format!(
                "{} sends an encoded body although none was asked for",
                self.url
            ))
            .with_retry(Retry::OtherSource));
        }
        let body = self.response.into_body();
        Ok(BodyStream { body, url: self.url, sender: Some(self.sender), client: self.client })
    }

    /// A whole small body.
    pub(super) async fn into_bytes(self, limit: u64) -> Result<Vec<u8>> {
        let url = self.url.clone();
        let mut stream = self.into_stream()?;
        let mut bytes = Vec::new();
        while let Some(more) = stream.next().await? {
            if bytes.len() as u64 + more.len() as u64 > limit {
                return Err(Error::image(format!("{url} sends more than the {limit} bytes that are accepted")));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    }

    /// Checks that this is the part of a blob that was asked for, and nothing else.
    pub(super) fn into_range(self, blob: BlobRef, range: &Range<u64>) -> Result<Box<dyn Stream>> {
        let whole = *range == (0..blob.size);
        match self.response.status() {
            StatusCode::OK if whole => {}
            StatusCode::OK => {
                return Err(Error::source_failed(format!("{} ignores ranges and sends whole files", self.url))
                    .with_retry(Retry::OtherSource)
                    .with_hint(
                        "serve the image with a server that supports HTTP ranges: nginx, apache, S3, `imgstream serve`",
                    ));
            }
            StatusCode::PARTIAL_CONTENT => self.check_content_range(blob, range)?,
            _ => return Err(self.unexpected_status()),
        }
        Ok(Box::new(self.into_stream()?))
    }

    fn check_content_range(&self, blob: BlobRef, range: &Range<u64>) -> Result<()> {
        let value =
            self.response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let span = format!("bytes {}-{}/", range.start, range.end - 1);
        let total = value.strip_prefix(&span);
        if total.is_some_and(|total| total == "*" || total.parse() == Ok(blob.size)) {
            return Ok(());
        }
        Err(Error::corrupt(format!("{} sends {value:?} instead of {span}{}", self.url, blob.size)))
    }
}

/// A body on its way.
pub(super) struct BodyStream {
    body: Incoming,
    url: Url,
    sender: Option<Sender>,
    client: Arc<Client>,
}

impl Stream for BodyStream {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            loop {
                let _waiting = Waiting::on(&self.client.answering);
                let frame = match tokio::time::timeout(self.client.timeout, self.body.frame()).await {
                    Err(_) => {
                        let seconds = self.client.timeout.as_secs();
                        return Err(Error::source_failed(format!("{}: the body stalled for {seconds} s", self.url)));
                    }
                    Ok(Some(Err(error))) => {
                        let message = format!("{}: the body broke off: {}", self.url, innermost(&error));
                        return Err(Error::source_failed(message).with_source(error));
                    }
                    Ok(Some(Ok(frame))) => frame,
                    Ok(None) => {
                        if let Some(sender) = self.sender.take() {
                            self.client.keep(self.url.origin().ascii_serialization(), sender);
                        }
                        return Ok(None);
                    }
                };
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        })
    }
}

/// A layout on a static HTTP server.
#[derive(Debug)]
pub struct Http {
    base: Url,
    client: Arc<Client>,
}

impl Http {
    /// The layout below `base`, whose path ends in a slash.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] when the certificates cannot be used.
    pub fn new(base: Url, options: &SourceOptions) -> Result<Self> {
        Ok(Http { base, client: Client::new(options)? })
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|error| Error::usage(format!("{}{path}: {error}", self.base)))
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        self.base.as_str()
    }

    fn waits(&self) -> Waits {
        self.client.waits()
    }

    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let answer = self.client.get(&self.url("index.json")?, Headers::default()).await?;
            if answer.response.status() != StatusCode::OK {
                return Err(answer.unexpected_status());
            }
            let index = answer.into_bytes(layout::MAX_MANIFEST).await?;
            fetch_blob(self, layout::choose(&index, choice)?, layout::MAX_MANIFEST, "the OCI manifest").await
        })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let url = self.url(&format!("blobs/sha256/{}", blob.digest.hex()))?;
            let headers = Headers { range: Some(range.clone()), ..Headers::default() };
            self.client.get(&url, headers).await?.into_range(blob, &range)
        })
    }
}
