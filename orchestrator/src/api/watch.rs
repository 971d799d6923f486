//! Watchers, by server-sent events.
//!
//! The database is the queue. A watcher keeps a place in it, reads from there a page at a time, and sends; so one that is slow costs one
//! page of memory, and nobody waits for it. Those of all runs read it together ([`super::tail`]). Progress is not in the database: of
//! that, each is told the latest, now and then; those of all runs at a glance ([`super::fleet`]).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

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
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until};

use super::Api;
use super::caller::Onlooker;
use super::fleet::Place;
use super::openapi::{Showing, Watching};
use super::path::{Asked, RunPath};
use super::problem::{Answered, Refusal, start};
use super::service::Changes;
use super::shares::Share;
use crate::identity::Who;
use crate::store::Told;

/// How much is read at once of what was told.
pub(super) const PAGE: u32 = 256;
/// How much is sent at once, in bytes.
pub(super) const PIECE: usize = 16 << 10;

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
/// Server-sent events: `state`, `agent` and `key`, each with an `id` and a `Happening`, and `progress` without an `id`, with a `RunProgress`.
/// They begin with the run's history, or after `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/runs/{run}/events", tag = "events", operation_id = "watch_run", security(("viewer" = [])),
    params(
        ("run" = RunId, Path, description = "The run"),
        Since,
        ("Last-Event-ID" = Option<i64>, Header, description = "The `id` that came last", minimum = 0),
    ),
    responses((status = 200, description = "Events, until the client has had enough, the run is removed or the service ends", body = String, content_type = "text/event-stream"), Showing),
)]
pub(super) async fn of_run(
    onlooker: Onlooker,
    State(api): State<Api>,
    path: RunPath,
    Asked(since): Asked<Since>,
    headers: HeaderMap,
) -> Answered<Response> {
    // First of all: what happens from now on is not missed, wherever the reading begins.
    let changes = api.service.watch(Some(&path.run));
    api.service.run(&path.run).await?;
    let after = place(&api, &headers, &since).await?.unwrap_or(0);
    let answer = watch(api.clone(), onlooker.who(), Some(path.run), after, changes)?;
    Ok(onlooker.bounds(&api, answer))
}

