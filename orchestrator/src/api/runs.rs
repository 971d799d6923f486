//! What people and platforms ask for.

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{
    Cancel, ConfirmDeath, EnrolmentToken, MAX_IDEMPOTENCY_KEY, MAX_PAGE, NewRun, Nothing, Revoke, Run, RunPage,
};
use serde::Deserialize;

use super::Api;
use super::body::Strict;
use super::caller::{Operator, Viewer};
use super::openapi::{Creating, Listing, Showing, Telling};
use super::path::{Asked, RunPath};
use super::problem::{Answered, Refusal, start};
use crate::model::State as RunState;
use crate::store::Filter;

/// Runs of a page where nobody says how many.
const PAGE: u32 = 100;
/// Longest name of a page, in bytes.
const MAX_PAGE_NAME: usize = 256;
/// Longest name that is looked for, in bytes.
const MAX_WANTED: usize = 256;

/// Ask for a run
///
/// It waits in the queue until its server, its target, its sources and its fabric are free. The same request with the same
/// `Idempotency-Key` creates one run, however often it is sent.
#[utoipa::path(
    post, path = "/v1/runs", tag = "runs", operation_id = "create_run", security(("operator" = [])),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "Names this very wish: visible ASCII characters")),
    request_body(content = NewRun, content_type = "application/json"),
    responses(
        (status = 201, description = "The run is new", body = Run, content_type = "application/json",
            headers(("Location" = String, description = "Where the run is"))),
        (status = 200, description = "The key has already made this very run", body = Run, content_type = "application/json",
            headers(("Location" = String, description = "Where the run is"))),
        Creating,
    ),
)]
pub(super) async fn create(
    _: Operator,
    State(api): State<Api>,
    headers: HeaderMap,
    Strict(new): Strict<NewRun>,
) -> Answered<Response> {
    let (run, is_new) = api.service.create(new, idempotency_key(&headers)?).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/runs/{}", run.run);
    Ok((status, [(LOCATION, location)], Json(run)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Answered<Option<String>> {
    let refuse = |detail: String| Refusal::new(Code::BadRequest, format!("the header `Idempotency-Key` {detail}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("stands there more than once".into()));
    }
    let key = value.as_bytes();
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !key.iter().all(u8::is_ascii_graphic) {
        return Err(refuse(format!("must be 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters")));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// Which runs are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// In one of these states, separated by commas.
    #[param(
        pattern = "^(queued|launching|running|lost|succeeded|failed|cancelled)(,(queued|launching|running|lost|succeeded|failed|cancelled))*$",
        example = "queued,running"
    )]
    state: Option<String>,
    /// Of this server.
    #[param(max_length = 256)]
    server: Option<String>,
    /// Of this fabric.
    #[param(max_length = 256)]
    fabric: Option<String>,
    /// Of this image.
    #[param(max_length = 256)]
    image: Option<String>,
    /// How many runs at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Which page: `next` of the one before.
    #[param(max_length = 256)]
    page: Option<String>,
}

/// List runs, the latest first
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs", operation_id = "list_runs", security(("viewer" = [])), params(Which),
    responses((status = 200, description = "A page of runs, without their orders", body = RunPage, content_type = "application/json"), Listing),
)]
pub(super) async fn list(_: Viewer, State(api): State<Api>, Asked(which): Asked<Which>) -> Answered<Json<RunPage>> {
    let states = which.state.as_deref().unwrap_or_default();
    let states = states.split(',').filter(|_| !states.is_empty()).map(state).collect::<Answered<_>>()?;
    let limit = which.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Refusal::new(Code::BadRequest, format!("`limit` must be 1 to {MAX_PAGE}")));
    }
    let page = which.page.as_deref();
    if page.is_some_and(|page| page.len() > MAX_PAGE_NAME) {
        return Err(Refusal::new(Code::BadRequest, "`page` is not one that this service has named"));
    }
    for (name, wanted) in [("server", &which.server), ("fabric", &which.fabric), ("image", &which.image)] {
        // No database is asked what it may not even be able to read.
        if wanted.as_ref().is_some_and(|wanted| wanted.len() > MAX_WANTED || wanted.chars().any(char::is_control)) {
            let detail = format!("`{name}` has more than {MAX_WANTED} bytes, or a control character");
            return Err(Refusal::new(Code::BadRequest, detail));
        }
    }
    let filter = Filter { states, server: which.server, fabric: which.fabric, image: which.image };
    Ok(Json(api.service.list(&filter, page, limit).await?))
}

