//! Sessions of browsers: a cookie instead of a token, which no script can read and no other site can use.

use axum::Json;
use axum::extract::State;
use axum::http::header::{COOKIE as COOKIES, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::Nothing;

use super::Api;
use super::body::Strict;
use super::caller::{Signing, Viewer};
use super::openapi::{Beginning, Leaving, Listing};
use super::problem::{Answered, Refusal};
use crate::identity::{Known, Who};
use crate::model::Moment;

/// The cookie's name. The prefix has browsers take it from this very host alone, over TLS.
pub(super) const COOKIE: &str = "__Host-session";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

type SetCookie = [(HeaderName, String); 1];

/// Begin a browser's session
///
/// With a token or a client certificate. What is answered is who it is of; the cookie proves it for twelve hours, as long as that is good.
#[utoipa::path(
    post, path = "/v1/session", tag = "sessions", operation_id = "begin_session", security(("viewer" = [])),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses(
        (status = 200, description = "It has begun", body = Who, content_type = "application/json",
            headers(("Set-Cookie" = String, description = "The session"))),
        Beginning,
    ),
)]
pub(super) async fn begin(
    Signing(known): Signing,
    State(api): State<Api>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<(SetCookie, Json<Who>)> {
    let (session, length) = api.people.begin_session(&known, Moment::of_wall_clock());
    tracing::info!(who = known.who.name, "a browser's session begins");
    Ok((set_cookie(&session, length.as_secs()), Json(known.who)))
}

/// Say who asks
#[utoipa::path(
    get, path = "/v1/session", tag = "sessions", operation_id = "show_session", security(("viewer" = [])),
    responses((status = 200, description = "Who it is", body = Who, content_type = "application/json"), Listing),
)]
pub(super) async fn show(Viewer(who): Viewer) -> Json<Who> {
    Json(who)
}

/// End a browser's session
///
/// The browser forgets it. One that is over is forgotten as well.
#[utoipa::path(
    delete, path = "/v1/session", tag = "sessions", operation_id = "end_session", security(()),
    responses(
        (status = 204, description = "It has ended", headers(("Set-Cookie" = String, description = "No session"))),
        Leaving,
    ),
)]
pub(super) async fn end(headers: HeaderMap, uri: axum::http::Uri) -> Answered<(StatusCode, SetCookie)> {
    if cookie(&headers)?.is_some() {
        must_be_of_this_site(&headers, uri.authority().map(|authority| authority.as_str()))?;
    }
    Ok((StatusCode::NO_CONTENT, set_cookie("", 0)))
}

fn set_cookie(value: &str, seconds: u64) -> SetCookie {
    [(SET_COOKIE, format!("{COOKIE}={value}; {ATTRIBUTES}; Max-Age={seconds}"))]
}

/// The session that a request brings, where it brings one.
pub(super) fn cookie(headers: &HeaderMap) -> Answered<Option<&str>> {
    let texts = headers.get_all(COOKIES).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    let first = found.next();
    if found.next().is_some() {
        return Err(Refusal::new(Code::BadRequest, format!("the cookie `{COOKIE}` is there more than once")));
    }
    Ok(first)
}

/// Whose session it is. What changes something must come from a page of this very service.
pub(super) fn known(parts: &Parts, cookie: &str, api: &Api) -> Answered<Known> {
    if !is_harmless(&parts.method) {
        must_be_of_this_site(&parts.headers, authority(parts))?;
    }
    api.people.by_session(cookie, Moment::of_wall_clock()).ok_or_else(|| {
        Problem::new(Code::Unauthorized, "the session is over, or none of this service")
            .with_hint("begin another one: POST /v1/session with a token or a certificate")
            .into()
    })
}

/// A request that changes something and says that a page has made it: that page must be of this very service. Programs say nothing of pages.
pub(super) fn must_not_be_of_another_site(parts: &Parts) -> Answered<()> {
    let is_of_page = [SEC_FETCH_SITE, ORIGIN].iter().any(|name| parts.headers.contains_key(name));
    if is_harmless(&parts.method) || !is_of_page {
        return Ok(());
    }
    must_be_of_this_site(&parts.headers, authority(parts))
}

fn is_harmless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The host where HTTP/2 says it.
fn authority(parts: &Parts) -> Option<&str> {
    parts.uri.authority().map(|authority| authority.as_str())
}

/// Browsers send cookies also where another site has made the request: they say which, and a site cannot change what they say.
fn must_be_of_this_site(headers: &HeaderMap, authority: Option<&str>) -> Answered<()> {
    let text = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        // Doubled, it is no answer to the question.
        values.next().map(|value| if values.next().is_some() { "" } else { value })
    };
    let (site, origin) = (text(&SEC_FETCH_SITE), text(&ORIGIN));
    let host = text(&HOST).or(authority).unwrap_or_default();
    let is_ours = |origin: &str| !host.is_empty() && origin.strip_prefix("https://") == Some(host);
    let agrees = site.is_none_or(|site| site == "same-origin") && origin.is_none_or(is_ours);
    if agrees && (site.is_some() || origin.is_some()) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "a browser has made this request, and not for a page of this service")
        .with_hint("a program sends its token in the header `Authorization: Bearer`, and neither cookies nor `Origin`")
        .into())
}
