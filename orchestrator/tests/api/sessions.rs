//! Sessions of browsers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use orchestrator::api::Limits;
use serde_json::json;

use crate::fake::{OPERATOR, SESSION, VIEWER};
use crate::house::{House, request};

/// A request as a browser makes it.
fn browser(method: Method, path: &str, cookie: &str, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let body = (method == Method::POST).then(|| "{}".into());
    let mut request = request(method, path, None, body);
    request.headers_mut().insert("cookie", format!("theme=dark; __Host-session={cookie}").parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// What a session's cookie holds, and all that was said with it.
async fn signed_in(house: &House, token: &str) -> (String, String) {
    let answer = house.post_as(token, "/v1/session", "{}").await;
    assert_eq!(answer.status, StatusCode::OK);
    let set = answer.header("set-cookie");
    let (cookie, attributes) = set.strip_prefix("__Host-session=").unwrap().split_once("; ").unwrap();
    (cookie.to_owned(), attributes.to_owned())
}

const OURS: &[(&str, &str)] = &[("sec-fetch-site", "same-origin")];

#[tokio::test]
async fn a_session_is_begun_with_a_token_and_ended() {
    let house = House::plain(Limits::default()).await;
    let (cookie, attributes) = signed_in(&house, OPERATOR).await;
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200");
    let who = house.ask(browser(Method::GET, "/v1/session", &cookie, &[])).await;
    assert_eq!(who.json(), json!({"role": "operator", "name": "operator token"}));
    assert_eq!(house.ask(browser(Method::GET, "/v1/runs", &cookie, &[])).await.status, StatusCode::OK);
    let cancel = house.ask(browser(Method::POST, "/v1/runs/r-1/cancel", &cookie, OURS)).await;
    assert_eq!(cancel.status, StatusCode::OK);
    // It is not begun with a session: it would never end.
    let again = house.ask(browser(Method::POST, "/v1/session", &cookie, OURS)).await;
    again.must_be_problem("unauthorized", "Authorization");
    let left = house.ask(browser(Method::DELETE, "/v1/session", &cookie, OURS)).await;
    assert_eq!(left.status, StatusCode::NO_CONTENT);
    let forgotten = "__Host-session=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0";
    assert_eq!(left.header("set-cookie"), forgotten);
    house.ask(request(Method::GET, "/v1/session", None, None)).await.must_be_problem("unauthorized", "");
    house.post_as(SESSION, "/v1/session", "{}").await.must_be_problem("unauthorized", "viewer.token");
    let spoilt = house.ask(browser(Method::GET, "/v1/runs", &format!("{cookie}x"), &[])).await;
    spoilt.must_be_problem("unauthorized", "the session is over");
}

#[tokio::test]
async fn a_viewer_changes_nothing_whatever_proves_who_it_is() {
    let house = House::plain(Limits::default()).await;
    let (cookie, _) = signed_in(&house, VIEWER).await;
    let who = house.ask(browser(Method::GET, "/v1/session", &cookie, &[])).await.json();
    assert_eq!(who, json!({"role": "viewer", "name": "viewer token"}));
    for path in ["/v1/runs", "/v1/runs/r-1"] {
        assert_eq!(house.ask(browser(Method::GET, path, &cookie, &[])).await.status, StatusCode::OK);
    }
    for action in ["cancel", "retry", "token"] {
        let path = format!("/v1/runs/r-1/{action}");
        house.ask(browser(Method::POST, &path, &cookie, OURS)).await.must_be_problem("forbidden", "may look");
        house.post_as(VIEWER, &path, "{}").await.must_be_problem("forbidden", "may look");
    }
    assert_eq!(house.fake.asked().len(), 1, "the list, and nothing else");
}

#[tokio::test]
async fn another_site_can_do_nothing_with_a_session() {
    let house = House::plain(Limits::default()).await;
    let (cookie, _) = signed_in(&house, OPERATOR).await;
    for ours in [
        &[("sec-fetch-site", "same-origin"), ("origin", "https://localhost")][..],
        &[("origin", "https://localhost")],
        OURS,
    ] {
        let answer = house.ask(browser(Method::POST, "/v1/runs/r-1/cancel", &cookie, ours)).await;
        assert_eq!(answer.status, StatusCode::OK, "{ours:?}");
    }
    for theirs in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://localhost")],
        &[("origin", "https://localhost.evil.example")],
        &[("origin", "https://localhost:8443")],
        &[("origin", "http://localhost")],
        &[("origin", "null")],
    ] {
        let answer = house.ask(browser(Method::POST, "/v1/runs/r-1/cancel", &cookie, theirs)).await;
        answer.must_be_problem("forbidden", "not for a page of this service");
        let answer = house.ask(browser(Method::DELETE, "/v1/session", &cookie, theirs)).await;
        answer.must_be_problem("forbidden", "not for a page of this service");
    }
    assert_eq!(house.fake.asked().len(), 3);
    // What a header says goes before what a cookie says, and two cookies say nothing.
    let mut both = browser(Method::GET, "/v1/runs", &cookie, &[]);
    both.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    house.ask(both).await.must_be_problem("unauthorized", "no operator's token");
    let mut twice = browser(Method::GET, "/v1/runs", &cookie, &[]);
    twice.headers_mut().append("cookie", format!("__Host-session={cookie}").parse().unwrap());
    house.ask(twice).await.must_be_problem("bad-request", "more than once");
}
