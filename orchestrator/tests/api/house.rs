//! A server on a real socket, and clients for it. Every answer is compared with what the OpenAPI document says.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::middleware::{Next, from_fn};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use orchestrator::api::{Limits, Settings, Tls, document, router, serve};
use orchestrator::identity::{Authority, Certificates, Clients, Folder, People, SessionKey, Shown, Source, tokens};
use orchestrator::model::Moment;
use protocol::ClientKey;
use rcgen::PublicKeyData;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, OPERATOR, VIEWER, client_key, id};

/// How long anything may take that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// What the document says.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(document()).unwrap());

/// What its service makes tokens with.
pub static TOKENS: LazyLock<SessionKey> = LazyLock::new(|| SessionKey::new(&[7; 32]));

pub struct House {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub drain: CancellationToken,
    /// As [`House::drain`], for those alone who say that the service is about to end: connections go on.
    pub about_to_end: CancellationToken,
    pub serving: JoinHandle<()>,
    /// Where it speaks TLS, and whom a client must trust for that.
    pub certificate: Option<CertificateDer<'static>>,
    /// Where it looks at certificates, what the agent of attempt 1 of run `r-1` shows.
    agent: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl House {
    pub async fn plain(limits: Limits) -> Self {
        Self::open(limits, None, None).await
    }

    pub async fn tls(limits: Limits) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.clone()], private).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data = Folder::open(&folder.path().join("data")).unwrap();
        let clients = Clients::open(&Authority::open(&data, Moment::of_wall_clock()).unwrap(), None).unwrap();
        let tls = Tls { config: Arc::new(config), clients: Arc::new(clients) };
        Self::open(limits, Some((tls, certificate)), None).await
    }

    /// One that knows its agent by the certificate that it shows in TLS, and those who show none by that.
    pub async fn known(limits: Limits) -> Self {
        let (temporary, now) = (tempfile::tempdir().unwrap(), Moment::of_wall_clock());
        let folder = Arc::new(Folder::open(&temporary.path().join("data")).unwrap());
        let authority = Authority::open(&folder, now).unwrap();
        let clients = Clients::open(&authority, None).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let public = ClientKey::try_from(URL_SAFE_NO_PAD.encode(key.subject_public_key_info())).unwrap();
        let pem = authority.issue_attempt(&id("r-1"), 1, &public, Duration::from_secs(3600), now).unwrap();
        let agent = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let source = Source::Own { folder, names: vec![ServerName::try_from("localhost").unwrap()] };
        let certificates = Arc::new(Certificates::open(source, now).unwrap());
        let tls = Tls { config: Arc::new(certificates.server_config(&clients).unwrap()), clients: Arc::new(clients) };
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let digest = tokens::sha256(&key.subject_public_key_info());
        let house = Self::open(limits, Some((tls, authority.certificate().clone())), Some((agent, private))).await;
        house.fake.key.set(digest).unwrap();
        house
    }

    async fn open(
        limits: Limits,
        tls: Option<(Tls, CertificateDer<'static>)>,
        agent: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let fake = Arc::new(Fake::default());
        let drain = CancellationToken::new();
        let about_to_end = drain.child_token();
        let digest = |token: &str| tokens::digest(&token.to_owned().try_into().unwrap());
        let people = People::new(digest(OPERATOR), digest(VIEWER), TOKENS.clone());
        let settings = Settings {
            people: people.into(),
            tokens: TOKENS.clone(),
            limits: limits.clone(),
            drain: about_to_end.clone(),
            metrics: Default::default(),
        };
        let app = router(fake.clone(), settings);
        let app = if agent.is_some() { app } else { app.layer(from_fn(shows)) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, certificate) = tls.unzip();
        let serving = tokio::spawn(serve(vec![listener], config, app, limits, drain.clone(), Default::default()));
        House { address, fake, drain, about_to_end, serving, certificate, agent }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A TLS connection on which this protocol is wanted.
    pub async fn connect_tls(&self, protocol: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.shake(self.connect().await, protocol, false).await.unwrap()
    }

    /// The same on this connection, where the agent may show who it is; fails where it is not let in.
    pub async fn shake(
        &self,
        stream: TcpStream,
        protocol: &[u8],
        is_agent: bool,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone().unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match self.agent.as_ref().filter(|_| is_agent) {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Asks on a connection of its own.
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let asked = (request.method().clone(), request.uri().path().to_owned());
        let response = send1(self.connect().await, request).await;
        let answer = Answer::whole(response).await;
        answer.must_be_documented(&asked.0, &asked.1);
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(request(Method::GET, path, Some(OPERATOR), None)).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(request(Method::POST, path, Some(OPERATOR), Some(body.into()))).await
    }

    pub async fn post_as(&self, token: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(request(Method::POST, path, Some(token), Some(body.into()))).await
    }

    /// Writes this text on a connection and reads until it ends. What it says is all that came.
    pub async fn raw(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }
}

/// Whose key a request comes with, as TLS would say; the right one's where nothing is said.
pub const SHOWN: &str = "x-shown";

async fn shows(mut request: axum::extract::Request, next: Next) -> axum::response::Response {
    let said = request.headers().get(SHOWN).map(|value| value.as_bytes());
    let key = match said {
        None | Some(b"expired" | b"given") => Some(client_key()),
        Some(b"another") => Some(tokens::sha256(b"another")),
        Some(_) => None,
    };
    if let Some(key) = key {
        let now = Moment::of_wall_clock();
        // One that the connection has outlived, and one of an authority that is not the service's own.
        let left = if said == Some(b"expired") { Duration::ZERO } else { SOON };
        let (until, ends) = (now.after(left), Instant::now() + left);
        let (fingerprint, is_ours) = (tokens::sha256(b"certificate"), said != Some(b"given"));
        let (uris, names) = (Vec::new(), Vec::new());
        let shown = Shown { fingerprint, key, client_key: None, is_ours, until, ends, uris, names };
        orchestrator::api::show(&mut request, shown);
    }
    next.run(request).await
}

/// What comes until the connection ends, however it ends.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(SOON, read).await.expect("the connection must end");
    String::from_utf8_lossy(&all).into_owned()
}

/// A request with JSON.
pub fn request(method: Method, path: &str, token: Option<&str>, body: Option<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    request.body(Full::new(body.unwrap_or_default())).unwrap()
}

/// Sends by HTTP/1.1.
pub async fn send1<S>(stream: S, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    timeout(SOON, sender.send_request(request)).await.expect("an answer").unwrap()
}

/// A connection of HTTP/2.
pub async fn connect2<S>(stream: S) -> http2::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connect2_taking(stream, 1 << 20).await.0
}

