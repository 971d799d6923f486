//! Who asks, and what it may ask: the one place where that is decided. A handler names in its arguments who it is for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::ready;
use protocol::control::problem::{Code, Problem};
use protocol::{Digest, RunId, Token};

use super::Api;
use super::limits::peer;
use super::path::AttemptPath;
use super::problem::{Answered, Refusal, start};
use super::session;
use crate::engine::{Agent, Standing};
use crate::identity::{Known, Role, Shown, Who, tokens};
use crate::model::Moment;

/// The other end of a connection. `serve` puts it into each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Peer {
    /// Whom its requests are counted for.
    pub(super) fn address(request: &Request) -> IpAddr {
        let there = request.extensions().get::<Peer>();
        there.map_or(Ipv4Addr::UNSPECIFIED.into(), |there| peer(there.0.ip()))
    }
}

/// What the other end has shown of itself in TLS. `connection` puts it into each request.
#[derive(Debug, Clone)]
pub(super) struct Certificate(pub(super) Arc<Shown>);

/// Whom requests are counted for, once it has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// Somebody, or their platform.
    Person(Who),
    /// The agent of an attempt.
    Agent(RunId, u32),
}

/// Whoever may look: viewers and operators.
pub(super) struct Viewer(pub(super) Who);

impl FromRequestParts<Api> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        person(parts, api).map(|known| Viewer(known.who))
    }
}

/// Whoever may look, and is answered for as long as that lasts.
pub(super) struct Onlooker(Known);

impl FromRequestParts<Api> for Onlooker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        person(parts, api).map(Onlooker)
    }
}

impl Onlooker {
    /// Who it is.
    pub(super) fn who(&self) -> &Who {
        &self.0.who
    }

    /// The answer, which ends with the next piece of it when what proved who it is has ended or was revoked.
    pub(super) fn bounds(self, api: &Api, answer: Response) -> Response {
        let people = Arc::clone(&api.people);
        let (head, body) = answer.into_parts();
        let pieces = body.into_data_stream();
        let is_known = move |_: &_| ready(people.still_knows(&self.0, Moment::of_wall_clock()));
        Response::from_parts(head, Body::from_stream(pieces.take_while(is_known)))
    }
}

/// Whoever may act.
pub(super) struct Operator(pub(super) Who);

impl FromRequestParts<Api> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let who = person(parts, api)?.who;
        if who.role != Role::Operator {
            let detail = format!("{} is a {}'s: it may look, and change nothing", who.name, who.role.name());
            return Err(Problem::new(Code::Forbidden, detail)
                .with_hint("ask an operator, or use what proves that you are one: a certificate, or the token in `operator.token` in the service's data folder")
                .into());
        }
        // Who has changed what is asked afterwards.
        tracing::info!(who = start(&who.name), method = %parts.method, path = start(parts.uri.path()), "an operator asks");
        Ok(Operator(who))
    }
}

/// Whoever brings what a browser's session can begin with. A session is not such a thing: it would never end.
pub(super) struct Signing(pub(super) Known);

impl FromRequestParts<Api> for Signing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let known = by_certificate(parts, api)?.map_or_else(|| by_token(parts, api), Ok)?;
        within_pace(api.persons.ask(&Caller::Person(known.who.clone())))?;
        Ok(Signing(known))
    }
}

/// Who it is, of the people, counted. `purse` has mostly found out already.
fn person(parts: &Parts, api: &Api) -> Answered<Known> {
    let known = parts.extensions.get::<Known>().cloned().map_or_else(|| known(parts, api), Ok)?;
    within_pace(api.persons.ask(&Caller::Person(known.who.clone())))?;
    Ok(known)
}

/// Who it is, of the people. What comes first counts, also where something after it would have proven more.
pub(super) fn known(parts: &Parts, api: &Api) -> Answered<Known> {
    match (by_certificate(parts, api)?, session::cookie(&parts.headers)?) {
        (Some(known), _) => Ok(known),
        (None, Some(cookie)) if !parts.headers.contains_key(AUTHORIZATION) => session::known(parts, cookie, api),
        (None, _) => by_token(parts, api),
    }
}