/// Watch all runs
///
/// Server-sent events: `state`, `agent` and `key` as of one run, and, at most once a second, `fleet` without an `id`, with a `Fleet`: how far runs
/// are that got on since the last time, and the first time all that are running; of very many, in several events. Without `Last-Event-ID`
/// they begin with what happens next.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "watch_all", security(("viewer" = [])),
    params(Since, ("Last-Event-ID" = Option<i64>, Header, description = "The `id` that came last", minimum = 0)),
    responses((status = 200, description = "Events, until the client has had enough or the service ends", body = String, content_type = "text/event-stream"), Watching),
)]
pub(super) async fn of_all(
    onlooker: Onlooker,
    State(api): State<Api>,
    Asked(since): Asked<Since>,
    headers: HeaderMap,
) -> Answered<Response> {
    let changes = api.service.watch(None);
    let after = match place(&api, &headers, &since).await? {
        Some(after) => after,
        None => api.service.last_told().await?,
    };
    let answer = watch(api.clone(), onlooker.who(), None, after, changes)?;
    Ok(onlooker.bounds(&api, answer))
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

fn watch(api: Api, who: &Who, run: Option<RunId>, after: i64, changes: Box<dyn Changes>) -> Answered<Response> {
    let share = api.watchers.take(who.clone(), 1).ok_or_else(|| {
        let detail = format!(
            "of {} watchers that there may be at once, {} has as many as it may have",
            api.limits.watchers,
            start(&who.name)
        );
        Problem::new(Code::TooMany, detail)
            .with_hint("close others of the same token or certificate, or raise `limits.watchers`")
            .retry_after(10)
    })?;
    let (out, mut sent) = mpsc::channel::<Bytes>(1);
    let of = match run {
        Some(run) => Of::One { run, shown: None },
        None => Of::All(Place::of(api.watched.fetch_add(1, Ordering::Relaxed))),
    };
    let now = Instant::now();
    let owes = true;
    let watcher =
        Watcher { api, of, after, heard: Some(now), tell_from: now, owes, show_from: now, out, _share: share };
    tokio::spawn(watcher.go(changes));
    let mut response = Response::new(Body::from_stream(poll_fn(move |cx| sent.poll_recv(cx)).map(Ok::<_, Infallible>)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// What is watched.
enum Of {
    /// One run, and the progress of it that was sent last.
    One { run: RunId, shown: Option<Progress> },
    /// All runs.
    All(Place),
}

struct Watcher {
    api: Api,
    of: Of,
    /// The place of what was sent last.
    after: i64,
    /// When something was told which is not sent yet, the latest of it.
    heard: Option<Instant>,
    /// When that may be sent.
    tell_from: Instant,
    /// Whether progress is to be sent.
    owes: bool,
    /// When that may be sent.
    show_from: Instant,
    out: mpsc::Sender<Bytes>,
    _share: Share<Who>,
}

/// Why a watcher is let go.
enum End {
    /// It is gone, or takes nothing.
    Gone,
    /// The service ends.
    Service,
    /// There is nothing more to hear of.
    Silence,
    /// The store does not answer.
    Store,
}

impl Watcher {
    async fn go(mut self, changes: Box<dyn Changes>) {
        let word = match self.watch(changes).await {
            Err(End::Service) => ": the service ends\n\n",
            Err(End::Silence) => ": the service ends, or keeps the run no longer\n\n",
            Err(End::Store) => ": what was told cannot be read now; come again\n\n",
            Ok(()) | Err(End::Gone) => return,
        };
        // Whether it takes that or not, it is let go.
        let _ = self.send(word).await;
    }

    async fn watch(&mut self, mut changes: Box<dyn Changes>) -> Result<(), End> {
        self.send("retry: 2000\n\n").await?;
        let mut comment = interval_at(Instant::now() + self.api.limits.comment, self.api.limits.comment);
        let (drain, out) = (self.api.drain.clone(), self.out.clone());
        loop {
            self.tell_if_due().await?;
            self.show_if_due().await?;
            tokio::select! {
                biased;
                () = drain.cancelled() => return Err(End::Service),
                () = out.closed() => return Err(End::Gone),
                // Whoever has heard of something and must wait before it is sent need not hear of more.
                fresh = changes.changed(), if self.heard.is_none() => {
                    let fresh = fresh.ok_or(End::Silence)?;
                    self.heard = fresh.told;
                    self.owes |= fresh.progress;
                }
                () = sleep_until(self.tell_from), if self.heard.is_some() => {}
                () = sleep_until(self.show_from), if self.owes => {}
                _ = comment.tick() => self.send(":\n\n").await?,
            }
        }
    }

    /// Sends what was told since, unless that was done only just now.
    async fn tell_if_due(&mut self) -> Result<(), End> {
        let Some(heard) = self.heard.take_if(|_| Instant::now() >= self.tell_from) else { return Ok(()) };
        while !self.tell(heard).await? {
            if self.api.drain.is_cancelled() {
                return Err(End::Service);
            }
        }
        // What happens to many runs is sent to those who watch them all in few pieces.
        if matches!(self.of, Of::All(_)) {
            self.tell_from = Instant::now() + self.api.limits.gather;
        }
        Ok(())
    }

    /// Sends a piece of it; whether that was all.
    async fn tell(&mut self, heard: Instant) -> Result<bool, End> {
        let api = self.api.clone();
        let run = match &self.of {
            Of::One { run, .. } => Some(run),
            Of::All(_) => {
                let piece = api.tail.after(&*api.service, self.after, heard).await.map_err(|_| End::Store)?;
                if let Some(piece) = piece {
                    self.after = piece.last;
                    if !piece.text.is_empty() {
                        self.send(piece.text).await?;
                    }
                    return Ok(piece.is_last);
                }
                None
            }
        };
        let told = api.service.told(self.after, run, PAGE).await.map_err(|_| End::Store)?;
        let is_last = told.len() < PAGE as usize && run.is_some();
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
        Ok(is_last)
    }

    /// Sends the progress that is new, unless it was sent only just now.
    async fn show_if_due(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if !self.owes || now < self.show_from {
            return Ok(());
        }
        match &mut self.of {
            Of::One { run, shown } => {
                (self.owes, self.show_from) = (false, now + self.api.limits.progress);
                let latest = self.api.service.progress(run);
                if let Some(progress) = latest.filter(|latest| shown.as_ref() != Some(latest)) {
                    *shown = Some(progress.clone());
                    let mut text = String::new();
                    write_event(&mut text, "progress", None, &RunProgress { run: run.clone(), progress });
                    self.send(text).await?;
                }
            }
            // Nobody says when runs get on: that is looked at.
            Of::All(place) => {
                self.show_from = self.api.fleet.next(place, now);
                for event in self.api.fleet.look(&*self.api.service, place, now) {
                    self.send(event).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, piece: impl Into<Bytes>) -> Result<(), End> {
        let sent = tokio::time::timeout(self.api.limits.stall, self.out.send(piece.into())).await;
        sent.map_err(|_| End::Gone)?.map_err(|_| End::Gone)
    }
}

/// Adds what was told, as an event.
pub(super) fn write_told(text: &mut String, told: &Told) {
    let name = match told.happening.what {
        What::State(_) => "state",
        What::Agent(_) => "agent",
        What::Key(_) => "key",
    };
    write_event(text, name, Some(told.seq), &told.happening);
}

/// Adds an event. JSON has no line breaks, so one line of data is enough.
pub(super) fn write_event(text: &mut String, name: &str, id: Option<i64>, data: &impl serde::Serialize) {
    let Ok(data) = serde_json::to_string(data) else { return };
    if let Some(id) = id {
        // Writing into a string does not fail.
        let _ = writeln!(text, "id: {id}");
    }
    let _ = writeln!(text, "event: {name}\ndata: {data}\n");
}
