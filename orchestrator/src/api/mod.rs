//! The service over HTTP: what strangers may say, within which limits, and how they are answered.
//!
//! A request goes this way: `serve` (a connection and what it may cost) → `purse` (who pays, and how often they may ask) → `caller` and
//! `session` (who it is, and whether it may) → `path`, `body` (what it says) → a handler in `runs`, `agent` or `watch` → the engine. Whatever
//! goes wrong on the way is answered with a problem document. A path that is served stands in the OpenAPI document, for both are made by one
//! call; the page's files, which `page` has, do not.

mod activity;
mod agent;
mod answer;
mod body;
mod caller;
mod connection;
mod fleet;
mod keys;
mod limits;
mod metrics;
mod openapi;
mod path;
mod places;
mod problem;
mod purse;
mod runs;
mod seldom;
mod serve;
mod service;
mod session;
mod shares;
mod stall;
mod tail;
mod watch;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::control::problem::{Code, Problem};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use limits::{Limits, Rate};
pub use openapi::document;
pub use serve::{Tls, serve};
pub use service::{Answer, Changes, Service};

use crate::identity::{People, SessionKey, Shown, Who};
use crate::metrics::Metrics;
use caller::{Caller, Peer};
use limits::Pace;
use problem::Refusal;
use purse::Purse;
use shares::Shares;

/// What the API must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The people that it knows.
    pub people: Arc<People>,
    /// What the enrolment tokens of its agents are known by.
    pub tokens: SessionKey,
    /// What one caller may cost.
    pub limits: Limits,
    /// Tells that the service ends: watchers are let go.
    pub drain: CancellationToken,
    /// Where what is answered is counted.
    pub metrics: Metrics,
}

/// What handlers share.
#[derive(Clone)]
struct Api(Arc<Shared>);

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

struct Shared {
    service: Arc<dyn Service>,
    people: Arc<People>,
    tokens: SessionKey,
    limits: Limits,
    drain: CancellationToken,
    metrics: Metrics,
    purses: Pace<Purse>,
    callers: Pace<Caller>,
    persons: Pace<Caller>,
    watchers: Shares<Who>,
    /// Bytes of large answers that were not taken yet.
    answers: Shares<Purse>,
    /// How many have ever watched all runs.
    watched: AtomicUsize,
    fleet: fleet::Looks,
    tail: tail::Tail,
    document: Bytes,
}

/// The API on this engine, for [`serve`].
pub fn router(service: Arc<dyn Service>, settings: Settings) -> Router {
    let (router, document) = routes().split_for_parts();
    let limits = settings.limits;
    let api = Api(Arc::new(Shared {
        service,
        people: settings.people,
        tokens: settings.tokens,
        drain: settings.drain,
        metrics: settings.metrics,
        purses: Pace::new(limits.per_peer),
        callers: Pace::new(limits.per_caller),
        persons: Pace::new(limits.per_person),
        watchers: Shares::new(limits.watchers),
        answers: Shares::new(limits.answers),
        watched: AtomicUsize::default(),
        fleet: fleet::Looks::new(limits.progress),
        tail: tail::Tail::default(),
        // It is made of texts, numbers and lists: nothing of it can fail to be written.
        document: serde_json::to_vec(&openapi::finished(document)).unwrap_or_default().into(),
        limits,
    }));
    router
        .merge(crate::page::routes())
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

/// Puts into a request what its connection has shown in TLS. For tests, which have no TLS: [`serve`] does it otherwise.
pub fn show(request: &mut Request, shown: Shown) {
    request.extensions_mut().insert(caller::Certificate(Arc::new(shown)));
}

/// Every path, with its handler and its description.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(runs::create, runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::retry))
        .routes(routes!(runs::confirm_death))
        .routes(routes!(runs::revoke))
        .routes(routes!(runs::token))
        .routes(routes!(keys::show, keys::destroy))
        .routes(routes!(watch::of_run))
        .routes(routes!(watch::of_all))
        .routes(routes!(session::begin, session::show, session::end))
        .routes(routes!(agent::enrol))
        .routes(routes!(agent::report))
        .routes(routes!(agent::renew))
        .routes(routes!(agent::release_key))
        .routes(routes!(metrics::show))
        .routes(routes!(openapi::show))
        .routes(routes!(openapi::lives))
        .routes(routes!(openapi::ready))
}

/// What every request goes through, in one layer, for each layer takes its time: whoever pays for it is counted; it is answered in time,
/// and also where a handler has a defect; what was answered is counted and logged, and says what it is to caches and browsers.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("-", MatchedPath::as_str);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (purse, request) = purse::of(&api, request);
    let mut response = match purse::pace(&api, &purse) {
        Ok(()) => {
            let answer = problem::no_panic(&method, &uri, answer_in_time(&api.limits, next.run(request))).await;
            purse::hold(&api, purse, &method, answer)
        }
        Err(refusal) => refusal.into_response(),
    };
    let status = response.status().as_u16();
    api.metrics.answered(method.as_str(), path, status, began.elapsed());
    tracing::debug!(?peer, %method, path, status, milliseconds = began.elapsed().as_millis(), "answered");
    let headers = response.headers_mut();
    // Answers have tokens in them, and what a run is now it is not in a minute. The page's files say themselves what holds for them.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Bounds a request, from its head to the head of its answer.
async fn answer_in_time(limits: &Limits, answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(limits.body + limits.answer, answer).await.unwrap_or_else(|_| {
        let problem =
            Problem::new(Code::Unavailable, "the service has not answered in time; whether this was done is not known")
                .with_hint("ask again; a run is not created twice when the header `Idempotency-Key` is the same")
                .retry_after(5);
        Refusal::from(problem).into_response()
    })
}