/// Whose certificate came with the connection. Browsers show one whoever has made the request, as they send cookies.
fn by_certificate(parts: &Parts, api: &Api) -> Answered<Option<Known>> {
    let Some(Certificate(shown)) = parts.extensions.get::<Certificate>() else { return Ok(None) };
    let known = api.people.by_certificate(shown, Moment::of_wall_clock())?;
    if known.is_some() {
        session::must_not_be_of_another_site(parts)?;
    }
    Ok(known)
}

fn by_token(parts: &Parts, api: &Api) -> Answered<Known> {
    let token = Token::try_from(bearer(parts)?.to_owned());
    token.ok().and_then(|token| api.people.by_token(&token)).ok_or_else(|| {
        Problem::new(Code::Unauthorized, "this is no operator's token, and no viewer's")
            .with_hint("they stand in `operator.token` and `viewer.token` in the service's data folder; or show a certificate that has a role")
            .into()
    })
}

/// The agent of the attempt that the path names, by its session token and its client key.
pub(super) struct AgentCaller {
    pub(super) agent: Agent,
    shown: Arc<Shown>,
}

impl AgentCaller {
    /// The certificate that it has shown.
    pub(super) fn standing(&self) -> Option<Standing<'_>> {
        let left = self.shown.ends.saturating_duration_since(Instant::now());
        Some(Standing { key: self.shown.client_key.as_ref()?, left })
    }
}

impl FromRequestParts<Api> for AgentCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let session = token(parts, "a session token")?;
        let path = AttemptPath::from_request_parts(parts, api).await?;
        let shown = parts.extensions.get::<Certificate>().map(|certificate| &certificate.0);
        // One of another authority has no say here, nor has one that the connection has outlived. A wall clock that jumps outlives nothing.
        let shown = shown.filter(|shown| shown.is_ours && shown.ends > Instant::now());
        // Before anything is looked up: nobody reaches the store without having enrolled.
        let shown = shown.cloned().ok_or_else(|| without_certificate(&path))?;
        let agent = api.service.agent(&path.run, path.attempt, &session, &shown.key).await?;
        within_pace(api.callers.ask(&Caller::Agent(path.run, path.attempt)))?;
        Ok(AgentCaller { agent, shown })
    }
}

fn without_certificate(path: &AttemptPath) -> Refusal {
    let detail =
        format!("a request of attempt {} of run {} came without its client certificate", path.attempt, path.run);
    let problem = Problem::new(Code::Unauthorized, detail);
    problem
        .with_hint("show the certificate that came with the enrolment, or with a renewed lease since, over TLS")
        .into()
}

/// Whoever has an enrolment token; whether it is one is for the engine to say.
pub(super) struct Enrolling(pub(super) Token);

impl FromRequestParts<Api> for Enrolling {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Answered<Self> {
        token(parts, "an enrolment token").map(Enrolling)
    }
}

/// The digest of an enrolment token that this service has made, where a request brings one.
pub(super) fn enrolling(parts: &Parts, api: &Api) -> Option<Digest> {
    let token = token(parts, "an enrolment token").ok()?;
    api.tokens.has_made(&token).then(|| tokens::digest(&token))
}

/// What stands behind `Bearer`.
fn bearer(parts: &Parts) -> Answered<&str> {
    let missing = |detail: &str| {
        Refusal::from(
            Problem::new(Code::Unauthorized, detail)
                .with_hint("send the header `Authorization: Bearer` with the token"),
        )
    };
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| missing("the request has no header `Authorization`"))?;
    if values.next().is_some() {
        return Err(missing("the request has more than one header `Authorization`"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing("the header `Authorization` is of another scheme than `Bearer`"));
    }
    Ok(token)
}

fn token(parts: &Parts, what: &str) -> Answered<Token> {
    let text = bearer(parts)?;
    Token::try_from(text.to_owned())
        .map_err(|error| Refusal::new(Code::Unauthorized, format!("the bearer token is not {what}: {error}")))
}

pub(super) fn within_pace(paced: Result<(), Duration>) -> Answered<()> {
    paced.map_err(|wait| {
        Problem::new(Code::TooMany, "there were too many requests of this caller")
            .with_hint("wait as long as `retry_after` says")
            .retry_after((wait.as_secs_f64().ceil() as u64).max(1))
            .into()
    })
}
