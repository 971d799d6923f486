//! How the service refuses: every answer that is no success is a problem document, whoever refuses, and whatever went wrong.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use protocol::control::problem::{Code, MEDIA_TYPE, Problem};

use super::seldom::Seldom;

/// A store that does not answer is told whoever asks, however often they do: `/readyz` is open to all.
static SAID: Seldom = Seldom::new();

/// A problem as an answer.
#[derive(Debug)]
pub struct Refusal(Box<Problem>);

/// What a handler answers.
pub type Answered<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal of this kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let times = status.is_server_error().then(|| SAID.happened()).flatten();
        if let Some(times) = times {
            tracing::warn!(code = problem.code.name(), detail = problem.detail, times, "answered with a problem");
        }
        // Nothing in a problem can fail to be written: it has texts and numbers only.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = problem.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// For a path that nobody serves.
pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Problem::new(Code::NotFound, format!("there is nothing at {}", start(uri.path())))
        .with_hint("what there is stands in /openapi.json")
        .into()
}

/// For a method that a path does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Problem::new(
        Code::MethodNotAllowed,
        format!("{} cannot be asked with {}", start(uri.path()), start(method.as_str())),
    )
    .with_hint("the header Allow names the methods it has")
    .into()
}

/// Of a text from outside, as much as belongs in a message.
pub(super) fn start(text: &str) -> String {
    crate::text::printable(text).chars().take(120).collect()
}

/// Makes a problem of a panic: whoever asked is told, and nobody else notices.
pub(super) async fn no_panic(method: &Method, uri: &Uri, answer: impl Future<Output = Response>) -> Response {
    let answer = std::panic::AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let what = format!("{method} {}", start(uri.path()));
        tracing::error!(request = what, "a defect of this service: it panicked");
        let detail = format!("{what}: the service has a defect and does not know whether this was done");
        Refusal::from(Problem::new(Code::Internal, detail).with_hint("its log says more; please report it"))
            .into_response()
    })
}
