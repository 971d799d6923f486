//! A static HTTP/1.1 server for one OCI image layout: for demos, labs and tests.
//!
//! It knows only the paths a layout has (`/oci-layout`, `/index.json`, `/blobs/sha256/<64 hex digits>`), so there
//! is nothing to traverse, and it follows no symbolic link below the layout's directory. It answers single byte
//! ranges and validators as RFC 9110 asks, streams files in constant memory, and cuts the connection when a file
//! turns out shorter than was promised. Every wait has a bound.
//!
//! What it serves needs no trust: the reader checks signature and digests. So there are no access rules here.
//!
//! The runtime it is started on needs tokio's I/O and time drivers.

#![forbid(unsafe_code)]

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How a layout is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Speak TLS with this configuration (see [`tls_config`]); plain HTTP without one.
    pub tls: Option<Arc<ServerConfig>>,
}

/// The TLS side of [`ServeOptions`]: a certificate chain (the server's own first) and its private key, both PEM.
pub fn tls_config(cert_chain_pem: &[u8], key_pem: &[u8]) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(cert_chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(format!("reading the TLS certificate chain: {error}")))?;
    if chain.is_empty() {
        return Err(invalid("reading the TLS certificate chain: no CERTIFICATE block in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| invalid(format!("reading the TLS private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| invalid(format!("using the TLS certificate and key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Serves the layout in `root` on `listener` until `shutdown` is cancelled.
///
/// On cancellation no connection is accepted any more, and requests under way get five seconds to finish.
/// Fails if `root` is not a directory, or if the listener itself is broken.
pub async fn serve(
    root: PathBuf,
    listener: TcpListener,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_within(Bounds::default(), root, listener, options, shutdown).await
}

/// How much, and how long at most.
#[derive(Clone, Copy)]
struct Bounds {
    /// Connections at one time; more wait in the listener's backlog.
    connections: usize,
    /// The TLS handshake.
    handshake: Duration,
    /// A request's header; also how long a connection may idle between two requests.
    header: Duration,
    /// A client that takes nothing of what is sent to it.
    stalled_write: Duration,
    /// Opening a file, or reading one piece of it.
    disk: Duration,
    /// What requests under way get on shutdown.
    drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            stalled_write: Duration::from_secs(30),
            disk: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// A pause after an accept that failed for want of resources, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn serve_within(
    bounds: Bounds,
    root: PathBuf,
    listener: TcpListener,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    if !std::fs::metadata(&root)?.is_dir() {
        let message = format!("{}: not a directory, so not an image layout", root.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
    }
    let root: Arc<Path> = root.into();
    let tls = options.tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();

    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (root, tls, shutdown) = (Arc::clone(&root), tls.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    attend(bounds, root, stream, peer, tls, shutdown).await;
                });
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK)) => {
                return Err(error);
            }
            Err(error) => {
                debug!(%error, "accept failed; going on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    drop(listener);
    debug!(connections = connections.len(), "shutting down");
    let drained = timeout(bounds.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(connections = connections.len(), "cutting off what did not finish in time");
        connections.shutdown().await;
    }
    Ok(())
}

/// One connection, from accept to close.
async fn attend(
    bounds: Bounds,
    root: Arc<Path>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY");
    }
    let stream = StallBound::new(stream, bounds.stalled_write);
    let Some(tls) = tls else {
        return converse(bounds, root, stream, peer, shutdown).await;
    };
    let handshake = tokio::select! {
        () = shutdown.cancelled() => return,
        handshake = timeout(bounds.handshake, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => converse(bounds, root, stream, peer, shutdown).await,
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

/// HTTP on a connection that is ready for it.
async fn converse<S>(bounds: Bounds, root: Arc<Path>, stream: S, peer: SocketAddr, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| respond(bounds, Arc::clone(&root), request, peer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match outcome {
        Ok(()) => debug!(%peer, "connection closed"),
        // Debug, because hyper's Display leaves out the cause.
        Err(error) => debug!(%peer, ?error, "connection cut"),
    }
}

type Body = Either<FileBody, Full<Bytes>>;
type Answer = Result<Response<Body>, hyper::http::Error>;

async fn respond(bounds: Bounds, root: Arc<Path>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let answer = answer(bounds, root, &request).await;
    if let Ok(response) = &answer {
        debug!(
            %peer,
            method = %request.method(),
            path = request.uri().path(),
            range = ?request.headers().get(header::RANGE),
            status = response.status().as_u16(),
            "request",
        );
    }
    answer
}

async fn answer(bounds: Bounds, root: Arc<Path>, request: &Request<Incoming>) -> Answer {
    let headers = request.headers();
    // RFC 9112, 3.2.
    if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return refusal(StatusCode::BAD_REQUEST, "one Host header, please\n");
    }
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n")?;
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
    };
    let Some(item) = Item::at(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "not a path of an OCI image layout\n");
    };

    let open = tokio::task::spawn_blocking({
        let item = item.clone();
        move || Opened::open(&root, &item)
    });
    let opened = match timeout(bounds.disk, open).await {
        Ok(Ok(Ok(opened))) => opened,
        Ok(Ok(Err(error))) => return no_file(&item, &error),
        Ok(Err(error)) => return no_file(&item, &io::Error::other(error)),
        Err(_) => return no_file(&item, &io::Error::from(io::ErrorKind::TimedOut)),
    };
    let Opened { file, len, etag } = opened;

    let response = Response::builder().header(header::ETAG, &etag).header(header::CACHE_CONTROL, item.cache_control());
    // RFC 9110, 13.2.2: the order of preconditions. Without Last-Modified, those on dates do not apply.
    if headers.contains_key(header::IF_MATCH) && !lists(headers, header::IF_MATCH, &etag, Comparison::Strong) {
        return refusal(StatusCode::PRECONDITION_FAILED, "If-Match names another version\n");
    }
    if lists(headers, header::IF_NONE_MATCH, &etag, Comparison::Weak) {
        return response.status(StatusCode::NOT_MODIFIED).body(Either::Right(Full::default()));
    }
    let response = response.header(header::ACCEPT_RANGES, "bytes");
    let wanted = if head { Wanted::Whole } else { Wanted::by(headers, &etag, len) };
    let response = match wanted {
        Wanted::Unsatisfiable => {
            let text = "the range lies outside of the file\n";
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{len}"))
                .header(header::CONTENT_TYPE, "text/plain")
                .header(header::CONTENT_LENGTH, text.len())
                .body(Either::Right(Full::from(text)));
        }
        Wanted::Whole => response.status(StatusCode::OK),
        Wanted::Part { first, len: part } => response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {first}-{}/{len}", first + (part - 1))),
    };
    let (first, part) = match wanted {
        Wanted::Part { first, len } => (first, len),
        _ => (0, len),
    };
    response.header(header::CONTENT_TYPE, item.content_type()).header(header::CONTENT_LENGTH, part).body(if head {
        Either::Right(Full::default())
    } else {
        Either::Left(FileBody::new(file, first, part, bounds.disk))
    })
}

/// A short answer in plain text.
fn refusal(status: StatusCode, text: &'static str) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::CONTENT_LENGTH, text.len())
        .body(Either::Right(Full::from(text)))
}

/// The answer when a layout's file could not be opened.
fn no_file(item: &Item, error: &io::Error) -> Answer {
    debug!(path = ?item.components(), %error, "cannot open");
    match error.raw_os_error() {
        // ELOOP is a symbolic link where O_NOFOLLOW met one.
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => refusal(StatusCode::NOT_FOUND, "not in this layout\n"),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "too busy to open the file\n")
        }
        None if error.kind() == io::ErrorKind::NotFound => refusal(StatusCode::NOT_FOUND, "not in this layout\n"),
        _ => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be opened\n"),
    }
}

/// A file of an image layout: the only things there are to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Layout,
    Index,
    /// With its SHA-256 in hex.
    Blob(String),
}

impl Item {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/oci-layout" => Some(Self::Layout),
            "/index.json" => Some(Self::Index),
            _ => {
                let hex = path.strip_prefix("/blobs/sha256/")?;
                let well_formed = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                well_formed.then(|| Self::Blob(hex.to_owned()))
            }
        }
    }

    fn components(&self) -> Vec<&str> {
        match self {
            Self::Layout => vec!["oci-layout"],
            Self::Index => vec!["index.json"],
            Self::Blob(hex) => vec!["blobs", "sha256", hex],
        }
    }

    fn content_type(&self) -> &'static str {
        match self {
            Self::Layout => "application/vnd.oci.layout.header.v1+json",
            Self::Index => "application/vnd.oci.image.index.v1+json",
            Self::Blob(_) => "application/octet-stream",
        }
    }

    fn cache_control(&self) -> &'static str {
        match self {
            Self::Blob(_) => "public, max-age=31536000, immutable",
            Self::Layout | Self::Index => "no-cache",
        }
    }
}

