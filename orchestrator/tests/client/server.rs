//! A TLS server that does one scripted thing per connection, and remembers what it was asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::client::{Client, Times};
use orchestrator::identity::{Authority, Certificates, Clients, Folder, Source, tokens};
use orchestrator::model::Moment;
use protocol::Token;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What is done with a connection once its request was read.
pub enum Step {
    /// It is closed in good order after these bytes.
    Say(String),
    /// The connection is cut after these bytes, without TLS's goodbye.
    Cut(String),
    /// Nothing is said.
    Stall,
}

pub struct Server {
    pub url: String,
    pub folder: TempDir,
    pub token: Token,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer.
pub fn answer(status: u16, kind: &str, body: &str) -> Step {
    answer_with(status, &format!("content-type: {kind}\r\n"), body)
}

pub fn answer_with(status: u16, headers: &str, body: &str) -> Step {
    Step::Say(format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

pub fn json(body: &str) -> Step {
    answer(200, "application/json", body)
}

pub fn problem(status: u16, fields: &str) -> Step {
    let body = format!(
        r#"{{"type":"urn:z-provisioner:problem:x","title":"t","status":{status},"code":"x","detail":"said\u001b[2J so"{fields}}}"#
    );
    answer(status, "application/problem+json", &body)
}

/// The head of a stream of events; what follows is written as it is, until the connection ends.
pub fn events(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{text}")
}

pub fn run(name: &str, state: &str, more: &str) -> String {
    format!(
        r#"{{"run":"{name}","state":"{state}","server":"lpar-7","launcher":"process","image":"debian-13","target":"LUN 36005",
        "fabric":"default","priority":0,"created":"2026-01-01T00:00:00Z","max_attempts":3{more}}}"#
    )
}

/// An event of a run's new state.
pub fn state(seq: u32, run: &str, state: &str) -> String {
    format!(
        "event: state\nid: {seq}\ndata: {{\"run\":\"{run}\",\"time\":\"2026-01-01T00:00:00Z\",\n\
         data: \"state\":{{\"state\":\"{state}\",\"attempt\":1,\"reason\":\"because\"}}}}\n\n"
    )
}

impl Server {
    /// Its certificate is for `127.0.0.1`, and not for `localhost`.
    pub async fn new(script: Vec<Step>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let data = Arc::new(Folder::open(&folder.path().join("data")).unwrap());
        let names = vec![ServerName::try_from("127.0.0.1").unwrap()];
        let source = Source::Own { folder: Arc::clone(&data), names };
        let certificates = Arc::new(Certificates::open(source, Moment::of_wall_clock()).unwrap());
        let clients = Clients::open(&Authority::open(&data, Moment::of_wall_clock()).unwrap(), None).unwrap();
        let token = tokens::random().unwrap();
        data.write_secret("operator.token", format!("{}\n", token.reveal()).as_bytes()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let acceptor = TlsAcceptor::from(Arc::new(certificates.server_config(&clients).unwrap()));
        let task = tokio::spawn(serve(listener, acceptor, script, Arc::clone(&requests)));
        Server { url, folder, token, requests, task }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn client(&self) -> Client {
        let ca = std::fs::read(self.data().join("ca.pem")).unwrap();
        Client::new(&self.url, &ca, self.token.clone()).unwrap()
    }

    /// One that loses patience soon.
    pub fn hasty_client(&self) -> Client {
        let soon = Duration::from_millis(300);
        self.client().with_times(Times { connect: Duration::from_secs(5), answer: soon, silence: soon })
    }

    /// What it was asked, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The first line of each request.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, script: Vec<Step>, requests: Arc<Mutex<Vec<String>>>) {
    for step in script {
        let (stream, _) = listener.accept().await.unwrap();
        // Who does not believe the certificate hangs up, and has used its step.
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let Some(request) = read(&mut stream).await else { continue };
        requests.lock().unwrap().push(request);
        match step {
            Step::Say(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            Step::Cut(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.flush().await;
            }
            Step::Stall => {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0]).await;
                });
            }
        }
    }
    // Nobody listens any more.
}

/// A request, as far as `content-length` says.
async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}
