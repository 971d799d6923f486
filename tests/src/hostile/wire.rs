//! The connection of a hostile server: requests in, steps out, plain or with TLS, and over when the server is.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::answer::{Act, Step};

/// Between two looks whether the test is over.
const LOOK: Duration = Duration::from_millis(20);
/// No connection outlives this, whatever a test forgets.
const LIMIT: Duration = Duration::from_secs(120);

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

pub(super) struct Wire<'a> {
    stream: Box<dyn Stream>,
    tcp: TcpStream,
    over: &'a AtomicBool,
    since: Instant,
}

impl<'a> Wire<'a> {
    pub(super) fn new(tcp: TcpStream, tls: Option<Arc<ServerConfig>>, over: &'a AtomicBool) -> Result<Self> {
        tcp.set_read_timeout(Some(LOOK))?;
        tcp.set_write_timeout(Some(LOOK))?;
        tcp.set_nodelay(true)?;
        let own = tcp.try_clone()?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(own),
            Some(config) => {
                let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
                Box::new(StreamOwned::new(connection, own))
            }
        };
        Ok(Wire { stream, tcp, over, since: Instant::now() })
    }

    /// The head of the next request; `None` when the client has gone or the test is over.
    pub(super) fn read_head(&mut self) -> Result<Option<String>> {
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => head.push(byte[0]),
                Err(error) if is_pause(&error) && self.goes_on() => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(String::from_utf8_lossy(&head).into_owned()))
    }

    /// Takes the steps; whether the connection may be used again.
    pub(super) fn perform(&mut self, act: Act) -> Result<bool> {
        for step in act {
            match step {
                Step::Send(bytes) => self.send(&bytes)?,
                Step::Drip(bytes, pause) => {
                    for byte in bytes {
                        self.send(&[byte])?;
                        self.sleep(pause);
                    }
                }
                Step::ForEver(bytes) => loop {
                    self.send(&bytes)?;
                },
                Step::Pause(pause) => self.sleep(pause),
                Step::Silence => {
                    while self.read_head()?.is_some() {}
                    return Ok(false);
                }
                Step::Close => return Ok(false),
                Step::Reset => {
                    // What was sent shall arrive first.
                    self.sleep(LOOK);
                    socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO))?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_pause(&error) && self.goes_on() => {}
                Err(error) => return Err(error),
            }
            if !self.goes_on() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        loop {
            match self.stream.flush() {
                Err(error) if is_pause(&error) && self.goes_on() => {}
                other => return other,
            }
        }
    }

    fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn goes_on(&self) -> bool {
        !self.over.load(SeqCst) && self.since.elapsed() < LIMIT
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

pub(crate) fn server_config(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain =
        CertificateDer::pem_file_iter(certificate).expect("a certificate").map(|der| der.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_file(key).expect("a private key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key);
    Arc::new(config.expect("a certificate and its key"))
}