struct Opened {
    file: File,
    len: u64,
    etag: String,
}

impl Opened {
    /// Opens one component after the other and follows no link, so that what is opened lies below `root`.
    fn open(root: &Path, item: &Item) -> io::Result<Self> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Non-blocking, so that a pipe lying there is refused below instead of waited for.
        let leaf = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let components = item.components();
        let mut opened = nix::fcntl::open(root, directory, Mode::empty())?;
        for (index, component) in components.iter().enumerate() {
            let last = index + 1 == components.len();
            let flags = if last { leaf } else { directory | OFlag::O_NOFOLLOW };
            opened = nix::fcntl::openat(&opened, *component, flags, Mode::empty())?;
        }
        let file = File::from(opened);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "not a regular file"));
        }
        let len = metadata.len();
        let etag = match item {
            Item::Blob(hex) => format!("\"sha256:{hex}\""),
            // Weak: a rewrite within one tick of the file system's clock would go unseen.
            Item::Layout | Item::Index => {
                format!("W/\"{:x}-{:x}.{:x}-{len:x}\"", metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
            }
        };
        Ok(Self { file, len, etag })
    }
}

/// RFC 9110, 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether the list of entity tags in header `name` contains `etag` (or is `*`).
fn lists(headers: &HeaderMap, name: HeaderName, etag: &str, comparison: Comparison) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        match comparison {
            _ if tag == "*" => true,
            Comparison::Strong => tag == etag && !etag.starts_with("W/"),
            Comparison::Weak => opaque(tag) == opaque(etag),
        }
    })
}

