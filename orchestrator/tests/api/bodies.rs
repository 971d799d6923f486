//! What a body may say.

use hyper::{Method, StatusCode};
use orchestrator::api::Limits;
use serde_json::{Value, json};

use crate::fake::{ENROLMENT, KEY, OPERATOR, SESSION, order};
use crate::house::{House, request};

const EVENTS: &str = "/v1/agent/runs/r-1/attempts/1/events";

fn with(pointer: &str, value: Value) -> String {
    let mut order = order("lpar-1");
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    order.pointer_mut(parent).unwrap()[key] = value;
    order.to_string()
}

fn event(body: Value) -> Value {
    json!({"run": "r-1", "attempt": 1, "index": 0, "at": 0.5, "time": "2027-01-01T00:00:00Z", "event": body})
}

#[tokio::test]
async fn a_refusal_names_the_key() {
    let house = House::plain(Limits::default()).await;
    let text = order("lpar-1").to_string();
    let cases = [
        (with("/sever", json!("x")), "unknown field `sever`"),
        (with("/target/wipes", json!(true)), "`target.wipes`: unknown field `wipes`"),
        (with("/priority", json!("high")), "`priority`: invalid type"),
        (with("/priority", json!(101)), "`priority` must be -100 to 100"),
        (with("/image/sources", json!([1])), "`image.sources[0]`: invalid type"),
        (with("/image/digest", json!("sha256:x")), "`image.digest`"),
        (with("/target/device", json!("")), "`target.device` is empty"),
        (with("/target/device", json!("/dev/a\0b")), "a control character"),
        (with("/target/device", json!(format!("/{}", "a".repeat(1024)))), "`target.device` has more than 1024 bytes"),
        (with("/image/name", json!("a\0b")), "`image.name`: \"a\\0b\" is no image's name"),
        (with("/image/name", json!("a".repeat(129))), "1 to 128 of a-z"),
        (with("/image/architecture", json!("S390X")), "`image.architecture`: \"S390X\" is none"),
        (with("/server", json!("a b")), "`server`"),
        (text.replacen("\"server\"", "\"server\":\"x\",\"server\"", 1), "\"server\" stands twice"),
        (text.replacen("\"device\"", "\"device\":\"x\",\"device\"", 1), "\"device\" stands twice"),
        (text.clone() + "x", "trailing characters"),
        (text[1..].to_owned(), "expected an object"),
        (format!("[{text}]"), "expected an object"),
        (String::new(), "EOF"),
        ("{}".to_owned(), "missing field `server`"),
        ("\u{feff}{}".to_owned(), "column 1"),
    ];
    for (body, says) in cases {
        let answer = house.post("/v1/runs", body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        answer.must_be_problem("bad-request", says);
    }
    assert_eq!(house.fake.asked(), [] as [&str; 0]);
}

#[tokio::test]
async fn only_json_is_read() {
    let house = House::plain(Limits::default()).await;
    let ask = |kind: Option<&str>, encoding: Option<&str>| {
        let body = order("lpar-1").to_string().into();
        let mut ask = request(Method::POST, "/v1/runs", Some(OPERATOR), Some(body));
        ask.headers_mut().remove("content-type");
        for (name, value) in [("content-type", kind), ("content-encoding", encoding)] {
            value.map(|value| ask.headers_mut().insert(name, value.parse().unwrap()));
        }
        ask
    };
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(house.ask(ask(Some(kind), None)).await.status, StatusCode::CREATED);
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")] {
        house.ask(ask(kind, None)).await.must_be_problem("media-type", "application/json");
    }
    house.ask(ask(Some("application/json"), Some("gzip"))).await.must_be_problem("media-type", "Content-Encoding");
}

#[tokio::test]
async fn a_report_with_kinds_of_events_that_are_not_known_is_kept_as_it_came() {
    let house = House::plain(Limits::default()).await;
    let unknown = event(json!({"kind": "tea-made", "cups": [1, 2], "phase": 7}));
    let known = event(json!({"kind": "phase-started", "phase": "a-new-phase"}));
    let report = json!({"events": [unknown, known]});
    let answer = house.post_as(SESSION, EVENTS, report.to_string()).await;
    assert_eq!((answer.status, &answer.json()["next"]), (StatusCode::OK, &json!(3)));
    assert_eq!(house.fake.asked(), [format!("report {}", report["events"])]);
}

#[tokio::test]
async fn a_report_is_refused_when_it_is_malformed_or_has_too_much() {
    let house = House::plain(Limits::default()).await;
    let report = |events: Vec<Value>| json!({"events": events}).to_string();
    let warning = event(json!({"kind": "warning", "message": "x"}));
    let answer = house.post_as(SESSION, EVENTS, report(vec![warning.clone(); 256])).await;
    assert_eq!(answer.status, StatusCode::OK);
    house.fake.asked();
    let doubled = report(vec![warning.clone()]).replace("\"message\"", "\"message\":\"y\",\"message\"");
    for (body, says) in [
        (report(vec![warning; 257]), "257 events"),
        (report(vec![event(json!({"kind": "warning"}))]), "missing field `message`"),
        (report(vec![event(json!({"message": "x"}))]), "`kind`"),
        (doubled, "\"message\" stands twice"),
        (json!({"events": [], "more": 1}).to_string(), "unknown field `more`"),
        (json!({"events": {}}).to_string(), "`events`"),
    ] {
        house.post_as(SESSION, EVENTS, body).await.must_be_problem("bad-request", says);
    }
    let large = event(json!({"kind": "warning", "message": "x".repeat(1 << 20)}));
    house.post_as(SESSION, EVENTS, report(vec![large])).await.must_be_problem("too-large", "1048576 bytes");
    assert_eq!(house.fake.asked(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_agent_enrols() {
    let house = House::plain(Limits::default()).await;
    let enrol = |agent: &str| {
        json!({"nonce": "n".repeat(43), "client_key": KEY, "agent": agent, "server": "lpar-1"}).to_string()
    };
    let answer = house.post_as(ENROLMENT, "/v1/agent/enrol", enrol("z-provisioner 0.1.0")).await;
    assert_eq!((answer.status, &answer.json()["session"]), (StatusCode::CREATED, &json!(SESSION)));
    house.post_as(SESSION, "/v1/agent/enrol", enrol("z")).await.must_be_problem("unauthorized", "enrolment token");
    let long = house.post_as(ENROLMENT, "/v1/agent/enrol", enrol(&"z".repeat(257))).await;
    long.must_be_problem("bad-request", "`agent` has 257 bytes");
    let short = json!({"nonce": "secret-nonce", "agent": "z"}).to_string();
    let refusal = house.post_as(ENROLMENT, "/v1/agent/enrol", short).await.must_be_problem("bad-request", "`nonce`");
    assert!(!refusal.to_string().contains("secret-nonce"), "what may be a secret is not shown: {refusal}");
}
