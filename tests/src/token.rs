//! A token server for docker-registry: gives signed bearer tokens (RFC 7519, RS256 by openssl) to one user.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};

use crate::command::Run;
use crate::lab::{Lab, certificate};

/// Who the tokens are from and for, as registry and token server must agree.
const ISSUER: &str = "e2e-issuer";
const SERVICE: &str = "e2e registry";

/// A running token server.
pub struct TokenServer {
    port: u16,
    certificate: PathBuf,
    over: Arc<AtomicBool>,
    state: Arc<State>,
}

struct State {
    secret: PathBuf,
    chain: String,
    login: String,
    given: AtomicU32,
    scopes: Mutex<Vec<String>>,
}

impl TokenServer {
    /// Starts one that knows one user.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(lab: &Lab, user: &str, password: &str) -> Self {
        let (certificate, secret) = certificate(lab);
        let pem = std::fs::read_to_string(&certificate).expect("reading the certificate");
        let chain = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let state = Arc::new(State { secret, chain, login, given: AtomicU32::new(0), scopes: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listening");
        let port = listener.local_addr().expect("an address").port();
        let over = Arc::<AtomicBool>::default();
        std::thread::spawn({
            let (over, state) = (Arc::clone(&over), Arc::clone(&state));
            move || {
                for stream in listener.incoming().flatten() {
                    if over.load(SeqCst) {
                        return;
                    }
                    let _ = answer(&state, stream);
                }
            }
        });
        TokenServer { port, certificate, over, state }
    }

    /// The `auth:` section of the registry that demands its tokens.
    pub fn registry_config(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {}\n",
            self.port,
            self.certificate.display()
        )
    }

    /// How many tokens it has given.
    pub fn given(&self) -> u32 {
        self.state.given.load(SeqCst)
    }

    /// The scopes it was asked for.
    ///
    /// # Panics
    /// When the server's thread has panicked.
    pub fn scopes(&self) -> Vec<String> {
        self.state.scopes.lock().unwrap().clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut allowed = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        allowed |= name.eq_ignore_ascii_case("authorization") && value.trim() == state.login;
    }
    let (status, body) = if allowed {
        ("200 OK", json!({"token": token(state, &request), "expires_in": 300}))
    } else {
        ("401 Unauthorized", json!({"errors": [{"code": "UNAUTHORIZED"}]}))
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A token for the scope in a request line such as `GET /token?scope=repository%3Ax%3Apull&service=… HTTP/1.1`.
fn token(state: &State, request: &str) -> String {
    let query = request.split_whitespace().nth(1).and_then(|path| path.split_once('?')).unwrap_or_default().1;
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope=")).map(decode_percent);
    let access: Vec<Value> = scopes
        .inspect(|scope| state.scopes.lock().unwrap().push(scope.clone()))
        .filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": "e2e", "jti": "1", "access": access,
        "iat": now, "nbf": now - 60, "exp": now + 300,
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [state.chain]});
    let signed = format!("{}.{}", part(&header), part(&claims));
    state.given.fetch_add(1, SeqCst);
    let signature = sign(&signed, &state.secret);
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn sign(text: &str, secret: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("text"), dir.path().join("signature"));
    std::fs::write(&input, text).expect("writing a token");
    Run::tool("openssl").words("dgst -sha256 -sign").arg(secret).arg("-out").arg(&output).arg(&input).done().ok();
    std::fs::read(output).expect("reading a signature")
}

fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let (byte, next) = match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (byte, &after[2..]),
            None => (if *first == b'+' { b' ' } else { *first }, after),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
