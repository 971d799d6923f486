//! The way to the service: its URL, whom to believe there, and what it means when there is no connection.

use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::Client;
use crate::dial::{Connection, Undialled, authorities, trusting};
use crate::error::{Error, Result};

/// The service's URL, with a path that ends in `/`.
pub(super) fn base(text: &str) -> Result<Url> {
    let bad = |why: &str| no_url(text, why);
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

pub(super) fn no_url(text: &str, why: &str) -> Error {
    Error::usage(format!("{text:?} is no URL of a service: {why}"))
        .with_hint("give one such as https://z.example.com:7443, with --url or in Z_ORCHESTRATOR_URL")
}

/// A client certificate, those between it and its authority, and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS that believes servers with a certificate of these authorities, and shows one of its own where that is given.
pub(super) fn tls(ca: &[u8], shown: Option<Shown>) -> Result<ClientConfig> {
    let roots = authorities(ca).map_err(|error| {
        Error::usage(format!("the certificates to trust: {error}")).with_hint("give the service's ca.pem with --ca")
    })?;
    let builder = trusting(roots)?;
    let Some((chain, key)) = shown else { return Ok(builder.with_no_client_auth()) };
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        Error::usage(format!("the client certificate and its key: {error}"))
            .with_hint("--certificate and --certificate-key must belong together")
    })
}

impl Client {
    pub(super) async fn connect(&self) -> Result<Connection> {
        let within = self.times.connect;
        let Ok(dialled) = tokio::time::timeout(within, self.server.dial()).await else {
            return Err(self.unreachable(&format!("no connection in {} s", within.as_secs())).with_retry(None));
        };
        dialled.map_err(|why| match why {
            Undialled::Unreachable(error) => self.unreachable(&error.to_string()).with_source(error).with_retry(None),
            Undialled::Distrusted(error) => self.distrusted(error),
            Undialled::Ended(error) => self.lost(&error).with_source(error),
        })
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::unavailable(format!("connecting to {}: {why}", self.url()))
            .with_hint("is the service running, and is this where it listens? --url or Z_ORCHESTRATOR_URL says where")
    }

    /// A connection that ended in the middle of something.
    pub(super) fn lost(&self, error: &dyn std::fmt::Display) -> Error {
        Error::unavailable(format!("{} did not answer to the end: {error}", self.url())).with_retry(None)
    }

    fn distrusted(&self, error: rustls::Error) -> Error {
        let hint = match &error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "reach the service by a name in its certificate, or add this one to `names` in its configuration",
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::InvalidPurpose
                | CertificateError::Other(_),
            ) => "give the ca.pem of this very service with --ca; where that is right, this is another server",
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => "compare the clocks of this machine and the service's; the service renews its certificate itself",
            rustls::Error::InvalidCertificate(_) => "see which certificate the service shows",
            _ => "is it z-orchestrator that listens there? It speaks TLS",
        };
        Error::unavailable(format!("{} is not believed: {error}", self.url())).with_hint(hint).with_source(error)
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
}
