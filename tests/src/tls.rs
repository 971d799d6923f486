//! A client that speaks HTTP over TLS as it is told to, whether that is right or not: one request per connection, unless it is kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A client of one service.
#[derive(Debug)]
pub struct Client {
    address: String,
    tls: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
}

/// What was answered.
#[derive(Debug)]
pub struct Said {
    /// The status.
    pub status: u16,
    head: String,
    body: String,
}

impl Client {
    /// Of the service at `https://ADDRESS:PORT`, whose certificate is of this authority.
    ///
    /// # Panics
    /// When that makes no sense.
    pub fn new(url: &str, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
        let (address, roots) = (url.trim_start_matches("https://").to_owned(), Arc::new(roots));
        let tls = Self::builder(&roots).with_no_client_auth();
        Client { address, tls: Arc::new(tls), roots }
    }

    fn builder(roots: &Arc<RootCertStore>) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(Arc::clone(roots))
    }

    /// One that shows this certificate.
    ///
    /// # Panics
    /// When the files hold none.
    #[must_use]
    pub fn showing(self, certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let tls = Self::builder(&self.roots).with_client_auth_cert(chain, key).expect("a pair");
        Client { tls: Arc::new(tls), ..self }
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// There was no answer; TLS says why.
    pub fn get(&self, path: &str) -> Result<Said, String> {
        self.send("GET", path, &[], "")
    }

    /// Posts JSON, with a bearer token.
    ///
    /// # Errors
    /// There was no answer; TLS says why.
    pub fn post(&self, path: &str, token: Option<&str>, headers: &[(&str, &str)], body: &str) -> Result<Said, String> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let bearer = bearer.as_deref().map(|bearer| ("authorization", bearer));
        let headers: Vec<_> = bearer.into_iter().chain(headers.iter().copied()).collect();
        self.send("POST", path, &headers, body)
    }

    /// Sends this request.
    ///
    /// # Errors
    /// There was no answer; TLS says why.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Said, String> {
        let mut answer = String::new();
        self.begin(method, path, headers, body)?.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        Said::new(head, body.to_owned())
    }

    /// Sends this request. What is answered comes when it is read.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let mut stream = self.connect()?;
        let request = self.request(method, path, &[headers, &[("connection", "close")]].concat(), body);
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// Makes a connection that is kept.
    ///
    /// # Errors
    /// There is none; TLS may say why only when something is sent.
    pub fn keep(&self) -> Result<Kept<'_>, String> {
        Ok(Kept { client: self, stream: BufReader::new(self.connect()?) })
    }

    fn connect(&self) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let failed = |error: std::io::Error| error.to_string();
        let tcp = TcpStream::connect(&self.address).map_err(failed)?;
        tcp.set_read_timeout(Some(LIMIT)).map_err(failed)?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host).to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|error| error.to_string())?;
        Ok(StreamOwned::new(tls, tcp))
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        } else if method != "GET" {
            request += "content-length: 0\r\n";
        }
        format!("{request}\r\n{body}")
    }
}

/// A connection on which requests follow each other.
pub struct Kept<'a> {
    client: &'a Client,
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Kept<'_> {
    /// Posts JSON, with a bearer token. The answer must say how long it is.
    ///
    /// # Errors
    /// There was no answer; TLS says why.
    pub fn post(&mut self, path: &str, token: &str, body: &str) -> Result<Said, String> {
        let failed = |error: std::io::Error| error.to_string();
        let bearer = format!("Bearer {token}");
        let request = self.client.request("POST", path, &[("authorization", &bearer)], body);
        self.stream.get_mut().write_all(request.as_bytes()).map_err(failed)?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).map_err(failed)? == 0 {
                return Err("the connection has ended".to_owned());
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).ok_or("no length")?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(failed)?;
        Said::new(&head, String::from_utf8_lossy(&body).into_owned())
    }
}

impl Said {
    fn new(head: &str, body: String) -> Result<Self, String> {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
        Ok(Said { status, head: head.to_owned(), body })
    }

    /// Its body, as it came.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// Its body.
    ///
    /// # Panics
    /// When that is no JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The cookie that it sets, as a browser would send it back.
    ///
    /// # Panics
    /// When it sets none.
    #[track_caller]
    pub fn cookie(&self) -> String {
        let set = self.head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        set.and_then(|set| set.split(';').next()).unwrap_or_else(|| panic!("no cookie: {self:?}")).to_owned()
    }
}