/// A connection of HTTP/2 that takes no more than so much of an answer before what there is of it was read; and its end.
pub async fn connect2_taking<S, B>(stream: S, window: u32) -> (http2::SendRequest<B>, JoinHandle<hyper::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn whole(response: Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = timeout(SOON, body.collect()).await.expect("the answer's end").unwrap().to_bytes();
        Answer { status: parts.status, version: parts.version, headers: parts.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// That it is a problem of this kind that says this; all that a problem must have is looked at as well.
    pub fn must_be_problem(&self, code: &str, says: &str) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{:?}", self.body);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert_eq!(problem["type"], format!("urn:z-provisioner:problem:{code}"), "{problem}");
        let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap_or_default());
        assert!(text.contains(says), "{problem} does not say {says:?}");
        assert_eq!(self.header("cache-control"), "no-store");
        match &problem["retry_after"] {
            Value::Null => assert_eq!(self.header("retry-after"), ""),
            seconds => assert_eq!(self.header("retry-after"), seconds.to_string()),
        }
        problem
    }

    /// That the document knows of this status for what was asked.
    fn must_be_documented(&self, method: &Method, path: &str) {
        let paths = DOCUMENT["paths"].as_object().unwrap();
        let fits = |template: &str| {
            let (known, asked): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            known.len() == asked.len()
                && known.iter().zip(&asked).all(|(known, asked)| known.starts_with('{') || known == asked)
        };
        let Some(operations) = paths.iter().find(|(template, _)| fits(template)).map(|(_, operations)| operations)
        else {
            return assert_eq!(self.status, StatusCode::NOT_FOUND, "{path}");
        };
        let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
        let Some(operation) = operations.get(&method) else {
            return assert_eq!(self.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        };
        let documented = &operation["responses"][self.status.as_str()];
        assert!(
            documented.is_object(),
            "{method} {path} was answered with {}, which the document does not say",
            self.status
        );
        if let Some(contents) = documented["content"].as_object() {
            let kind = self.header("content-type");
            assert!(contents.contains_key(kind), "{method} {path} was answered with {kind}");
        }
    }
}
