//! What is answered, and how it is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::{Method, StatusCode};
use orchestrator::api::Limits;
use protocol::UnlockKey;

use crate::fake::{OPERATOR, SESSION, order};
use crate::house::{House, request};

#[tokio::test]
async fn a_run_is_created_once() {
    let house = House::plain(Limits::default()).await;
    let ask = |key: &str| {
        let mut ask = request(Method::POST, "/v1/runs", Some(OPERATOR), Some(order("lpar-1").to_string().into()));
        ask.headers_mut().insert("idempotency-key", key.parse().unwrap());
        ask
    };
    let answer = house.ask(ask("first")).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::CREATED, "/v1/runs/r-1"));
    assert_eq!(answer.json()["state"], "queued");
    let answer = house.ask(ask("again")).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::OK, "/v1/runs/r-1"));
    assert_eq!(house.fake.asked(), ["create lpar-1 Some(\"first\")", "create lpar-1 Some(\"again\")"]);

    assert_eq!(house.post("/v1/runs", order("lpar-1").to_string()).await.status, StatusCode::CREATED);
    house.ask(ask("")).await.must_be_problem("bad-request", "Idempotency-Key");
    house.ask(ask("a b")).await.must_be_problem("bad-request", "visible ASCII");
    house.ask(ask(&"k".repeat(256))).await.must_be_problem("bad-request", "1 to 255");
    let mut twice = ask("one");
    twice.headers_mut().append("idempotency-key", "two".parse().unwrap());
    house.ask(twice).await.must_be_problem("bad-request", "more than once");
}

#[tokio::test]
async fn what_the_engine_refuses_is_handed_on() {
    let house = House::plain(Limits::default()).await;
    house.post("/v1/runs", order("reused").to_string()).await.must_be_problem("key-reused", "another run");
    let full = house.post("/v1/runs", order("full").to_string()).await;
    assert_eq!(full.must_be_problem("unavailable", "full")["retry_after"], 7);
    for path in ["/v1/runs/r-2", "/v1/runs/r-2/events"] {
        house.get(path).await.must_be_problem("not-found", "there is no run r-2");
    }
    for action in ["cancel", "retry", "token", "key"] {
        house.post(&format!("/v1/runs/r-2/{action}"), "").await.must_be_problem("not-found", "r-2");
        house.post(&format!("/v1/runs/r-over/{action}"), "").await.must_be_problem("conflict", "has succeeded");
    }
}

