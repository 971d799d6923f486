//! Who is let in.

use hyper::{Method, StatusCode};
use orchestrator::api::Limits;
use serde_json::json;

use crate::fake::{ENROLMENT, KEY, OPERATOR, OTHERS, SESSION, VIEWER};
use crate::house::{DOCUMENT, House, SHOWN, request};

/// Every operation: its method, its path with names filled in, and whom it is for (`None`: everybody).
fn operations() -> Vec<(Method, String, Option<String>)> {
    let mut all = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        let path = path.replace("{run}", "r-1").replace("{attempt}", "1");
        for (method, operation) in methods.as_object().unwrap() {
            let scheme = operation["security"][0].as_object().and_then(|scheme| scheme.keys().next().cloned());
            all.push((method.to_uppercase().parse().unwrap(), path.clone(), scheme));
        }
    }
    assert!(all.len() >= 15, "{all:?}");
    all
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered_but_what_is_open() {
    let house = House::plain(Limits::default()).await;
    for (method, path, scheme) in operations() {
        let Some(scheme) = scheme else {
            let answer = house.ask(request(method, &path, None, None)).await;
            assert!(answer.status.is_success(), "{path} is open: {}", answer.status);
            continue;
        };
        // Whose enrolment token it is, is known only once the body has been read.
        let enrol = json!({"nonce": "n".repeat(43), "client_key": KEY, "agent": "z"}).to_string();
        let body = if scheme == "enrolment" { enrol } else { "{}".to_owned() };
        let ask = |token| request(method.clone(), &path, token, Some(body.clone().into()));
        let missing = house.ask(ask(None)).await;
        missing.must_be_problem("unauthorized", "Authorization: Bearer");
        assert_eq!(missing.header("www-authenticate"), "Bearer");
        // One that is none, one that nobody has, and those of the others.
        let unknown = "x".repeat(43);
        let mut wrong = vec!["", "x", &unknown, OPERATOR, VIEWER, ENROLMENT, SESSION];
        let right: &[&str] = match scheme.as_str() {
            "operator" | "viewer" => &[OPERATOR, VIEWER],
            "enrolment" => &[ENROLMENT],
            _ => &[SESSION],
        };
        wrong.retain(|token| !right.contains(token));
        if scheme == "operator" {
            let answer = house.ask(ask(Some(VIEWER))).await;
            answer.must_be_problem("forbidden", "viewer token is a viewer's: it may look");
        }
        for token in wrong {
            let answer = house.ask(ask(Some(token))).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} with {token:?}");
            answer.must_be_problem("unauthorized", "");
        }
    }
    assert!(house.fake.asked().iter().all(|asked| asked.starts_with("enrol")), "nothing else reached the engine");
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_attempt_alone() {
    let house = House::plain(Limits::default()).await;
    let lease = |run: &str, attempt: u32| format!("/v1/agent/runs/{run}/attempts/{attempt}/lease");
    let answer = house.post_as(SESSION, &lease("r-1", 1), "{}").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["lease"], json!({"seconds": 60, "renew_after": 20}));
    house.post_as(OTHERS, &lease("r-1", 1), "{}").await.must_be_problem("forbidden", "another attempt");
    house.post_as(SESSION, &lease("r-2", 1), "{}").await.must_be_problem("forbidden", "another attempt");
    house.post_as(SESSION, &lease("r-1", 2), "{}").await.must_be_problem("attempt-over", "attempt 2");
    assert_eq!(house.fake.asked(), ["renew r-1 1"]);
    // With another's key, or with none, the token is not enough; nor with a certificate that the connection has outlived, or that
    // somebody else has issued over the right key.
    let unproven = ["nothing", "expired", "given"].map(|shown| (shown, "unauthorized"));
    for (shown, code) in [("another", "forbidden")].into_iter().chain(unproven) {
        for what in ["lease", "events", "key"] {
            let path = format!("/v1/agent/runs/r-1/attempts/1/{what}");
            let mut ask = request(Method::POST, &path, Some(SESSION), Some(r#"{"events": []}"#.into()));
            ask.headers_mut().insert(SHOWN, shown.parse().unwrap());
            house.ask(ask).await.must_be_problem(code, "client certificate");
        }
    }
    assert!(house.fake.asked().is_empty());
}

#[tokio::test]
async fn a_header_that_can_be_read_in_two_ways_is_refused() {
    let house = House::plain(Limits::default()).await;
    let with = |values: &[&str]| {
        let mut ask = request(Method::GET, "/v1/runs", None, None);
        for value in values {
            ask.headers_mut().append("authorization", value.parse().unwrap());
        }
        ask
    };
    let right = format!("Bearer {OPERATOR}");
    assert_eq!(house.ask(with(&[&right.replace("Bearer", "bEARER")])).await.status, StatusCode::OK);
    house.ask(with(&[&right, &right])).await.must_be_problem("unauthorized", "more than one");
    house.ask(with(&["Basic abc"])).await.must_be_problem("unauthorized", "another scheme");
    house.ask(with(&["Bearer"])).await.must_be_problem("unauthorized", "another scheme");
}
