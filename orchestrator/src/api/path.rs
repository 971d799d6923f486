//! What a path and what stands behind its `?` name. A text that breaks its rule is refused with that rule.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use protocol::RunId;
use protocol::control::problem::Code;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::Api;
use super::problem::{Answered, Refusal};

/// `{run}` of a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RunPath {
    /// The run
    pub(super) run: RunId,
}

/// `{run}` and `{attempt}` of a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AttemptPath {
    /// The run
    pub(super) run: RunId,
    /// The attempt
    #[param(minimum = 1)]
    pub(super) attempt: u32,
}

async fn path<T: DeserializeOwned + Send>(parts: &mut Parts, api: &Api) -> Answered<T> {
    let Path(path) = Path::from_request_parts(parts, api)
        .await
        .map_err(|rejection| Refusal::new(Code::BadRequest, format!("the path: {}", rejection.body_text())))?;
    Ok(path)
}

impl FromRequestParts<Api> for RunPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        path(parts, api).await
    }
}

impl FromRequestParts<Api> for AttemptPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        path(parts, api).await
    }
}

/// What stands behind `?`; a key that is unknown or doubled is refused.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Answered<Self> {
        let Query(asked) = Query::from_request_parts(parts, api)
            .await
            .map_err(|rejection| Refusal::new(Code::BadRequest, format!("the query: {}", rejection.body_text())))?;
        Ok(Asked(asked))
    }
}
