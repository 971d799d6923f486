//! Keys of disks, for their owners.

use axum::Json;
use axum::extract::State;
use protocol::control::key::ShownKey;
use protocol::control::run::{Nothing, Run};

use super::Api;
use super::body::Strict;
use super::caller::Operator;
use super::openapi::{Destroying, Unlocking};
use super::path::RunPath;
use super::problem::Answered;

/// Be shown the key that unlocks a run's disk
///
/// It is shown once. An answer that was lost is not given again: destroy the key then, and install anew.
#[utoipa::path(
    post, path = "/v1/runs/{run}/key", tag = "runs", operation_id = "show_key", security(("operator" = [])),
    params(RunPath),
    request_body(content = Option<Nothing>, content_type = "application/json"),
    responses((status = 200, description = "The key", body = ShownKey, content_type = "application/json"), Unlocking),
)]
pub(super) async fn show(
    Operator(who): Operator,
    State(api): State<Api>,
    path: RunPath,
    Strict(Nothing {}): Strict<Nothing>,
) -> Answered<Json<ShownKey>> {
    Ok(Json(api.service.show_key(&path.run, &who.name).await?))
}

/// Destroy the key of a run's disk
///
/// The service forgets it; what is on the disk is as it was, and whoever was shown the key can open it. Of a run that is under way the key
/// goes when the run is cancelled.
#[utoipa::path(
    delete, path = "/v1/runs/{run}/key", tag = "runs", operation_id = "destroy_key", security(("operator" = [])),
    params(RunPath),
    responses((status = 200, description = "It is gone", body = Run, content_type = "application/json"), Destroying),
)]
pub(super) async fn destroy(Operator(who): Operator, State(api): State<Api>, path: RunPath) -> Answered<Json<Run>> {
    Ok(Json(api.service.destroy_key(&path.run, &who.name).await?))
}
