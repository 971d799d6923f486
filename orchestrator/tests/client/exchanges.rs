use std::time::{Duration, Instant};

use orchestrator::client::{Client, Filter, PATIENCE};
use orchestrator::error::Kind;
use protocol::RunId;
use protocol::control::NewRun;

use crate::server::{Server, Step, answer, answer_with, json, problem, run};

pub const ORDER: &str = r#"{"server":"lpar-7","image":{"name":"debian-13","sources":["http://a/"],
    "trust":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},"target":{"lun":{"wwid":"36005"}}}"#;

fn order() -> NewRun {
    NewRun::parse(ORDER.as_bytes()).unwrap()
}

fn id(name: &str) -> RunId {
    name.to_owned().try_into().unwrap()
}

#[tokio::test]
async fn a_run_is_asked_for_with_one_key_until_an_answer_arrives() {
    let created = run("r-1", "queued", "");
    let half =
        format!("HTTP/1.1 201 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{{", created.len());
    let server = Server::new(vec![
        Step::Cut(String::new()),
        problem(503, r#","retry_after":1"#),
        Step::Cut(half),
        answer(201, "application/json", &created),
    ])
    .await;
    let (mut told, begun) = (Vec::new(), Instant::now());
    let tell = |error: &orchestrator::error::Error, wait| told.push((error.to_string(), wait));
    let (run, is_new) = server.client().create_surely(&order(), "key-1", PATIENCE, tell).await.unwrap();
    assert!(is_new && run.run == id("r-1"));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].0 == "said\u{fffd}[2J so" && told[1].1 >= Duration::from_secs(1), "{told:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let bearer = format!("authorization: Bearer {}", server.token.reveal());
    for request in server.requests() {
        assert!(request.starts_with("POST /v1/runs HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nidempotency-key: key-1\r\n") && request.contains(&bearer), "{request}");
        let body = request.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(NewRun::parse(body.as_bytes()).unwrap(), order());
    }
}

#[tokio::test]
async fn a_run_that_was_made_before_is_no_new_one() {
    let server = Server::new(vec![json(&run("r-1", "running", ""))]).await;
    let (_, is_new) = server.client().create(&order(), "key-1").await.unwrap();
    assert!(!is_new);
    for key in ["", "two words", "ä", &"x".repeat(256)] {
        assert_eq!(server.client().create(&order(), key).await.unwrap_err().kind(), Kind::Usage);
    }
}

