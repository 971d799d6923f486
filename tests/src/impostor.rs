//! Somebody in the place of the orchestrating service: agents ask him over TLS, and he answers what he likes.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::hostile::wire::server_config;

/// No connection is silent for longer.
const LIMIT: Duration = Duration::from_secs(60);

/// What he answers to a path and what is said there.
type Script = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// He, as long as this value lives.
pub struct Impostor {
    port: u16,
    state: Arc<State>,
}

struct State {
    tls: Arc<ServerConfig>,
    answer: Box<Script>,
    asked: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Impostor {
    /// With this certificate (PEM), and what he answers to a path and what is said there. The status is always 200.
    ///
    /// # Panics
    /// When he cannot listen.
    pub fn start(
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listening");
        let port = listener.local_addr().expect("an address").port();
        let (tls, answer) = (server_config(certificate, key), Box::new(answer));
        let state = Arc::new(State { tls, answer, asked: Mutex::default(), over: AtomicBool::new(false) });
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for stream in listener.incoming().flatten() {
                    if state.over.load(SeqCst) {
                        return;
                    }
                    let state = Arc::clone(&state);
                    // An agent that goes away ends its connection's thread, and no more.
                    std::thread::spawn(move || serve(&state, stream));
                }
            }
        });
        Impostor { port, state }
    }

    /// Where he is.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The paths that he was asked for, in that order.
    ///
    /// # Panics
    /// When a thread of his has panicked.
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.state.over.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(state: &State, tcp: TcpStream) -> Result<()> {
    tcp.set_read_timeout(Some(LIMIT))?;
    tcp.set_nodelay(true)?;
    let tls = ServerConnection::new(Arc::clone(&state.tls)).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, tcp));
    while let Some((path, said)) = read(&mut stream)? {
        state.asked.lock().unwrap().push(path.clone());
        let body = (state.answer)(&path, &said).to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.get_mut().write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// The path of a request, and what is said there; nothing when nobody asks any more.
fn read(stream: &mut impl BufRead) -> Result<Option<(String, Value)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Some((path, serde_json::from_slice(&body).unwrap_or_default())))
}
