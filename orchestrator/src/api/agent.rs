//! What agents say, and what they are told.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report};
use protocol::control::key::ReleasedKey;
use protocol::control::run::Nothing;

use super::Api;
use super::body::Strict;
use super::caller::{AgentCaller, Enrolling};
use super::openapi::{Enrolments, Releasing, Reporting};
use super::path::AttemptPath;
use super::problem::Answered;

/// Enrol for an attempt
///
/// The same process may ask again when it got no answer; it is known by its nonce. Another one is refused.
#[utoipa::path(
    post, path = "/v1/agent/enrol", tag = "agents", operation_id = "enrol", security(("enrolment" = [])),
    request_body(content = Enrol, content_type = "application/json"),
    responses((status = 201, description = "The attempt is this agent's", body = Enrolled, content_type = "application/json"), Enrolments),
)]
pub(super) async fn enrol(
    Enrolling(token): Enrolling,
    State(api): State<Api>,
    Strict(enrol): Strict<Enrol>,
) -> Answered<(StatusCode, Json<Enrolled>)> {
    Ok((StatusCode::CREATED, Json(api.service.enrol(&token, enrol).await?)))
}

/// Report what happened
///
/// Events that were reported already are taken again and change nothing. A kind that the service does not know is kept as it came.
#[utoipa::path(
    post, path = "/v1/agent/runs/{run}/attempts/{attempt}/events", tag = "agents", operation_id = "report",
    security(("session" = [])),
    params(AttemptPath),
    request_body(content = Report, content_type = "application/json"),
    responses((status = 200, description = "They are kept", body = Orders, content_type = "application/json"), Reporting),
)]
pub(super) async fn report(
    AgentCaller { agent, .. }: AgentCaller,
    State(api): State<Api>,
    Strict(report): Strict<Report>,
) -> Answered<Json<Orders>> {
    Ok(Json(api.service.report(&agent, report).await?))
}

/// Renew the lease
///
/// Where the certificate that the agent has shown nears its end, another one over the same key comes with it.
#[utoipa::path(
    post, path = "/v1/agent/runs/{run}/attempts/{attempt}/lease", tag = "agents", operation_id = "renew_lease",
    security(("session" = [])),
    params(AttemptPath),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses((status = 200, description = "The agent may go on writing", body = Lease, content_type = "application/json"), Reporting),
)]
pub(super) async fn renew(
    asks: AgentCaller,
    State(api): State<Api>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<Json<Lease>> {
    Ok(Json(api.service.renew(&asks.agent, asks.standing()).await?))
}

/// Get the key of the run's disk
///
/// Where the run spec says `key: service`. Each attempt is given it once: an answer that was lost costs the attempt, and the next one gets
/// the key anew.
#[utoipa::path(
    post, path = "/v1/agent/runs/{run}/attempts/{attempt}/key", tag = "agents", operation_id = "release_key",
    security(("session" = [])),
    params(AttemptPath),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses((status = 200, description = "The key", body = ReleasedKey, content_type = "application/json"), Releasing),
)]
pub(super) async fn release_key(
    AgentCaller { agent, .. }: AgentCaller,
    State(api): State<Api>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<Json<ReleasedKey>> {
    Ok(Json(api.service.release_key(&agent).await?))
}