/// Which part of a file of `len` bytes a GET asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// Never empty, and within the file.
    Part {
        first: u64,
        len: u64,
    },
    Unsatisfiable,
}

impl Wanted {
    fn by(headers: &HeaderMap, etag: &str, len: u64) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else {
            return Self::Whole;
        };
        // A date never matches: there is no Last-Modified here that a client could have it from.
        if headers.contains_key(header::IF_RANGE) {
            let same = headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() == etag.as_bytes());
            if !same || etag.starts_with("W/") {
                return Self::Whole;
            }
        }
        range.to_str().map_or(Self::Whole, |range| Self::parse(range, len))
    }

    /// A range we do not understand, or several at once, may be ignored (RFC 9110, 14.2): the answer is the whole.
    fn parse(range: &str, len: u64) -> Self {
        let Some((unit, set)) = range.split_once('=') else {
            return Self::Whole;
        };
        // A list may have empty elements (RFC 9110, 5.6.1.2).
        let mut specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
        let (Some(spec), None) = (specs.next(), specs.next()) else {
            return Self::Whole;
        };
        let Some((first, last)) = spec.split_once('-') else {
            return Self::Whole;
        };
        if !unit.eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        match (number(first), number(last)) {
            (None, Some(0)) if first.is_empty() => Self::Unsatisfiable,
            // The last bytes of nothing: satisfiable, but Content-Range cannot say so.
            (None, Some(_)) if first.is_empty() && len == 0 => Self::Whole,
            (None, Some(suffix)) if first.is_empty() => {
                let part = suffix.min(len);
                Self::Part { first: len - part, len: part }
            }
            (Some(first), Some(last)) if first > last => Self::Whole,
            (Some(first), Some(_)) if first >= len => Self::Unsatisfiable,
            (Some(first), Some(last)) => Self::Part { first, len: last.min(len - 1) - first + 1 },
            (Some(first), None) if last.is_empty() && first >= len => Self::Unsatisfiable,
            (Some(first), None) if last.is_empty() => Self::Part { first, len: len - first },
            _ => Self::Whole,
        }
    }
}

