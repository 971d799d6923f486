//! A connection to the service: TCP, TLS that trusts one authority, HTTP/1.1.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::Client;
use crate::error::{Error, Result};

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A connection that can be asked once. It is closed when this is dropped.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service's URL, with a path that ends in `/`.
pub(super) fn base(text: &str) -> Result<Url> {
    let bad = |why: &str| {
        Error::usage(format!("{text:?} is no URL of a service: {why}"))
            .with_hint("give one such as https://z.example.com:7443, with --url or in Z_ORCHESTRATOR_URL")
    };
    let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    match url.scheme() {
        "https" => {}
        "http" => return Err(bad("it speaks TLS only, so it must begin with https://")),
        _ => return Err(bad("it must begin with https://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        // It is not shown: it may hold a password.
        return Err(Error::usage("the URL of the service holds a name or a password")
            .with_hint("take it out; the operator's token is given as a file, with --operator-token"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// A client certificate, those between it and its authority, and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS that believes servers with a certificate of these authorities, and shows one of its own where that is given.
pub(super) fn trusting(ca: &[u8], shown: Option<Shown>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let bad = |error: &dyn std::fmt::Display| Error::usage(format!("the certificates to trust: {error}"));
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() {
        return Err(bad(&"there is none").with_hint("give the service's ca.pem with --ca"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::system(format!("setting TLS up: {error}")))?;
    let builder = builder.with_root_certificates(roots);
    let Some((chain, key)) = shown else { return Ok(builder.with_no_client_auth()) };
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        Error::usage(format!("the client certificate and its key: {error}"))
            .with_hint("--certificate and --certificate-key must belong together")
    })
}

impl Client {
    pub(super) async fn connect(&self) -> Result<Connection> {
        let within = self.times.connect;
        let connected = tokio::time::timeout(within, self.dial()).await;
        connected.unwrap_or_else(|_| {
            Err(self.unreachable(&format!("no connection in {} s", within.as_secs())).with_retry(None))
        })
    }

    async fn dial(&self) -> Result<Connection> {
        let port = self.base.port_or_known_default().unwrap_or(443);
        let (host, name) = match self.base.host() {
            Some(Host::Ipv4(address)) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
            Some(Host::Ipv6(address)) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
            Some(Host::Domain(domain)) => {
                let name = ServerName::try_from(domain.to_owned());
                (domain.to_owned(), name.map_err(|error| self.unreachable(&error.to_string()))?)
            }
            None => return Err(self.unreachable("its URL names no host")),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream =
            stream.map_err(|error| self.unreachable(&error.to_string()).with_source(error).with_retry(None))?;
        // Requests are small and answers waited for. Without it they are only slower.
        let _ = stream.set_nodelay(true);
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream = tls.map_err(|error| self.tls_failed(error))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error).with_source(error))?;
        // What goes wrong with the connection is heard where the answer is read.
        Ok(Connection { sender, task: tokio::spawn(async move { drop(connection.await) }) })
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::unavailable(format!("connecting to {}: {why}", self.url()))
            .with_hint("is the service running, and is this where it listens? --url or Z_ORCHESTRATOR_URL says where")
    }

    /// A connection that ended in the middle of something.
    pub(super) fn lost(&self, error: &dyn std::fmt::Display) -> Error {
        Error::unavailable(format!("{} did not answer to the end: {error}", self.url())).with_retry(None)
    }

    fn tls_failed(&self, error: std::io::Error) -> Error {
        let (url, cause) = (self.url(), error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()));
        let hint = match cause {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => "reach the service by a name in its certificate, or add this one to `names` in its configuration",
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::InvalidPurpose
                | CertificateError::Other(_),
            )) => "give the ca.pem of this very service with --ca; where that is right, this is another server",
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => "compare the clocks of this machine and the service's; the service renews its certificate itself",
            Some(rustls::Error::InvalidCertificate(_)) => "see which certificate the service shows",
            Some(rustls::Error::InvalidMessage(_)) => "is it z-orchestrator that listens there? It speaks TLS",
            // The connection was cut, or the other side is not well: it may come back.
            _ => return self.unreachable(&error.to_string()).with_source(error).with_retry(None),
        };
        Error::unavailable(format!("{url} is not believed: {error}")).with_hint(hint).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_a_service_are_taken() {
        assert_eq!(base("https://z.example:7443").unwrap().as_str(), "https://z.example:7443/");
        assert_eq!(base("https://[::1]/z//").unwrap().as_str(), "https://[::1]/z/");
        for text in ["", "z.example:7443", "http://z.example", "ftp://a", "https://a/?b", "https://a/#b", "https://"] {
            assert!(base(text).unwrap_err().hint().is_some(), "{text}");
        }
        let error = base("https://z:secret@example.com").unwrap_err();
        assert!(!error.lines().contains("secret"));
    }

    #[test]
    fn without_a_certificate_nobody_is_trusted() {
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            trusting(text.as_bytes(), None).unwrap_err();
        }
    }
}
