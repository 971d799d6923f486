//! Strangers in masses, who come from where an agent and its operator come from: they keep neither of them out.

use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request, StatusCode};
use orchestrator::api::{Limits, Rate};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::fake::{ENROLMENT, KEY, OPERATOR, SESSION};
use crate::house::{House, SOON, TOKENS, connect2, request};

fn renewal() -> Request<Full<Bytes>> {
    let path = "https://localhost/v1/agent/runs/r-1/attempts/1/lease";
    request(Method::POST, path, Some(SESSION), Some("{}".into()))
}

fn get(path: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    request(Method::GET, &format!("https://localhost{path}"), token, None)
}

async fn status(sender: &mut SendRequest<Full<Bytes>>, ask: Request<Full<Bytes>>) -> StatusCode {
    timeout(SOON, sender.send_request(ask)).await.expect("an answer").unwrap().status()
}

#[tokio::test]
async fn strangers_that_ask_too_often_cost_an_agent_and_people_nothing() {
    let per_peer = Rate { per_second: 1, burst: 30 };
    let house = House::known(Limits { per_peer, ..Limits::default() }).await;
    let mut agent = connect2(house.shake(house.connect().await, b"h2", true).await.unwrap()).await;
    let mut stranger = connect2(house.connect_tls(b"h2").await).await;
    while status(&mut stranger, get("/healthz", None)).await != StatusCode::TOO_MANY_REQUESTS {}
    let mut refused = 0;
    for _ in 0..20 {
        // Also one that says it is somebody.
        for token in [None, Some(SESSION), Some("x")] {
            let status = status(&mut stranger, get("/v1/runs", token)).await;
            refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
        }
        assert_eq!(status(&mut agent, renewal()).await, StatusCode::OK);
        assert_eq!(status(&mut stranger, get("/v1/runs", Some(OPERATOR))).await, StatusCode::OK);
    }
    // But for one each second.
    assert!(refused >= 50, "{refused} of 60 were refused");
    // Nobody may ask as often as they like, also where it costs nothing.
    let often = async { while status(&mut agent, get("/healthz", None)).await != StatusCode::TOO_MANY_REQUESTS {} };
    timeout(SOON, often).await.expect("an agent has a purse too");
}

#[tokio::test]
async fn strangers_that_ask_too_often_keep_no_agent_from_enrolling() {
    let per_peer = Rate { per_second: 1, burst: 30 };
    let house = House::known(Limits { per_peer, ..Limits::default() }).await;
    let enrol = |token: &str| {
        let body = json!({"nonce": "n".repeat(43), "client_key": KEY, "agent": "z"}).to_string();
        request(Method::POST, "https://localhost/v1/agent/enrol", Some(token), Some(body.into()))
    };
    let mut stranger = connect2(house.connect_tls(b"h2").await).await;
    while status(&mut stranger, get("/healthz", None)).await != StatusCode::TOO_MANY_REQUESTS {}
    // One that nobody has made, however often, is a stranger's.
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(status(&mut stranger, enrol(ENROLMENT)).await == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused >= 18, "{refused} of 20 were refused");
    // Which of those that it has made are good the engine says.
    let mut agent = connect2(house.connect_tls(b"h2").await).await;
    let token = TOKENS.enrolment().unwrap();
    for _ in 0..30 {
        assert_eq!(status(&mut agent, enrol(token.reveal())).await, StatusCode::UNAUTHORIZED);
    }
    assert!(house.fake.asked().iter().filter(|asked| *asked == "enrol z").count() >= 30);
    // Nor may one of them be shown as often as somebody likes.
    let often = async { while status(&mut agent, enrol(token.reveal())).await != StatusCode::TOO_MANY_REQUESTS {} };
    timeout(SOON, often).await.expect("a token has a purse too");
}

#[tokio::test]
async fn strangers_that_hold_connections_do_not_keep_an_agent_out() {
    let limits = Limits {
        connections: 128,
        connections_per_peer: 96,
        connections_kept: 32,
        handshake: 2 * SOON,
        head: 2 * SOON,
        ..Limits::default()
    };
    let house = House::known(limits).await;
    let mut first = connect2(house.shake(house.connect().await, b"h2", true).await.unwrap()).await;
    // Some get through, have nothing to say, and stay: as many as may, and those that came first had to go.
    let mut held = Vec::new();
    while held.len() < 96 {
        held.push(house.connect_tls(b"h2").await);
    }
    sleep(Duration::from_millis(1500)).await;
    let mut stay = Vec::new();
    for stream in &mut held {
        stay.push(is_open(stream).await);
    }
    let expected: Vec<bool> = (0..96).map(|number| number >= 48).collect();
    assert_eq!(stay, expected, "of 64 places for those that show nothing a quarter is for handshakes");
    // Others never begin their handshake, stay, and come again when they have to go.
    let address = house.address;
    let flood = tokio::spawn(async move {
        let mut silent: Vec<TcpStream> = Vec::new();
        loop {
            silent.retain(|stream| stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
            silent.extend(TcpStream::connect(address).await);
            sleep(Duration::from_millis(2)).await;
        }
    });
    sleep(Duration::from_millis(100)).await;
    let (mut agents, mut times) = (Vec::new(), 0);
    for _ in 0..8 {
        assert_eq!(status(&mut first, renewal()).await, StatusCode::OK);
        let comes = async {
            loop {
                times += 1;
                if let Ok(stream) = house.shake(house.connect().await, b"h2", true).await {
                    return connect2(stream).await;
                }
            }
        };
        agents.push(timeout(SOON, comes).await.expect("an agent comes through"));
        assert_eq!(status(agents.last_mut().unwrap(), renewal()).await, StatusCode::OK);
    }
    assert!(times < 80, "{times} times eight agents had to come");
    assert!(!flood.is_finished());
    flood.abort();
}

#[tokio::test]
async fn strangers_that_hold_connections_do_not_keep_out_who_has_only_a_token() {
    let limits = Limits { connections: 128, connections_per_peer: 96, connections_kept: 32, ..Limits::default() };
    let house = House::known(limits).await;
    let mut held = Vec::new();
    let mut people = Vec::new();
    for _ in 0..3 {
        for _ in 0..96 {
            held.push(house.connect_tls(b"h2").await);
        }
        people.push(connect2(house.connect_tls(b"h2").await).await);
        for person in &mut people {
            assert_eq!(status(person, get("/v1/runs", Some(OPERATOR))).await, StatusCode::OK);
        }
    }
}

/// Whether the service has not closed it.
async fn is_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    loop {
        match timeout(Duration::from_millis(20), stream.read(&mut [0; 256])).await {
            Ok(Ok(0) | Err(_)) => return false,
            Ok(Ok(_)) => {}
            Err(_) => return true,
        }
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn connections_that_are_refused_are_counted_and_not_each_of_them_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let house = House::plain(Limits { connections: 1, ..Limits::default() }).await;
    let held = house.connect().await;
    for _ in 0..200 {
        let mut refused = house.connect().await;
        assert!(matches!(timeout(SOON, refused.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));
    }
    sleep(Duration::from_millis(1100)).await;
    let _ = house.connect().await.read(&mut [0]).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("connections are refused")).collect();
    assert!((2..=3).contains(&lines.len()), "{text}");
    assert!(lines[0].ends_with("times=1") && lines.last().unwrap().contains("as many as there may be"), "{text}");
    drop(held);
}