/// Digits only (no sign); what does not fit is beyond any file anyway.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// How much is read at a time.
const PIECE: u64 = 512 * 1024;

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Part of a file, a piece at a time and one piece read ahead.
struct FileBody {
    file: Arc<File>,
    /// Where the piece that is handed out next begins.
    offset: u64,
    remaining: u64,
    reading: Option<Reading>,
    bound: Duration,
}

impl FileBody {
    fn new(file: File, offset: u64, len: u64, bound: Duration) -> Self {
        Self { file: Arc::new(file), offset, remaining: len, reading: None, bound }
    }

    /// Starts reading the piece at `offset`; the bound begins when it is waited for.
    fn read(&self) -> Reading {
        let (file, offset, bound) = (Arc::clone(&self.file), self.offset, self.bound);
        let mut piece = vec![0; self.remaining.min(PIECE) as usize];
        let reading = tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut piece, offset).map(|()| Bytes::from(piece)).map_err(|error| {
                let why = if error.kind() == io::ErrorKind::UnexpectedEof {
                    "cut short while being served"
                } else {
                    "read error"
                };
                io::Error::new(error.kind(), format!("{why}, in the piece at offset {offset}: {error}"))
            })
        });
        Box::pin(async move {
            match timeout(bound, reading).await {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => Err(io::Error::other(error)),
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("reading at offset {offset} took too long")))
                }
            }
        })
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let mut reading = this.reading.take().unwrap_or_else(|| this.read());
        let Poll::Ready(piece) = reading.as_mut().poll(cx) else {
            this.reading = Some(reading);
            return Poll::Pending;
        };
        match piece {
            Ok(piece) => {
                this.offset += piece.len() as u64;
                this.remaining -= piece.len() as u64;
                this.reading = (this.remaining > 0).then(|| this.read());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            // hyper then closes the connection, which tells the client that the answer is incomplete.
            Err(error) => {
                this.remaining = 0;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A stream whose writes fail once the peer has taken nothing for `bound`.
struct StallBound<S> {
    inner: S,
    bound: Duration,
    sleep: Pin<Box<Sleep>>,
    stalled: bool,
}

impl<S> StallBound<S> {
    fn new(inner: S, bound: Duration) -> Self {
        Self { inner, bound, sleep: Box::pin(tokio::time::sleep(bound)), stalled: false }
    }

    /// Passes a write's outcome on, unless it has been pending for too long.
    fn check<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        if !self.stalled {
            self.stalled = true;
            self.sleep.as_mut().reset(Instant::now() + self.bound);
        }
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is sent to it")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallBound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallBound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.check(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket's flush does nothing, so it says nothing about the peer.
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream as Socket;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn only_the_paths_of_a_layout() {
        assert_eq!(Item::at("/oci-layout"), Some(Item::Layout));
        assert_eq!(Item::at("/index.json"), Some(Item::Index));
        assert_eq!(Item::at(&format!("/blobs/sha256/{HEX}")), Some(Item::Blob(HEX.to_owned())));
        let others = [
            String::new(),
            "/".to_owned(),
            "*".to_owned(),
            "//index.json".to_owned(),
            "/index.json/".to_owned(),
            "/blobs/sha256/".to_owned(),
            format!("/blobs/sha256/{}", HEX.to_uppercase()),
            format!("/blobs/sha256/{HEX}0"),
            format!("/blobs/sha256/{}", &HEX[1..]),
            format!("/blobs/sha256/../sha256/{HEX}"),
            format!("/blobs/sha512/{HEX}"),
            format!("/blobs/sha256/{}/..", &HEX[..61]),
        ];
        for path in others {
            assert_eq!(Item::at(&path), None, "{path}");
        }
    }

    #[test]
    fn ranges() {
        use Wanted::{Unsatisfiable, Whole};
        let part = |first, len| Wanted::Part { first, len };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-100", part(0, 100)),
            ("bytes=10-19", part(10, 10)),
            ("BYTES=10-19", part(10, 10)),
            ("bytes= 10-19 ,", part(10, 10)),
            ("bytes=99-", part(99, 1)),
            ("bytes=0-", part(0, 100)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-100", part(0, 100)),
            ("bytes=-101", part(0, 100)),
            ("bytes=5-99999999999999999999999", part(5, 95)),
            ("bytes=-99999999999999999999999", part(0, 100)),
            ("bytes=100-", Unsatisfiable),
            ("bytes=100-200", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-1,5-6", Whole),
            ("bytes=5-4", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1--2", Whole),
            ("bytes=--2", Whole),
            ("bytes=1 - 2", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1-b", Whole),
            ("bytes=a-1", Whole),
            ("chunks=0-1", Whole),
        ];
        for (range, wanted) in cases {
            assert_eq!(Wanted::parse(range, 100), wanted, "{range}");
        }
        assert_eq!(Wanted::parse("bytes=0-", 0), Unsatisfiable);
        assert_eq!(Wanted::parse("bytes=0-0", 0), Unsatisfiable);
        assert_eq!(Wanted::parse("bytes=-5", 0), Whole);
    }

    /// A server with short bounds, on a layout with one sparse 64 MiB blob.
    struct Running {
        root: tempfile::TempDir,
        address: SocketAddr,
        shutdown: CancellationToken,
        thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    }

    impl Running {
        fn start(bounds: Bounds) -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("blobs/sha256")).unwrap();
            std::fs::write(root.path().join("index.json"), "{}").unwrap();
            File::create(root.path().join("blobs/sha256").join(HEX)).unwrap().set_len(64 << 20).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let shutdown = CancellationToken::new();
            let (path, token) = (root.path().to_owned(), shutdown.clone());
            let thread = std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                    let listener = TcpListener::from_std(listener)?;
                    serve_within(bounds, path, listener, ServeOptions::default(), token).await
                })
            });
            Self { root, address, shutdown, thread: Some(thread) }
        }

        fn ask(&self, request: &str) -> Socket {
            let mut socket = Socket::connect(self.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.write_all(request.as_bytes()).unwrap();
            socket
        }

        fn stop(&mut self) -> Option<io::Result<()>> {
            self.shutdown.cancel();
            self.thread.take().map(|thread| thread.join().unwrap())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.stop();
        }
    }

    fn get_blob() -> String {
        format!("GET /blobs/sha256/{HEX} HTTP/1.1\r\nHost: t\r\n\r\n")
    }

    /// Everything until the server closes, a reset included.
    fn rest(mut socket: Socket) -> Vec<u8> {
        let mut all = Vec::new();
        if let Err(error) = socket.read_to_end(&mut all) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        }
        all
    }

    #[test]
    fn a_client_that_asks_nothing_is_let_go() {
        let running = Running::start(Bounds { header: Duration::from_millis(300), ..Bounds::default() });
        assert!(!rest(running.ask("GET /index.json HT")).starts_with(b"HTTP/1.1 200"));
        // The same between two requests of one connection.
        let idle = rest(running.ask("GET /index.json HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert!(idle.ends_with(b"\r\n\r\n{}"), "{}", String::from_utf8_lossy(&idle));
    }

    #[test]
    fn a_client_that_takes_nothing_is_let_go() {
        let running = Running::start(Bounds { stalled_write: Duration::from_millis(300), ..Bounds::default() });
        let socket = running.ask(&get_blob());
        std::thread::sleep(Duration::from_secs(1));
        assert!(rest(socket).len() < 64 << 20);
    }

    #[test]
    fn a_slow_client_is_not() {
        let running = Running::start(Bounds { stalled_write: Duration::from_secs(1), ..Bounds::default() });
        let mut socket = running.ask(&get_blob());
        let (mut got, mut piece) = (0, vec![0; 4 << 20]);
        while got < 64 << 20 {
            std::thread::sleep(Duration::from_millis(100));
            let n = socket.read(&mut piece).unwrap();
            assert_ne!(n, 0, "closed after {got} bytes");
            got += n;
        }
    }

    #[test]
    fn connections_beyond_the_limit_wait() {
        let running = Running::start(Bounds { connections: 1, ..Bounds::default() });
        let first = running.ask("");
        std::thread::sleep(Duration::from_millis(100));
        let mut second = running.ask("GET /index.json HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        second.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(second.read(&mut [0; 1]).is_err());
        drop(first);
        second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(rest(second).starts_with(b"HTTP/1.1 200 "));
    }

    #[test]
    fn one_host_header() {
        let running = Running::start(Bounds::default());
        for hosts in ["", "Host: a\r\nHost: b\r\n"] {
            let request = format!("GET /index.json HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            assert!(rest(running.ask(&request)).starts_with(b"HTTP/1.1 400 "));
        }
        assert!(rest(running.ask("GET /index.json HTTP/1.0\r\n\r\n")).starts_with(b"HTTP/1.0 200 "));
    }

    #[test]
    fn a_file_cut_short_cuts_the_connection() {
        let running = Running::start(Bounds::default());
        let mut socket = running.ask(&get_blob());
        socket.read_exact(&mut [0; 1]).unwrap();
        let blob = running.root.path().join("blobs/sha256").join(HEX);
        File::options().write(true).open(blob).unwrap().set_len(1 << 20).unwrap();
        assert!(rest(socket).len() < 64 << 20);
    }

    #[test]
    fn shutdown_waits_for_a_request_but_not_for_ever() {
        // One that finishes…
        let mut running = Running::start(Bounds::default());
        let mut socket = running.ask(&get_blob());
        socket.read_exact(&mut [0; 1]).unwrap();
        running.shutdown.cancel();
        std::thread::sleep(Duration::from_millis(300));
        assert!(Socket::connect(running.address).is_err(), "still accepting");
        assert!(rest(socket).len() > 64 << 20);
        running.stop().unwrap().unwrap();

        // … and one that does not.
        let mut running = Running::start(Bounds { drain: Duration::from_millis(300), ..Bounds::default() });
        let mut socket = running.ask(&get_blob());
        socket.read_exact(&mut [0; 1]).unwrap();
        let begin = std::time::Instant::now();
        running.stop().unwrap().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(300));
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(rest(socket).len() < 64 << 20);
    }

    #[test]
    fn a_pipe_in_a_blobs_place_is_not_waited_for() {
        let running = Running::start(Bounds::default());
        let blob = running.root.path().join("blobs/sha256").join(HEX);
        std::fs::remove_file(&blob).unwrap();
        nix::unistd::mkfifo(&blob, Mode::S_IRUSR).unwrap();
        let request = format!("GET /blobs/sha256/{HEX} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert!(rest(running.ask(&request)).starts_with(b"HTTP/1.1 404 "));
    }

    #[test]
    fn the_root_must_be_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            serve(file.path().to_owned(), listener, ServeOptions::default(), CancellationToken::new()).await
        });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
