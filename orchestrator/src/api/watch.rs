//! Watchers, by server-sent events.
//!
//! The database is the queue. A watcher keeps a place in it, reads from there a page at a time, and sends; so one that is slow costs one
//! page of memory, and nobody waits for it. Progress is not in the database: of that, each is told the latest, now and then.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use protocol::RunId;
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{RunProgress, What};
use protocol::event::Progress;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, interval_at, sleep_until};

use super::Api;
use super::caller::Viewer;
use super::openapi::{Showing, Watching};
use super::path::{Asked, RunPath};
use super::problem::{Answered, Refusal};
use super::service::Changes;
use crate::store::Told;

/// How much is read at once of what was told.
const PAGE: u32 = 256;
/// How much is sent at once, in bytes.
const PIECE: usize = 16 << 10;

/// From where on.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// Only what was told after this one, which an `id` named. The header `Last-Event-ID` goes before.
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// Watch a run
///
/// Server-sent events: `state` and `agent`, each with an `id` and a `Happening`, and `progress` without an `id`, with a `RunProgress`.
/// They begin with the run's history, or after `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/runs/{run}/events", tag = "events", operation_id = "watch_run", security(("viewer" = [])),
    params(
        ("run" = RunId, Path, description = "The run"),
        Since,
        ("Last-Event-ID" = Option<i64>, Header, description = "The `id` that came last", minimum = 0),
    ),
    responses((status = 200, description = "Events, until the client has had enough or the service ends", body = String, content_type = "text/event-stream"), Showing),
)]
pub(super) async fn of_run(
    _: Viewer,
    State(api): State<Api>,
    path: RunPath,
    Asked(since): Asked<Since>,
    headers: HeaderMap,
) -> Answered<Response> {
    // First of all: what happens from now on is not missed, wherever the reading begins.
    let changes = api.service.watch(Some(&path.run));
    api.service.run(&path.run).await?;
    let after = place(&api, &headers, &since).await?.unwrap_or(0);
    watch(api, Some(path.run), after, changes)
}

/// Watch all runs
///
/// As of one run; without `Last-Event-ID` they begin with what happens next.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "watch_all", security(("viewer" = [])),
    params(Since, ("Last-Event-ID" = Option<i64>, Header, description = "The `id` that came last", minimum = 0)),
    responses((status = 200, description = "Events, until the client has had enough or the service ends", body = String, content_type = "text/event-stream"), Watching),
)]
pub(super) async fn of_all(
    _: Viewer,
    State(api): State<Api>,
    Asked(since): Asked<Since>,
    headers: HeaderMap,
) -> Answered<Response> {
    let changes = api.service.watch(None);
    let after = match place(&api, &headers, &since).await? {
        Some(after) => after,
        None => api.service.last_told().await?,
    };
    watch(api, None, after, changes)
}

/// Where a client wants to go on.
async fn place(api: &Api, headers: &HeaderMap, since: &Since) -> Answered<Option<i64>> {
    let refuse = |detail: &str| {
        Refusal::from(
            Problem::new(Code::BadRequest, detail)
                .with_hint("give the `id` of an event that this service has sent, or nothing"),
        )
    };
    let header = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(-1));
    let Some(after) = header.or(since.after) else { return Ok(None) };
    if after < 0 {
        return Err(refuse("`Last-Event-ID` or `after` is no number from 0 on"));
    }
    // A place that was never given is one of another database: to wait for what comes after it would be to miss all until then.
    if after > api.service.last_told().await? {
        return Err(refuse("nothing with the number in `Last-Event-ID` or `after` was ever told here"));
    }
    Ok(Some(after))
}

