//! What one caller may cost, each limit really reached.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{pending, unfold};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, StatusCode};
use orchestrator::api::{Limits, Rate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{OPERATOR, SESSION, order};
use crate::house::{Answer, House, SHOWN, SOON, connect2, connect2_taking, read_to_end, request, send1};

const BRIEF: Duration = Duration::from_millis(300);

/// Sends the text byte by byte until the other end has had enough; how long that took.
async fn drip(mut stream: TcpStream, text: &str) -> (Duration, String) {
    let began = Instant::now();
    let (mut from, mut to) = stream.split();
    let send = async {
        for byte in text.as_bytes().iter().cycle() {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::select! {
        said = read_to_end(&mut from) => said,
        () = send => String::new(),
    };
    (began.elapsed(), said)
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let house = House::plain(Limits { head: BRIEF, ..Limits::default() }).await;
    for start in ["", "GET /healthz HTTP/1.1\r\nx: y", "PRI * HTTP/2.0\r\n\r\nSM\r"] {
        let began = Instant::now();
        assert_eq!(house.raw(start).await, "", "{start:?}");
        assert!(began.elapsed() >= BRIEF, "{start:?} ended after {:?}", began.elapsed());
    }
    let (time, said) =
        drip(house.connect().await, "GET /healthz HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy").await;
    assert_eq!(said, "");
    assert!(time < SOON);
    // HTTP/2 that is begun and then says nothing.
    let mut stream = house.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    read_to_end(&mut stream).await;
}

#[tokio::test]
async fn a_connection_may_be_idle_only_for_so_long() {
    let house = House::plain(Limits { head: BRIEF, idle: 2 * BRIEF, ..Limits::default() }).await;
    let began = Instant::now();
    let said = house.raw("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 204"), "{said}");
    assert!(began.elapsed() >= 2 * BRIEF);
    let mut sender = connect2(house.connect().await).await;
    for pause in [Duration::ZERO, BRIEF, BRIEF] {
        sleep(pause).await;
        let answer = sender.send_request(request(Method::GET, "http://localhost/healthz", None, None)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    timeout(SOON, async {
        while sender.ready().await.is_ok() {
            sleep(BRIEF).await
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let house = House::plain(Limits { body: BRIEF, ..Limits::default() }).await;
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OPERATOR}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    let mut stream = house.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (time, said) = drip(stream, "{").await;
    assert!(said.starts_with("HTTP/1.1 408") && said.contains(r#""code":"timeout""#), "{said}");
    assert!(time >= BRIEF && time < SOON, "{time:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_over_http2_is_not_waited_for_either() {
    let house = House::plain(Limits { body: BRIEF, ..Limits::default() }).await;
    let (mut sender, _) = connect2_taking(house.connect().await, 1 << 20).await;
    let ask = |body| {
        let ask = Request::post("http://localhost/v1/runs").header("authorization", format!("Bearer {OPERATOR}"));
        ask.header("content-type", "application/json").body(body).unwrap()
    };
    let drips = unfold((), |()| async {
        sleep(Duration::from_millis(20)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"{"))), ()))
    });
    // One that drips, and one of which nothing ever comes.
    for body in [drips.boxed(), pending().boxed()] {
        let began = Instant::now();
        let answer = timeout(SOON, sender.send_request(ask(StreamBody::new(body)))).await.unwrap().unwrap();
        let answer = Answer::whole(answer).await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
        answer.must_be_problem("timeout", "not complete");
        assert!(began.elapsed() >= BRIEF, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let house = House::plain(Limits::default()).await;
    // It says so itself.
    let giant = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OPERATOR}\r\ncontent-type: application/json\r\ncontent-length: 1099511627776\r\n"
    );
    for (expect, says) in [("\r\n", "HTTP/1.1 413"), ("expect: 100-continue\r\n\r\n", "HTTP/1.1 413")] {
        let began = Instant::now();
        let said = house.raw(&format!("{giant}{expect}")).await;
        assert!(said.starts_with(says) && said.contains("too-large"), "{said}");
        assert!(began.elapsed() < SOON);
    }
    // It does not, and goes on and on.
    let chunked = giant.replace("content-length: 1099511627776", "transfer-encoding: chunked");
    let mut stream = house.connect().await;
    stream.write_all(format!("{chunked}\r\n").as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let send = async {
        let mut sent = 0_usize;
        while to.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        sent
    };
    let (said, sent) = timeout(SOON, async { tokio::join!(read_to_end(&mut from), send) }).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    // One that fits in a moment more is answered to a client that sends all before it listens.
    let answer = house.post("/v1/runs", vec![b' '; 2 << 20]).await;
    answer.must_be_problem("too-large", "262144 bytes");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let house = House::plain(Limits::default()).await;
    let fields = |count: usize, value: &str| format!("x: {value}\r\n").repeat(count);
    for fields in [fields(1, &"y".repeat(100 << 10)), fields(100, "y"), fields(40, &"y".repeat(1000))] {
        let said = house.raw(&format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
    let mut sender = connect2(house.connect().await).await;
    let mut large = request(Method::GET, "http://localhost/healthz", None, None);
    large.headers_mut().insert("x", "y".repeat(20 << 10).parse().unwrap());
    let answer = timeout(SOON, sender.send_request(large)).await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
}

#[tokio::test]
async fn a_peer_has_only_so_many_connections_and_all_have() {
    let limits = Limits { connections: 4, connections_per_peer: 3, ..Limits::default() };
    let house = House::plain(limits).await;
    let from = |host: u8| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        socket.connect(house.address).await.unwrap()
    };
    let works = |mut stream: TcpStream| async {
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 12];
        let read = timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer, or an end");
        (asked.is_ok() && read.is_ok_and(|_| &answer == b"HTTP/1.1 204")).then_some(stream)
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(works(from(1).await).await.expect("up to three"));
    }
    assert!(works(from(1).await).await.is_none(), "a fourth of one peer");
    held.push(works(from(2).await).await.expect("one of another"));
    assert!(works(from(3).await).await.is_none(), "a fifth in all");
    held.clear();
    let again = async {
        while works(from(1).await).await.is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, again).await.expect("places are given back");
}

#[tokio::test]
async fn a_caller_that_asks_too_often_waits_and_others_do_not() {
    let slow = Rate { per_second: 1, burst: 5 };
    let house = House::plain(Limits { per_caller: slow, per_person: slow, ..Limits::default() }).await;
    for _ in 0..5 {
        assert_eq!(house.get("/v1/runs").await.status, StatusCode::OK);
    }
    let refused = house.get("/v1/runs").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.must_be_problem("too-many", "retry_after")["retry_after"], 1);
    // A wrong token is not the operator's, and an agent is somebody else.
    let wrong = house.ask(request(Method::GET, "/v1/runs", Some("x"), None)).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let renew = || house.post_as(SESSION, "/v1/agent/runs/r-1/attempts/1/lease", "{}");
    for _ in 0..5 {
        assert_eq!(renew().await.status, StatusCode::OK);
    }
    renew().await.must_be_problem("too-many", "retry_after");

    // Strangers of one address are one; who has proven something is not one of them.
    let house = House::plain(Limits { per_peer: slow, ..Limits::default() }).await;
    let stranger = |path| {
        let mut request = request(Method::GET, path, Some("x"), None);
        request.headers_mut().insert(SHOWN, "none".parse().unwrap());
        request
    };
    for _ in 0..5 {
        assert_eq!(house.ask(stranger("/healthz")).await.status, StatusCode::NO_CONTENT);
    }
    for path in ["/healthz", "/v1/runs", "/nowhere"] {
        let request = stranger(path);
        let answer = Answer::whole(send1(house.connect().await, request).await).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        answer.must_be_problem("too-many", "");
        assert_eq!(house.get("/v1/runs").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let house = House::tls(Limits { handshake: BRIEF, ..Limits::default() }).await;
    // Nothing at all; the start of a ClientHello; and no TLS.
    for (start, at_least) in
        [("", BRIEF), ("\x16\x03\x01\x02\0\x01", BRIEF), ("GET / HTTP/1.1\r\n\r\n", Duration::ZERO)]
    {
        let began = Instant::now();
        let said = house.raw(start).await;
        assert!(!said.contains("HTTP"), "{said}");
        assert!(began.elapsed() >= at_least, "{start:?} ended after {:?}", began.elapsed());
    }
    let (time, _) = drip(house.connect().await, "\x16\x03\x01\x40\0\x01\0\x3f\x7f\x03\x03").await;
    assert!(time < SOON);
}

#[tokio::test]
async fn one_connection_has_only_so_many_requests_at_once() {
    let house = House::plain(Limits { streams: 4, ..Limits::default() }).await;
    let mut sender = connect2(house.connect().await).await;
    // The client learns of the limit with the first answer.
    sender.send_request(request(Method::GET, "http://localhost/healthz", None, None)).await.unwrap();
    let ask =
        || request(Method::POST, "http://localhost/v1/runs", Some(OPERATOR), Some(order("naps").to_string().into()));
    let began = Instant::now();
    let asked = (0..12).map(|_| {
        let (mut sender, ask): (_, Request<Full<Bytes>>) = (sender.clone(), ask());
        async move { sender.send_request(ask).await.unwrap().status() }
    });
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|status| *status == StatusCode::CREATED));
    // Each takes half a second: four at once make three rounds.
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_nobody_takes_does_not_hold_a_connection() {
    let limits = Limits { stall: BRIEF, connections: 1, ..Limits::default() };
    let house = House::plain(limits).await;
    house.fake.tell_at_length("r-1", 10_000, 2000);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(house.address).await.unwrap();
    let ask = format!("GET /v1/runs/r-1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OPERATOR}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let free = async {
        loop {
            let mut other = house.connect().await;
            let asked = other.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            if asked.is_ok() && other.read_exact(&mut [0; 12]).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, free).await.expect("the only place is free again");
    assert_eq!(house.fake.watchers(), 0);
    drop(stream);
}
