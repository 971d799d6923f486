//! Those who watch: one run each, or all. They count what they get, and look whether anything is missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use super::agent::Story;
use super::wire::{Event, Events, Net, request};
use crate::failure::{Context, Failure, Result};

/// Before a stream is asked for again that was refused: there were too many requests at once.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: usize = 60;

/// What watchers get, all together.
#[derive(Default)]
pub struct Heard {
    /// Events of progress, by those who watch one run.
    pub progress: AtomicU64,
    /// Events `fleet`, and the runs in them.
    pub fleets: AtomicU64,
    /// The runs in those.
    pub glances: AtomicU64,
    /// Bytes of the largest of those.
    pub largest: AtomicU64,
    /// Bytes, by those who watch all.
    pub bytes: AtomicU64,
}

/// What happened, as far as it is compared.
#[derive(Deserialize)]
struct Happening {
    run: String,
    agent: Option<Told>,
    state: Option<State>,
}

#[derive(Deserialize)]
struct Told {
    index: u64,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

/// What was told of runs, by run.
#[derive(Default)]
pub struct History {
    runs: HashMap<String, Of>,
    succeeded: usize,
    last: Option<u64>,
    /// Ids that were passed over.
    gaps: u64,
}

#[derive(Default)]
struct Of {
    indices: Vec<u64>,
    state: String,
}

impl History {
    /// Takes note of an event with an id.
    fn take(&mut self, event: &Event<'_>, is_of_all: bool) -> Result<()> {
        let Happening { run, agent, state } = serde_json::from_str(event.data).context("what was told")?;
        let id = event.id.context("an event without an id")?;
        if is_of_all && self.last.is_some_and(|last| id != last + 1) {
            self.gaps += 1;
        }
        self.last = Some(id);
        let of = self.runs.entry(run).or_default();
        of.indices.extend(agent.map(|told| told.index));
        if let Some(State { state }) = state {
            self.succeeded += usize::from(state == "succeeded");
            of.state = state;
        }
        Ok(())
    }

    /// What is missing of these stories, or stands there twice or out of order, in words.
    pub fn losses(&self, stories: &[Story]) -> Vec<String> {
        let mut losses = Vec::new();
        if self.gaps > 0 {
            losses.push(format!("{} numbers were passed over", self.gaps));
        }
        for Story { run, taken } in stories {
            match self.runs.get(run) {
                None => losses.push(format!("run {run} was not told of")),
                Some(of) if of.indices != *taken => {
                    losses.push(format!("of run {run} events {:?} were told, and {taken:?} were taken", of.indices));
                }
                Some(of) if of.state != "succeeded" => losses.push(format!("run {run} is {}", of.state)),
                Some(_) => {}
            }
        }
        losses
    }
}

async fn open(net: &Net, token: &str, path: &str) -> Result<Events> {
    let text = request("GET", path, token, "accept: text/event-stream\r\n", None);
    let mut last = None;
    for _ in 0..TRIES {
        match net.connect().await?.events(&text).await {
            Ok(events) => return Ok(events),
            Err(error) => last = Some(error),
        }
        sleep(AGAIN).await;
    }
    Err(last.unwrap_or_else(|| Failure::new("no stream of events was opened")))
}

/// Watches one run until it has succeeded.
pub async fn of_one(net: Net, token: String, run: String, heard: Arc<Heard>) -> Result<History> {
    let mut events = open(&net, &token, &format!("/v1/runs/{run}/events")).await?;
    let mut history = History::default();
    while history.succeeded == 0 {
        let event = events.next().await?;
        match event.name {
            "progress" => drop(heard.progress.fetch_add(1, Ordering::Relaxed)),
            _ => history.take(&event, false)?,
        }
    }
    Ok(history)
}

/// Watches all runs, from a place on, until so many have succeeded.
pub async fn of_all(net: Net, token: String, after: Option<u64>, runs: usize, heard: Arc<Heard>) -> Result<History> {
    let path = after.map_or("/v1/events".to_owned(), |after| format!("/v1/events?after={after}"));
    let mut events = open(&net, &token, &path).await?;
    let mut history = History { last: after, ..History::default() };
    while history.succeeded < runs {
        let event = events.next().await?;
        if event.name == "fleet" {
            heard.fleets.fetch_add(1, Ordering::Relaxed);
            heard.glances.fetch_add(event.data.matches("{\"run\":").count() as u64, Ordering::Relaxed);
            heard.largest.fetch_max(event.size as u64, Ordering::Relaxed);
        } else {
            history.take(&event, true)?;
        }
        heard.bytes.fetch_add(std::mem::take(&mut events.bytes), Ordering::Relaxed);
    }
    Ok(history)
}
