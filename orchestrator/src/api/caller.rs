//! Who asks, and what it may ask: the one place where that is decided. A handler names in its arguments who it is for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use protocol::control::problem::{Code, Problem};
use protocol::{RunId, Token};

use super::Api;
use super::limits::peer;
use super::path::AttemptPath;
use super::problem::{Answered, Refusal};
use crate::engine::Agent;
use crate::identity::tokens;

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

/// Whom requests are counted for, once it has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// The operator, or its platform.
    Operator,
    /// The agent of an attempt.
    Agent(RunId, u32),
}

/// People and platforms that have the operator's token.
pub(super) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let token = Token::try_from(bearer(parts)?.to_owned());
        if !token.is_ok_and(|token| tokens::matches(&token, &api.operator)) {
            return Err(Problem::new(Code::Unauthorized, "this is not the operator's token")
                .with_hint("it stands in `operator.token` in the service's data folder")
                .into());
        }
        within_pace(api.callers.ask(&Caller::Operator))?;
        Ok(Operator)
    }
}

/// The agent of the attempt that the path names, by its session token.
pub(super) struct AgentCaller(pub(super) Agent);

impl FromRequestParts<Api> for AgentCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let session = token(parts, "a session token")?;
        let path = AttemptPath::from_request_parts(parts, api).await?;
        let agent = api.service.agent(&path.run, path.attempt, &session).await?;
        within_pace(api.callers.ask(&Caller::Agent(path.run, path.attempt)))?;
        Ok(AgentCaller(agent))
    }
}

/// Whoever has an enrolment token; whether it is one is for the engine to say.
pub(super) struct Enrolling(pub(super) Token);

impl FromRequestParts<Api> for Enrolling {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Answered<Self> {
        token(parts, "an enrolment token").map(Enrolling)
    }
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

fn within_pace(paced: Result<(), Duration>) -> Answered<()> {
    paced.map_err(|wait| {
        Problem::new(Code::TooMany, "there were too many requests of this caller")
            .with_hint("wait as long as `retry_after` says")
            .retry_after((wait.as_secs_f64().ceil() as u64).max(1))
            .into()
    })
}

/// Counts the requests of a peer, whoever it says it is.
pub(super) async fn pace(State(api): State<Api>, request: Request, next: Next) -> Answered<Response> {
    within_pace(api.peers.ask(&Peer::address(&request)))?;
    Ok(next.run(request).await)
}
