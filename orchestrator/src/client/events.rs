//! What happens, as it happens. A stream that breaks is taken up again where it was; whoever listens is told that the service is away.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use protocol::RunId;
use protocol::control::run::{Fleet, Glance, Happening, RunProgress};
use tokio::time::{Instant, sleep_until, timeout};

use super::Client;
use super::backoff::Backoff;
use super::exchange::Request;
use super::sse::{MAX_EVENT, Message, Parser};
use crate::dial::Connection;
use crate::error::{Error, Result};

/// What is new.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Happened(Box<Happening>),
    /// An agent got on.
    Progress(Box<Glance>),
    /// The service is not reached. It is tried again by the next call.
    Away {
        /// Why.
        error: Error,
        /// How long that waits.
        again_in: Duration,
    },
    /// It is reached again, and nothing was missed but progress.
    Back,
}

/// A stream of news that does not end by itself.
pub struct Events {
    client: Client,
    run: Option<RunId>,
    open: Option<(Connection, Incoming)>,
    parser: Parser,
    last_id: Option<String>,
    ready: VecDeque<News>,
    backoff: Backoff,
    not_before: Instant,
    is_away: bool,
}

impl Events {
    pub(super) fn new(client: Client, run: Option<RunId>) -> Self {
        Events {
            client,
            run,
            open: None,
            parser: Parser::default(),
            last_id: None,
            ready: VecDeque::new(),
            backoff: Backoff::new(),
            not_before: Instant::now(),
            is_away: false,
        }
    }

    /// The next news. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// The service refuses, or answers what is no stream of events: asking again would not help.
    pub async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(news);
            }
            let error = match &mut self.open {
                None => {
                    sleep_until(self.not_before).await;
                    match self.connect().await {
                        Ok(()) if std::mem::take(&mut self.is_away) => return Ok(News::Back),
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Some((_, body)) => match timeout(self.client.times.silence, body.frame()).await {
                    Ok(Some(Ok(frame))) => {
                        if let Some(bytes) = frame.data_ref() {
                            self.take(bytes)?;
                        }
                        continue;
                    }
                    Ok(Some(Err(error))) => self.client.lost(&error).with_source(error),
                    Ok(None) => self.client.lost(&"it ended the stream of events"),
                    Err(_) => self.client.lost(&"nothing more came"),
                },
            };
            return self.lost(error);
        }
    }

    async fn connect(&mut self) -> Result<()> {
        let path = self.run.as_ref().map_or("v1/events".to_owned(), |run| format!("v1/runs/{run}/events"));
        let mut request = Request::new(Method::GET, &path).header(ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header(HeaderName::from_static("last-event-id"), id);
        }
        let within = self.client.times.answer;
        let asked = timeout(within, self.client.ask(request)).await;
        let (connection, answer) = asked.unwrap_or_else(|_| Err(self.client.lost(&"no answer came")))?;
        let kind = answer.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(Error::unavailable(format!("{} does not answer with events", self.client.url()))
                .with_hint("is it z-orchestrator that answers there?"));
        }
        self.parser = Parser::default();
        self.open = Some((connection, answer.into_body()));
        Ok(())
    }

    /// Reads bytes of the stream.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let messages = self.parser.push(bytes).map_err(|_| {
            Error::unavailable(format!("{} sent an event of more than {MAX_EVENT} bytes", self.client.url()))
        })?;
        if let Some(id) = self.parser.last_id() {
            // Whatever else it is, it must be fit for a header.
            self.last_id =
                Some(id.to_owned()).filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        if !messages.is_empty() {
            self.backoff = Backoff::new();
        }
        self.ready.extend(messages.iter().flat_map(news));
        Ok(())
    }

    fn lost(&mut self, error: Error) -> Result<News> {
        self.open = None;
        let Some(retry) = error.retry() else { return Err(error) };
        let again_in = self.backoff.next_wait().max(retry.after.unwrap_or_default().min(MAX_ASKED));
        self.not_before = Instant::now() + again_in;
        self.is_away = true;
        Ok(News::Away { error, again_in })
    }
}

/// Longest time that the service can ask to be left alone.
const MAX_ASKED: Duration = Duration::from_secs(60);

/// What a message says; nothing where it is of a newer service and not understood, or not for us.
fn news(message: &Message) -> Vec<News> {
    let data = &message.data;
    let news = match message.event.as_str() {
        "state" | "agent" | "key" => {
            serde_json::from_str(data).map(|happening| vec![News::Happened(Box::new(happening))])
        }
        "progress" => {
            serde_json::from_str(data).map(|RunProgress { run, progress }| vec![glance(Glance::of(run, &progress))])
        }
        "fleet" => serde_json::from_str(data).map(|Fleet { runs }| runs.into_iter().map(glance).collect()),
        _ => return Vec::new(),
    };
    news.inspect_err(|error| tracing::debug!(event = message.event, %error, "an event is not understood"))
        .unwrap_or_default()
}

fn glance(glance: Glance) -> News {
    News::Progress(Box::new(glance))
}
