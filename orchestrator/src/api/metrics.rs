//! What Prometheus asks for.

use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;

use super::Api;
use super::caller::Viewer;
use super::openapi::Watching;
use crate::metrics::{MEDIA_TYPE, Now};

/// Metrics, in the format of OpenMetrics
#[utoipa::path(
    get, path = "/metrics", tag = "service", operation_id = "metrics", security(("viewer" = [])),
    responses((status = 200, description = "Each is explained in docs/operating.md", body = String,
        content_type = "application/openmetrics-text"), Watching),
)]
pub(super) async fn show(_: Viewer, State(api): State<Api>) -> ([(HeaderName, &'static str); 1], String) {
    let watchers = api.watchers.taken();
    let store_up = api.service.ready().await.is_ok();
    let text = api.metrics.text(&api.service.tally(), Now { watchers, store_up });
    ([(CONTENT_TYPE, MEDIA_TYPE)], text)
}
