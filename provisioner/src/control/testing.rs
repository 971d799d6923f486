//! A service for tests, that answers what it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgstream::source::{Dial, SourceOptions};
use protocol::control::{Code, Problem};
use protocol::{RunId, Token};
use serde_json::Value;

use super::address::Address;
use super::client::Client;

/// What one request was.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) body: Value,
}

/// What is done with one request.
pub(super) enum Reply {
    /// These bytes, and the connection is kept.
    Bytes(Vec<u8>),
    /// These bytes, slowly: one each 100 ms.
    Slowly(Vec<u8>),
    /// The connection is closed without an answer.
    Closed,
    /// Nothing, for this long; then it is closed.
    Silence(Duration),
}

/// An answer with a status line, a type and a body.
pub(super) fn answer(status: &str, media_type: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n");
    Reply::Bytes((head + body).into_bytes())
}

/// 200 with JSON.
pub(super) fn good(body: &impl serde::Serialize) -> Reply {
    answer("200 OK", "application/json", &serde_json::to_string(body).unwrap())
}

/// A problem.
pub(super) fn problem(code: Code) -> Reply {
    told(&Problem::new(code, "for a test"))
}

/// This problem.
pub(super) fn told(problem: &Problem) -> Reply {
    let status = format!("{} Problem", problem.status);
    answer(&status, "application/problem+json; charset=utf-8", &serde_json::to_string(problem).unwrap())
}

/// A service that runs as long as the test does.
pub(super) struct Service {
    pub(super) url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<Mutex<usize>>,
}

impl Service {
    /// Asks `reply` what to do with request number so and so.
    pub(super) fn start(reply: impl FnMut(usize, &Heard) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard, connections) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::<Mutex<usize>>::default());
        let (noted, counted, reply) = (Arc::clone(&heard), Arc::clone(&connections), Arc::new(Mutex::new(reply)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, reply) = (Arc::clone(&noted), Arc::clone(&reply));
                *counted.lock().unwrap() += 1;
                std::thread::spawn(move || {
                    serve(&stream.unwrap(), |request| {
                        let number = {
                            let mut noted = noted.lock().unwrap();
                            noted.push(request.clone());
                            noted.len() - 1
                        };
                        (reply.lock().unwrap())(number, request)
                    });
                });
            }
        });
        Service { url, heard, connections }
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub(super) fn client(&self) -> Client {
        Client::new(Address::of_service(&self.url).unwrap(), None, dial()).unwrap()
    }
}

fn serve(stream: &TcpStream, mut reply: impl FnMut(&Heard) -> Reply) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let mut stream = stream;
        let written = match reply(&request) {
            Reply::Bytes(bytes) => stream.write_all(&bytes),
            Reply::Slowly(bytes) => bytes.iter().try_for_each(|byte| {
                std::thread::sleep(Duration::from_millis(100));
                stream.write_all(&[*byte])
            }),
            Reply::Closed => return,
            Reply::Silence(time) => return std::thread::sleep(time),
        };
        if written.is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Heard> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { path, authorization, body: serde_json::from_slice(&body).unwrap() })
}

pub(super) fn dial() -> Dial {
    Dial::new(&SourceOptions::default())
}

/// A certificate over a client key, by nobody in particular.
pub(super) fn certificate_over(client_key: &str) -> String {
    use base64::Engine;
    use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};

    struct Point(Vec<u8>);

    impl PublicKeyData for Point {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_ECDSA_P256_SHA256
        }
    }

    let mut der = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(client_key).unwrap();
    let point = Point(der.split_off(26));
    let issuer = Issuer::new(CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
    CertificateParams::new(Vec::new()).unwrap().signed_by(&point, &issuer).unwrap().pem()
}

/// A token of this letter alone.
pub(super) fn token(letter: &str) -> Token {
    Token::try_from(letter.repeat(Token::LEN)).unwrap()
}

pub(super) fn run_id(name: &str) -> RunId {
    RunId::try_from(name.to_owned()).unwrap()
}
