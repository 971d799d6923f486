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
//!
//! Here: the options, TLS, the listener and its connections, and every bound. Not here: what a request is answered
//! (`answer`), the files below the root (`files`), the clock on a client that takes nothing (`stall`).

#![forbid(unsafe_code)]

mod answer;
mod files;
mod stall;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::answer::respond;
use self::stall::StallBound;

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
