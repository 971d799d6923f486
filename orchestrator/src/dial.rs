//! A connection to a server: TCP, TLS that trusts some authorities and no other, HTTP/1.1. What it means that there is none is for
//! whoever dialled to say.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::error::{Error, Result};

/// Who asks.
pub const AGENT: &str = concat!("z-orchestrator/", env!("CARGO_PKG_VERSION"));

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Where a server is, and whom it must be believed by.
pub struct Server {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, which is closed when this is dropped.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Undialled {
    /// Nobody answered, or it was cut: it may come back.
    Unreachable(io::Error),
    /// What answered is another server, or does not speak TLS.
    Distrusted(rustls::Error),
    /// It ended before it could be asked anything.
    Ended(hyper::Error),
}

/// The authorities of a PEM text.
///
/// # Errors
/// What is wrong with it, or that there is none in it.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(roots)
}

/// TLS that believes servers with a certificate of these authorities; what it shows of its own is yet to be said.
///
/// # Errors
/// TLS cannot be set up at all.
pub fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::system(format!("setting TLS up: {error}")))?;
    Ok(builder.with_root_certificates(roots))
}

impl Server {
    /// The one that a URL names. Without TLS where there is none given. `None` where the URL names none that could be dialled.
    pub fn at(url: &Url, tls: Option<ClientConfig>) -> Option<Self> {
        let (host, name) = match url.host()? {
            Host::Ipv4(address) => (address.to_string(), ServerName::from(IpAddr::from(address))),
            Host::Ipv6(address) => (address.to_string(), ServerName::from(IpAddr::from(address))),
            Host::Domain(name) => (name.to_owned(), ServerName::try_from(name.to_owned()).ok()?),
        };
        let tls = tls.map(|tls| (TlsConnector::from(Arc::new(tls)), name));
        Some(Server { host, port: url.port_or_known_default()?, tls })
    }

    /// Connects, for as long as that takes.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn dial(&self) -> Result<Connection, Undialled> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Undialled::Unreachable)?;
        // Requests are small and answers waited for. Without it they are only slower.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => Connection::over(stream).await,
            Some((tls, name)) => Connection::over(tls.connect(name.clone(), stream).await.map_err(distrusted)?).await,
        }
    }
}

impl Connection {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, Undialled> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Undialled::Ended)?;
        // What goes wrong with the connection is heard where the answer is read.
        Ok(Connection { sender, task: tokio::spawn(async move { drop(connection.await) }) })
    }

    /// Asks once; the body of what is answered has yet to come, for which the connection must be kept.
    ///
    /// # Errors
    /// The connection ended before an answer began.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn distrusted(error: io::Error) -> Undialled {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(cause @ (rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_))) => {
            Undialled::Distrusted(cause.clone())
        }
        // The connection was cut, or the other side is not well.
        _ => Undialled::Unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_certificate_nobody_is_trusted() {
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            authorities(text.as_bytes()).unwrap_err();
        }
    }
}
