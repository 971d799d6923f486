//! One request to the server and its answer, bounded in size and time. The token is read for each, and stands in nothing that is said.

use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use nix::fcntl::OFlag;
use rustls::RootCertStore;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::trouble::Trouble;
use crate::config;
use crate::dial::{AGENT, Server, Undialled, authorities, trusting};
use crate::error::{Context, Error, Result};
use crate::identity::bounded;
use crate::text::printable;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Largest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// What is shown of a refusal, in characters.
const MAX_SAID: usize = 300;

/// The server, and how it is asked.
pub(super) struct Http {
    /// As it is shown.
    pub(super) address: String,
    /// As it is named to itself.
    host: String,
    server: Server,
    token_file: PathBuf,
    namespace: Option<String>,
    limit: Duration,
}

/// What was answered, wiped when it goes.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// What refusals look like.
#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Http {
    /// As it is configured.
    ///
    /// # Errors
    /// The address is none, or there are no certificates to believe.
    pub(super) fn new(config: &config::Vault) -> Result<Self> {
        let bad = || Error::usage("`keys.vault.address` is no URL");
        let url = Url::parse(&config.address).map_err(|_| bad())?;
        let tls = match url.scheme() {
            "https" => Some(trusting(roots(config.ca.as_deref())?)?.with_no_client_auth()),
            _ => None,
        };
        let port = url.port_or_known_default().ok_or_else(bad)?;
        Ok(Http {
            address: url.as_str().trim_end_matches('/').to_owned(),
            host: format!("{}:{port}", url.host_str().unwrap_or_default()),
            server: Server::at(&url, tls).ok_or_else(bad)?,
            token_file: config.token_file.clone(),
            namespace: config.namespace.clone(),
            limit: Duration::from_secs(config.timeout),
        })
    }

    /// Asks once. What is answered is good, or that there is no such thing (404).
    pub(super) async fn ask(&self, method: Method, path: &str, body: Zeroizing<Vec<u8>>) -> Result<Answer, Trouble> {
        let token = token(&self.token_file)?;
        let request = self.request(method, path, token, body)?;
        let answer = self.within(self.exchange(request)).await??;
        match answer.status {
            200 | 204 | 404 => Ok(answer),
            status => Err(self.refusal(status, &answer.body)),
        }
    }

    /// Waits for something as long as a request may take.
    pub(super) async fn within<T>(&self, asking: impl Future<Output = T>) -> Result<T, Trouble> {
        let late = |_| Trouble::Away(format!("{} has not answered within {} s", self.address, self.limit.as_secs()));
        tokio::time::timeout(self.limit, asking).await.map_err(late)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: HeaderValue,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder().method(method).uri(format!("/v1/{path}"));
        request = request.header(HOST, &self.host).header(USER_AGENT, AGENT);
        request = request.header(HeaderName::from_static("x-vault-token"), token);
        // Without it a proxy that was tricked into asking could not be told from us.
        request = request.header(HeaderName::from_static("x-vault-request"), "true");
        if let Some(namespace) = &self.namespace {
            request = request.header(HeaderName::from_static("x-vault-namespace"), namespace);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        // It is wiped when it was sent.
        let request = request.body(Full::new(Bytes::from_owner(body)));
        request.map_err(|error| Trouble::Wrong(format!("a request cannot be made: {error}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Trouble> {
        let lost = |error: &dyn std::fmt::Display| {
            Trouble::Away(format!("{} has not answered to the end: {error}", self.address))
        };
        let mut connection = self.server.dial().await.map_err(|why| match why {
            Undialled::Unreachable(error) => Trouble::Away(format!("{}: {error}", self.address)),
            Undialled::Distrusted(error) => Trouble::Stranger(format!("{}: {error}", self.address)),
            Undialled::Ended(error) => lost(&error),
        })?;
        let answer = connection.ask(request).await.map_err(|error| lost(&error))?;
        let status = answer.status().as_u16();
        let mut body = Limited::new(answer.into_body(), MAX_ANSWER);
        // It does not move while it grows.
        let mut held = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => held.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Err(error) if error.is::<LengthLimitError>() => {
                    let what = format!("{} has answered with more than {MAX_ANSWER} bytes", self.address);
                    return Err(Trouble::Wrong(what));
                }
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(Answer { status, body: held })
    }

    /// Why it was refused, in the server's own words, which are not the token's.
    fn refusal(&self, status: u16, body: &[u8]) -> Trouble {
        let said = serde_json::from_slice::<Errors>(body).map(|said| said.errors.join("; ")).unwrap_or_default();
        let said: String =
            printable(&said.split_whitespace().collect::<Vec<_>>().join(" ")).chars().take(MAX_SAID).collect();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let what = format!("{} has answered {status}{said}", self.address);
        match status {
            401 | 403 => Trouble::Denied(what),
            // A node that is behind, rate limits, standbys, which refer to the active node where they cannot ask it; sealed is 503.
            307 | 412 | 429 | 472 | 473 | 500.. => Trouble::Away(what),
            300..=399 => Trouble::Wrong(format!("{what}, which refers to another server")),
            _ => Trouble::Wrong(what),
        }
    }
}

/// The authorities in a file, or those that the machine trusts.
fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    if let Some(file) = ca {
        let read = std::fs::read(file).map_err(|error| error.to_string());
        return read.and_then(|pem| authorities(&pem)).map_err(|error| {
            Error::usage(format!("`keys.vault.ca` {}: {error}", file.display()))
                .with_hint("name a file with the certificate of the server's authority (PEM)")
        });
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::usage("this machine trusts no certificates")
            .with_hint("name the server's authority with `keys.vault.ca`"));
    }
    Ok(roots)
}

/// The token as it is at this moment: whoever renews it replaces the file.
fn token(path: &Path) -> Result<HeaderValue, Trouble> {
    let hint = "see that whoever writes and renews it (an agent's sink) runs";
    let missing = |what: String| Trouble::NoToken { what, hint: hint.into() };
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(missing(format!("`keys.vault.token_file` {} is not there", path.display())));
    }
    let text = secret(path).map_err(|error| {
        let hint = error.hint().unwrap_or(hint).to_owned();
        Trouble::Token { what: error.to_string(), hint }
    })?;
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err(missing(format!("`keys.vault.token_file` {} is empty", path.display())));
    }
    let value = HeaderValue::from_bytes(token).ok().filter(|_| token.iter().all(u8::is_ascii_graphic));
    let mut value = value.ok_or_else(|| Trouble::Token {
        what: format!("`keys.vault.token_file` {} holds no token", path.display()),
        hint: "put the token there, alone on its line".into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let name = path.display();
    let reading = || format!("reading `keys.vault.token_file` {name}");
    // A pipe that nobody writes into would be waited for.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).doing(reading)?;
    let facts = file.metadata().doing(reading)?;
    if !facts.is_file() {
        return Err(Error::refused(format!("`keys.vault.token_file` {name} is no file")).with_hint("name a file"));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(Error::refused(format!("`keys.vault.token_file` {name} is a secret that others may read"))
            .with_hint(format!("if nobody has read it, `chmod 600 {name}` (an agent's sink: `mode = 0600`); else revoke the token and give another one")));
    }
    let text = bounded(file, MAX_TOKEN).doing(reading)?;
    text.ok_or_else(|| Error::refused(format!("`keys.vault.token_file` {name} has more than {MAX_TOKEN} bytes")))
}