fn watch(api: Api, run: Option<RunId>, after: i64, changes: Box<dyn Changes>) -> Answered<Response> {
    let permit = api.watchers.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{} watchers are as many as there may be at once", api.limits.watchers);
        Problem::new(Code::TooMany, detail).with_hint("close others").retry_after(10)
    })?;
    let (out, mut sent) = mpsc::channel::<Bytes>(1);
    let next = Instant::now();
    let watcher = Watcher { api, run, after, shown: HashMap::new(), next, out, _permit: permit };
    tokio::spawn(watcher.go(changes));
    let mut response = Response::new(Body::from_stream(poll_fn(move |cx| sent.poll_recv(cx)).map(Ok::<_, Infallible>)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

struct Watcher {
    api: Api,
    run: Option<RunId>,
    /// The place of what was sent last.
    after: i64,
    /// The progress that was sent last.
    shown: HashMap<RunId, Progress>,
    /// When progress may be sent again.
    next: Instant,
    out: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

/// Why a watcher is let go.
enum End {
    /// It is gone, or takes nothing.
    Gone,
    /// The service ends.
    Service,
    /// The store does not answer.
    Store,
}

impl Watcher {
    async fn go(mut self, changes: Box<dyn Changes>) {
        let word = match self.watch(changes).await {
            Err(End::Service) => ": the service ends\n\n",
            Err(End::Store) => ": what was told cannot be read now; come again\n\n",
            Ok(()) | Err(End::Gone) => return,
        };
        // Whether it takes that or not, it is let go.
        let _ = self.send(word.to_owned()).await;
    }

    async fn watch(&mut self, mut changes: Box<dyn Changes>) -> Result<(), End> {
        self.send("retry: 2000\n\n".to_owned()).await?;
        let mut comment = interval_at(Instant::now() + self.api.limits.comment, self.api.limits.comment);
        let drain = self.api.drain.clone();
        loop {
            self.tell().await?;
            // Kept over the comments in between, so that no change is lost with a future that is dropped.
            let mut changed = changes.changed();
            let mut owes = self.show_if_due().await?;
            loop {
                let (next, out) = (self.next, self.out.clone());
                tokio::select! {
                    biased;
                    () = drain.cancelled() => return Err(End::Service),
                    () = out.closed() => return Err(End::Gone),
                    change = &mut changed => match change {
                        Some(()) => break,
                        None => return Err(End::Service),
                    },
                    () = sleep_until(next), if owes => owes = self.show_if_due().await?,
                    _ = comment.tick() => self.send(":\n\n".to_owned()).await?,
                }
            }
        }
    }

    /// Sends what was told since.
    async fn tell(&mut self) -> Result<(), End> {
        loop {
            if self.api.drain.is_cancelled() {
                return Err(End::Service);
            }
            let told = self.api.service.told(self.after, self.run.as_ref(), PAGE).await.map_err(|_| End::Store)?;
            let is_last = told.len() < PAGE as usize;
            let mut text = String::new();
            for told in told {
                write_told(&mut text, &told);
                self.after = told.seq;
                if text.len() >= PIECE {
                    self.send(std::mem::take(&mut text)).await?;
                }
            }
            if !text.is_empty() {
                self.send(text).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Sends the progress that is new, unless it was sent only just now; then it owes that.
    async fn show_if_due(&mut self) -> Result<bool, End> {
        let now = Instant::now();
        if now < self.next {
            return Ok(true);
        }
        self.next = now + self.api.limits.progress;
        let latest = match &self.run {
            Some(run) => self.api.service.progress(run).map(|progress| (run.clone(), progress)).into_iter().collect(),
            None => self.api.service.all_progress(),
        };
        let mut text = String::new();
        let mut shown = HashMap::with_capacity(latest.len());
        for (run, progress) in latest {
            if self.shown.get(&run) != Some(&progress) {
                write_event(&mut text, "progress", None, &RunProgress { run: run.clone(), progress: progress.clone() });
            }
            shown.insert(run, progress);
        }
        self.shown = shown;
        if !text.is_empty() {
            self.send(text).await?;
        }
        Ok(false)
    }

    async fn send(&self, text: String) -> Result<(), End> {
        let sent = tokio::time::timeout(self.api.limits.stall, self.out.send(text.into())).await;
        sent.map_err(|_| End::Gone)?.map_err(|_| End::Gone)
    }
}

fn write_told(text: &mut String, told: &Told) {
    let name = match told.happening.what {
        What::State(_) => "state",
        What::Agent(_) => "agent",
    };
    write_event(text, name, Some(told.seq), &told.happening);
}

/// Adds an event. JSON has no line breaks, so one line of data is enough.
fn write_event(text: &mut String, name: &str, id: Option<i64>, data: &impl serde::Serialize) {
    let Ok(data) = serde_json::to_string(data) else { return };
    if let Some(id) = id {
        // Writing into a string does not fail.
        let _ = writeln!(text, "id: {id}");
    }
    let _ = writeln!(text, "event: {name}\ndata: {data}\n");
}
