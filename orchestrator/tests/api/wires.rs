//! HTTP/1.1 and HTTP/2, with TLS and without, and how all of it ends.

use std::io::Write;
use std::time::Duration;

use hyper::{Method, StatusCode, Version};
use orchestrator::api::Limits;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{OPERATOR, order};
use crate::house::{Answer, House, SOON, connect2, read_to_end, request, send1};

#[tokio::test]
async fn either_protocol_with_tls_and_without() {
    let plain = House::plain(Limits::default()).await;
    let tls = House::tls(Limits::default()).await;
    let ask = || request(Method::GET, "https://localhost/v1/runs/r-1", Some(OPERATOR), None);
    let mut answers = vec![
        (send1(plain.connect().await, ask()).await, Version::HTTP_11),
        (send1(tls.connect_tls(b"http/1.1").await, ask()).await, Version::HTTP_11),
    ];
    for mut sender in [connect2(plain.connect().await).await, connect2(tls.connect_tls(b"h2").await).await] {
        answers.push((sender.send_request(ask()).await.unwrap(), Version::HTTP_2));
    }
    for (answer, version) in answers {
        let answer = Answer::whole(answer).await;
        assert_eq!((answer.status, answer.version), (StatusCode::OK, version));
        assert_eq!(answer.json()["run"], json!("r-1"));
    }
    let stream = tls.connect_tls(b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
}

#[tokio::test]
async fn curl_is_served() {
    let house = House::tls(Limits::default()).await;
    let mut trust = tempfile::NamedTempFile::new().unwrap();
    let pem = pem_of(house.certificate.as_ref().unwrap());
    trust.write_all(pem.as_bytes()).unwrap();
    let base = format!("https://localhost:{}", house.address.port());
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", version, "--cacert"]).arg(trust.path());
        curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", house.address.port())]);
        curl.args(["--write-out", "\n%{http_code} %{http_version} %{header_json}"]);
        curl.args(["--header", &format!("Authorization: Bearer {OPERATOR}")]);
        curl.args(["--json", &order("lpar-1").to_string(), &format!("{base}/v1/runs")]);
        let output = curl.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("\n201 {shown} ")) && said.contains("/v1/runs/r-1"), "{said}");
    }
}

/// PEM of a certificate.
fn pem_of(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[tokio::test]
async fn requests_on_one_connection_follow_each_other() {
    let house = House::plain(Limits::default()).await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let said = house.raw(&format!("{ask}{ask}{last}")).await;
    assert_eq!(said.matches("HTTP/1.1 204").count(), 2, "{said}");
    assert!(said.contains("HTTP/1.1 404") && said.ends_with('}'), "{said}");
    // What is no HTTP, or a request that two servers would read differently, is refused.
    for broken in [
        "\0\0\0\0\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n",
    ] {
        let said = house.raw(broken).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{broken:?}: {said}");
    }
}

#[tokio::test]
async fn what_is_under_way_ends_well_when_the_service_ends() {
    let house = House::tls(Limits::default()).await;
    let ask =
        || request(Method::POST, "https://localhost/v1/runs", Some(OPERATOR), Some(order("naps").to_string().into()));
    let mut sender = connect2(house.connect_tls(b"h2").await).await;
    let first = send1(house.connect_tls(b"http/1.1").await, ask());
    let second = sender.send_request(ask());
    let mut idle = house.connect_tls(b"http/1.1").await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();
    let ends = async {
        sleep(Duration::from_millis(200)).await;
        house.drain.cancel();
        Instant::now()
    };
    let (first, second, began) = tokio::join!(first, second, ends);
    for answer in [first, second.unwrap()] {
        assert_eq!(Answer::whole(answer).await.status, StatusCode::CREATED);
    }
    read_to_end(&mut idle).await;
    timeout(SOON, house.serving).await.expect("the service must end").unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(TcpStream::connect(house.address).await.is_err(), "nobody is let in any more");
}

#[tokio::test]
async fn what_does_not_end_by_itself_is_cut() {
    let house = House::plain(Limits { drain: Duration::from_millis(300), ..Limits::default() }).await;
    let body = order("sleeps").to_string();
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OPERATOR}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stuck = house.connect().await;
    stuck.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut silent = house.connect().await;
    sleep(Duration::from_millis(100)).await;
    house.drain.cancel();
    timeout(SOON, house.serving).await.expect("the service must end").unwrap();
    assert_eq!(read_to_end(&mut stuck).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test]
async fn a_service_that_is_about_to_end_is_not_ready() {
    let house = House::plain(Limits::default()).await;
    let mut sender = connect2(house.connect().await).await;
    let ask = |path: &str| request(Method::GET, &format!("http://localhost{path}"), None, None);
    assert_eq!(sender.send_request(ask("/readyz")).await.unwrap().status(), StatusCode::NO_CONTENT);
    // While it ends, a connection that was asked on may be closed first; this one stays.
    house.about_to_end.cancel();
    let answer = Answer::whole(sender.send_request(ask("/readyz")).await.unwrap()).await;
    answer.must_be_problem("unavailable", "about to end");
    assert_eq!(house.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(sender.send_request(ask("/healthz")).await.unwrap().status(), StatusCode::NO_CONTENT, "it lives");
    // And then it does end, whoever is connected.
    house.drain.cancel();
    timeout(SOON, house.serving).await.expect("the service must end").unwrap();
    assert!(sender.send_request(ask("/readyz")).await.is_err());
}