fn state(word: &str) -> Answered<RunState> {
    let found = RunState::ALL.into_iter().find(|state| state.name() == word);
    found.ok_or_else(|| {
        let known = RunState::ALL.map(RunState::name).join(", ");
        let detail = format!("`state`: {:?} is no state of a run", start(word));
        Problem::new(Code::BadRequest, detail).with_hint(format!("there are {known}")).into()
    })
}

/// Show a run
#[utoipa::path(
    get, path = "/v1/runs/{run}", tag = "runs", operation_id = "show_run", security(("viewer" = [])),
    params(RunPath),
    responses((status = 200, description = "The run, with its order and its progress", body = Run, content_type = "application/json"), Showing),
)]
pub(super) async fn show(_: Viewer, State(api): State<Api>, path: RunPath) -> Answered<Json<Run>> {
    Ok(Json(api.service.run(&path.run).await?))
}

/// Call a run off
///
/// One that is queued is cancelled at once; of one that is running the agent is told to stop, and the run is cancelled when it has.
#[utoipa::path(
    post, path = "/v1/runs/{run}/cancel", tag = "runs", operation_id = "cancel_run", security(("operator" = [])),
    params(RunPath),
    request_body(content = Option<Cancel>, content_type = "application/json"),
    responses((status = 200, description = "It is, or will be, cancelled", body = Run, content_type = "application/json"), Telling),
)]
pub(super) async fn cancel(
    Operator(who): Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(cancel): Strict<Cancel>,
) -> Answered<Json<Run>> {
    let reason = cancel.reason.filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| format!("called off by {}", who.name));
    Ok(Json(api.service.cancel(&path.run, &reason).await?))
}

/// Try a run again that has failed or was cancelled
#[utoipa::path(
    post, path = "/v1/runs/{run}/retry", tag = "runs", operation_id = "retry_run", security(("operator" = [])),
    params(RunPath),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses((status = 200, description = "It is queued again, with as many attempts as before", body = Run, content_type = "application/json"), Telling),
)]
pub(super) async fn retry(
    _: Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<Json<Run>> {
    Ok(Json(api.service.retry(&path.run).await?))
}

/// Vouch that the silent agent of a lost run is dead
///
/// The target is then given to the next attempt. If that agent lives after all, both write: look before you say so.
#[utoipa::path(
    post, path = "/v1/runs/{run}/confirm-death", tag = "runs", operation_id = "confirm_death", security(("operator" = [])),
    params(RunPath),
    request_body(content = ConfirmDeath, content_type = "application/json"),
    responses((status = 200, description = "The attempt is over", body = Run, content_type = "application/json"), Telling),
)]
pub(super) async fn confirm_death(
    _: Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(death): Strict<ConfirmDeath>,
) -> Answered<Json<Run>> {
    Ok(Json(api.service.confirm_death(&path.run, death.attempt).await?))
}

/// Revoke an attempt
///
/// From this moment on its enrolment token, its session token and its certificate are refused. One that has not enrolled is over; one that
/// runs is lost, as if it had gone silent: the service kills the agents that it has started itself, and of others it waits until its
/// successor shuts it out or a person vouches for its death.
#[utoipa::path(
    post, path = "/v1/runs/{run}/revoke", tag = "runs", operation_id = "revoke_attempt", security(("operator" = [])),
    params(RunPath),
    request_body(content = Revoke, content_type = "application/json"),
    responses((status = 200, description = "It counts no more", body = Run, content_type = "application/json"), Telling),
)]
pub(super) async fn revoke(
    Operator(who): Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(revoke): Strict<Revoke>,
) -> Answered<Json<Run>> {
    let reason = revoke.reason.filter(|reason| !reason.is_empty());
    let reason = reason.map_or_else(|| format!("by {}", who.name), |reason| format!("by {}: {reason}", who.name));
    Ok(Json(api.service.revoke(&path.run, revoke.attempt, &reason).await?))
}

/// Have an enrolment token for a run whose agent somebody else starts
///
/// It is shown once, and makes all earlier ones of the attempt void.
#[utoipa::path(
    post, path = "/v1/runs/{run}/token", tag = "runs", operation_id = "enrolment_token", security(("operator" = [])),
    params(RunPath),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses((status = 200, description = "The token", body = EnrolmentToken, content_type = "application/json"), Telling),
)]
pub(super) async fn token(
    _: Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<Json<EnrolmentToken>> {
    Ok(Json(api.service.token(&path.run).await?))
}