#[tokio::test]
async fn actions_on_a_run() {
    let house = House::plain(Limits::default()).await;
    assert_eq!(house.get("/v1/runs/r-1").await.json()["run"], "r-1");
    for body in ["", "{}", r#"{"reason": ""}"#, r#"{"reason": "the wrong image"}"#] {
        assert_eq!(house.post("/v1/runs/r-1/cancel", body).await.status, StatusCode::OK);
    }
    // Without a body there need be no type of it.
    let bare = request(Method::POST, "/v1/runs/r-1/retry", Some(OPERATOR), None);
    assert_eq!(house.ask(bare).await.status, StatusCode::OK);
    assert_eq!(house.post("/v1/runs/r-1/confirm-death", r#"{"attempt": 2}"#).await.status, StatusCode::OK);
    assert_eq!(house.post("/v1/runs/r-1/token", "{}").await.json()["attempt"], 1);
    for body in [r#"{"attempt": 2}"#, r#"{"attempt": 2, "reason": "lost"}"#] {
        assert_eq!(house.post("/v1/runs/r-1/revoke", body).await.status, StatusCode::OK);
    }
    let (plain, why) = ("revoke r-1 2 by operator token", "revoke r-1 2 by operator token: lost");
    let off = "cancel r-1: called off by operator token";
    assert_eq!(
        house.fake.asked(),
        [off, off, off, "cancel r-1: the wrong image", "retry r-1", "confirm r-1 2", plain, why]
    );
    house.post("/v1/runs/r-1/revoke", r#"{"attempt": 0}"#).await.must_be_problem("bad-request", "`attempt`");

    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(1025));
    house.post("/v1/runs/r-1/cancel", long).await.must_be_problem("bad-request", "`reason` has 1025 bytes");
    house.post("/v1/runs/r-1/confirm-death", r#"{"attempt": 0}"#).await.must_be_problem("bad-request", "`attempt`");
    house.post("/v1/runs/r-1/confirm-death", "{}").await.must_be_problem("bad-request", "missing field `attempt`");
    house.post("/v1/runs/r-1/retry", r#"{"now": true}"#).await.must_be_problem("bad-request", "`now`");
}

#[tokio::test]
async fn keys_are_given_and_destroyed() {
    let house = House::plain(Limits::default()).await;
    let key = UnlockKey::of(&[7; UnlockKey::BYTES]);
    let shown = house.post("/v1/runs/r-1/key", "").await;
    assert_eq!((shown.json()["key"].as_str(), shown.header("cache-control")), (Some(key.reveal()), "no-store"));
    let destroy = |run: &str| request(Method::DELETE, &format!("/v1/runs/{run}/key"), Some(OPERATOR), None);
    assert_eq!(house.ask(destroy("r-1")).await.json()["run"], "r-1");
    house.ask(destroy("r-2")).await.must_be_problem("not-found", "r-2");
    house.ask(destroy("r-over")).await.must_be_problem("conflict", "has succeeded");
    let release = request(Method::POST, "/v1/agent/runs/r-1/attempts/1/key", Some(SESSION), Some("{}".into()));
    assert_eq!(house.ask(release).await.json()["key"].as_str(), Some(key.reveal()));
    let [show, destroyed, .., released] = &house.fake.asked()[..] else { panic!() };
    assert_eq!((show.as_str(), released.as_str()), ("show key r-1 to operator token", "release r-1 1"));
    assert_eq!(destroyed, "destroy key r-1 by operator token");
}

#[tokio::test]
async fn lists_are_narrowed() {
    let house = House::plain(Limits::default()).await;
    let answer = house.get("/v1/runs?state=queued,running&server=lpar-1&fabric=a&image=b&limit=7&page=41").await;
    assert_eq!(answer.json()["next"], "1");
    assert_eq!(house.get("/v1/runs").await.status, StatusCode::OK);
    let [narrow, wide] = house.fake.asked().try_into().unwrap();
    for part in ["[Queued, Running]", "Some(\"lpar-1\")", "Some(\"41\") 7"] {
        assert!(narrow.contains(part), "{narrow}");
    }
    assert!(wide.contains("states: []") && wide.ends_with("None 100"), "{wide}");
    for (query, says) in [
        ("state=gone", "queued, launching, running, lost"),
        ("state=queued,", "no state"),
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=many", "limit"),
        ("serv=x", "unknown field `serv`"),
        ("image=%00", "`image` has more than 256 bytes, or a control character"),
        (&format!("server={}", "a".repeat(257)), "`server` has more than 256 bytes"),
        ("server=a&server=b", "duplicate field `server`"),
    ] {
        house.get(&format!("/v1/runs?{query}")).await.must_be_problem("bad-request", says);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let house = House::plain(Limits::default()).await;
    house.get("/v1").await.must_be_problem("not-found", "/openapi.json");
    house.get("/v1/runs/r-1/attempts").await.must_be_problem("not-found", "/v1/runs/r-1/attempts");
    let answer = house.ask(request(Method::DELETE, "/v1/runs", Some(OPERATOR), None)).await;
    answer.must_be_problem("method-not-allowed", "DELETE");
    assert_eq!(answer.header("allow"), "POST,GET,HEAD");
    house.get("/v1/runs/r%201").await.must_be_problem("bad-request", "a run id: 1 to 64");
    house.get("/v1/runs/%ff").await.must_be_problem("bad-request", "path");
    let head = house.ask(request(Method::HEAD, "/v1/runs", Some(OPERATOR), None)).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_panic_is_a_problem_of_one_request() {
    let house = House::plain(Limits::default()).await;
    house.post("/v1/runs", order("panics").to_string()).await.must_be_problem("internal", "defect");
    assert_eq!(house.post("/v1/runs", order("lpar-1").to_string()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_not_waited_for() {
    let brief = Duration::from_millis(100);
    let house = House::plain(Limits { body: brief, answer: brief, ..Limits::default() }).await;
    let answer = house.post("/v1/runs", order("sleeps").to_string()).await;
    answer.must_be_problem("unavailable", "whether this was done is not known");
}

#[tokio::test]
async fn health_is_of_the_process_and_readiness_of_the_service() {
    let house = House::plain(Limits::default()).await;
    assert_eq!(house.get("/healthz").await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.get("/readyz").await.status, StatusCode::NO_CONTENT);
    house.fake.broken.store(true, Ordering::Relaxed);
    assert_eq!(house.get("/healthz").await.status, StatusCode::NO_CONTENT);
    house.get("/readyz").await.must_be_problem("unavailable", "the store");
}