#[tokio::test]
async fn what_is_refused_is_not_asked_again() {
    let server = Server::new(vec![problem(409, r#","hint":"use another key""#), json("{}")]).await;
    let none = |_: &orchestrator::error::Error, _| panic!("it was asked again");
    let error = server.client().create_surely(&order(), "key-1", PATIENCE, none).await.unwrap_err();
    assert_eq!((error.kind(), error.hint()), (Kind::Refused, Some("use another key")));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn patience_ends() {
    let server = Server::new((0..20).map(|_| answer(502, "text/html", "<h1>\u{1b}proxy</h1>")).collect()).await;
    let begun = Instant::now();
    let patience = Duration::from_secs(2);
    let error = server.client().create_surely(&order(), "k", patience, |_, _| ()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3) && server.requests().len() >= 3);
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().ends_with("answered 502: <h1>\u{fffd}proxy</h1>"), "{error}");
    // What it asks for is more than there is: that is known at once.
    let server = Server::new(vec![answer_with(503, "retry-after: 3600\r\n", "")]).await;
    let begun = Instant::now();
    server.client().create_surely(&order(), "k", PATIENCE, |_, _| ()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn refusals_are_told_by_their_status() {
    let server = Server::new(vec![
        problem(401, ""),
        // What the body says of itself does not make it another status.
        answer(
            500,
            "application/problem+json",
            r#"{"type":"a","title":"t","status":404,"code":"not-found","detail":"d"}"#,
        ),
        answer(404, "application/json", r#"{"detail":"of something else"}"#),
        problem(404, &format!(r#","hint":"{}""#, "x".repeat(70_000))),
        answer(302, "text/plain", "elsewhere"),
    ])
    .await;
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(server.client().run(&id("r-1")).await.unwrap_err());
    }
    assert_eq!(heard.iter().map(|error| error.kind().exit_code()).collect::<Vec<_>>(), [4, 5, 4, 4, 5]);
    assert!(heard[0].hint().is_some_and(|hint| hint.contains("--operator-token")));
    assert_eq!(heard[1].to_string(), "d");
    assert!(heard[2].to_string().contains("answered 404"));
    assert!(heard[3].to_string().len() < 1000);
    assert!(heard.iter().all(|error| error.retry().is_none()));
}

#[tokio::test]
async fn answers_that_are_too_large_or_nonsense_are_not_taken() {
    let large = format!("{{\"run\":\"{}\"}}", "x".repeat(5 << 20));
    let server = Server::new(vec![json(&large), json("{\"run\":"), json("[]")]).await;
    let error = server.client().run(&id("r-1")).await.unwrap_err();
    assert!(error.to_string().contains("answered with more than"), "{error}");
    assert!(error.kind() == Kind::Unavailable && error.retry().is_none());
    for _ in 0..2 {
        let error = server.client().run(&id("r-1")).await.unwrap_err();
        assert!(error.to_string().contains("is not understood") && error.hint().is_some(), "{error}");
    }
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let server = Server::new(vec![Step::Say(head)]).await;
    server.client().run(&id("r-1")).await.unwrap_err();
}

#[tokio::test]
async fn a_service_that_says_nothing_is_not_waited_for() {
    let server = Server::new(vec![Step::Stall]).await;
    let error = server.hasty_client().run(&id("r-1")).await.unwrap_err();
    assert!(error.to_string().contains("did not answer") && error.retry().is_some(), "{error}");
}

#[tokio::test]
async fn only_the_service_itself_is_believed() {
    let (server, other) = (Server::new(vec![json("{}"), json("{}")]).await, Server::new(vec![]).await);
    let ca = std::fs::read(other.data().join("ca.pem")).unwrap();
    let stranger = Client::new(&server.url, &ca, server.token.clone()).unwrap();
    let error = stranger.run(&id("r-1")).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("--ca")) && error.retry().is_none(), "{error:?}");
    let ca = std::fs::read(server.data().join("ca.pem")).unwrap();
    let misnamed = Client::new(&server.url.replace("127.0.0.1", "127.0.0.2"), &ca, server.token.clone()).unwrap();
    let error = misnamed.run(&id("r-1")).await.unwrap_err();
    assert!(error.retry().is_some(), "nobody listens there: {error:?}");
    assert!(server.requests().is_empty(), "the token was sent to a stranger");
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_have_and_a_server_without_tls_are_told() {
    let server = Server::new(vec![json("{}")]).await;
    let ca = std::fs::read(server.data().join("ca.pem")).unwrap();
    let misnamed = Client::new(&server.url.replace("127.0.0.1", "localhost"), &ca, server.token.clone()).unwrap();
    let error = misnamed.run(&id("r-1")).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("`names`")) && error.retry().is_none(), "{error:?}");
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = Client::new(&url, &ca, server.token.clone()).unwrap().run(&id("r-1")).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("TLS")) && error.retry().is_none(), "{error:?}");
}

#[tokio::test]
async fn paths_and_queries_are_those_of_the_service() {
    let page = format!(r#"{{"runs":[{}],"next":"a&b"}}"#, run("r-1", "queued", ""));
    let token = format!(r#"{{"run":"r-1","attempt":1,"token":"{}"}}"#, "A".repeat(43));
    let one = || json(&run("r-1", "queued", ""));
    let server = Server::new(vec![json(&page), json(&page), one(), one(), one(), one(), one(), json(&token)]).await;
    let ca = std::fs::read(server.data().join("ca.pem")).unwrap();
    let client = Client::new(&format!("{}/behind/", server.url), &ca, server.token.clone()).unwrap();
    let filter = Filter { states: vec!["queued".into(), "lost".into()], server: Some("lpar-7".into()), limit: 200 };
    assert_eq!(
        client.list(&Filter { limit: 5, ..Filter::default() }, None).await.unwrap().next.as_deref(),
        Some("a&b")
    );
    client.list(&filter, Some("a&b")).await.unwrap();
    client.run(&id("r-1")).await.unwrap();
    client.cancel(&id("r-1"), Some("no \"more\"")).await.unwrap();
    client.cancel(&id("r-1"), None).await.unwrap();
    client.retry(&id("r-1")).await.unwrap();
    client.confirm_death(&id("r-1"), 7).await.unwrap();
    client.token(&id("r-1")).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /behind/v1/runs?limit=5 HTTP/1.1",
            "GET /behind/v1/runs?limit=200&state=queued%2Clost&server=lpar-7&page=a%26b HTTP/1.1",
            "GET /behind/v1/runs/r-1 HTTP/1.1",
            "POST /behind/v1/runs/r-1/cancel HTTP/1.1",
            "POST /behind/v1/runs/r-1/cancel HTTP/1.1",
            "POST /behind/v1/runs/r-1/retry HTTP/1.1",
            "POST /behind/v1/runs/r-1/confirm-death HTTP/1.1",
            "POST /behind/v1/runs/r-1/token HTTP/1.1",
        ]
    );
    let bodies: Vec<_> =
        server.requests().iter().map(|request| request.split_once("\r\n\r\n").unwrap().1.to_owned()).collect();
    assert_eq!(bodies[3..7], [r#"{"reason":"no \"more\""}"#, "{}", "{}", r#"{"attempt":7}"#]);
}
