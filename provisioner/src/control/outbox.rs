//! What is still to be told to the service: events wait here until it says that it has them.
//!
//! What must arrive stays, in memory of bounded size: beyond that, warnings, retries and changes of paths are counted instead of kept.
//! Phases, steps and the end of a run always fit; there are only so many of them. Of progress only the latest is kept, and nothing once
//! another step has begun.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use protocol::control::agent::MAX_EVENTS;
use protocol::event::{Body, Event, Failure, Priority, Proof, Summary, TornDown};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::report::Output;

/// Most events that wait, and most bytes of them.
const MOST: usize = 4096;
const MOST_BYTES: usize = 4 << 20;
/// Bytes of one report.
const BATCH_BYTES: usize = 512 << 10;
/// What a report has around its events.
const AROUND: usize = 64;
/// How often progress is told, where the service does not say, and the bounds of what it may say.
const PACE: Duration = Duration::from_millis(1000);
const PACES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];
/// Characters of a message that has to be short.
const SHORT: usize = 1000;

/// Keeps events for the service. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// What must arrive, by index.
    high: VecDeque<Entry>,
    bytes: usize,
    progress: Option<Event>,
    left_out: Option<LeftOut>,
    /// The index of the last event, once there is one.
    last: Option<u64>,
    /// Every index below was sent at least once.
    sent: u64,
    pace: Duration,
    trouble: String,
}

impl Default for State {
    fn default() -> Self {
        State {
            high: VecDeque::new(),
            bytes: 0,
            progress: None,
            left_out: None,
            last: None,
            sent: 0,
            pace: PACE,
            trouble: "it was not sent yet".into(),
        }
    }
}

/// An event as it is sent.
#[derive(Debug)]
struct Entry {
    index: u64,
    json: String,
    /// It stands for one that the service did not take.
    replaced: bool,
}

/// Events that were not kept: how many, and the envelope of the last.
#[derive(Debug)]
struct LeftOut {
    count: u64,
    last: Event,
}

/// A report to be sent.
#[derive(Debug)]
pub(super) struct Batch {
    /// As JSON.
    pub(super) body: Bytes,
    /// How many events it has.
    pub(super) count: usize,
    /// The highest index in it.
    pub(super) last: u64,
}

/// What became of an event that the service did not take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// Another stands in its place, or none does.
    GoOn,
    /// It was the last of the run, as short as it can be.
    Hopeless,
}

impl Output for Outbox {
    fn tell(&mut self, event: &Event) {
        self.lock().keep(event);
        self.0.changed.notify_one();
    }
}

impl Outbox {
    /// Waits until there is something to send: at once what must arrive, progress when the last report is long enough ago.
    pub(super) async fn due(&self, since: Instant) {
        loop {
            let changed = self.0.changed.notified();
            let (must, may, pace) = {
                let state = self.lock();
                (!state.high.is_empty(), state.progress.is_some(), state.pace)
            };
            if must || (may && since.elapsed() >= pace) {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(since + pace), if may => {}
            }
        }
    }

    /// The next report, of at most `most` events. None where there is nothing to say.
    pub(super) fn batch(&self, most: usize) -> Option<Batch> {
        self.lock().batch(most.clamp(1, MAX_EVENTS))
    }

    /// The service has answered a report: it has what lies below `next`. Whether that takes anything off us.
    pub(super) fn answered(&self, batch: &Batch, next: u64) -> bool {
        self.lock().answered(batch, next)
    }

    /// The service does not take this event, sent alone.
    pub(super) fn refused(&self, index: u64) -> Fallback {
        self.lock().refused(index)
    }

    /// How often progress is to be told.
    pub(super) fn set_pace(&self, pace: Duration) {
        self.lock().pace = pace.clamp(PACES[0], PACES[1]);
    }

    /// Whether the run has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().last.is_some()
    }

    /// Whether the service has the end of the run.
    pub(super) fn is_accepted(&self) -> bool {
        let state = self.lock();
        state.last.is_some_and(|last| state.high.iter().all(|entry| entry.index != last))
    }

    /// Why the last report was not taken.
    pub(super) fn set_trouble(&self, why: String) {
        self.lock().trouble = why;
    }

    /// Why the last report was not taken.
    pub(super) fn trouble(&self) -> String {
        self.lock().trouble.clone()
    }

    // It is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, event: &Event) {
        if event.event.priority() == Priority::Low {
            self.progress = Some(event.clone());
            return;
        }
        if !matches!(event.event, Body::Warning { .. } | Body::Retry { .. } | Body::PathChanged(_)) {
            self.progress = None;
        }
        let json = json(event);
        if may_be_left_out(&event.event) && !self.has_room(json.len()) {
            let count = self.left_out.as_ref().map_or(0, |left_out| left_out.count) + 1;
            let last = Event { event: Body::Warning { message: String::new() }, ..event.clone() };
            self.left_out = Some(LeftOut { count, last });
            return;
        }
        if event.event.is_terminal() {
            self.last = Some(event.index);
            self.tell_left_out();
        }
        self.push(Entry { index: event.index, json, replaced: false });
    }

    fn has_room(&self, len: usize) -> bool {
        self.high.len() < MOST && self.bytes + len <= MOST_BYTES && len + AROUND <= BATCH_BYTES
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.json.len();
        let at = self.high.partition_point(|other| other.index < entry.index);
        self.high.insert(at, entry);
    }

    /// Puts one warning in the place of those that were left out.
    fn tell_left_out(&mut self) {
        if let Some(LeftOut { count, mut last }) = self.left_out.take() {
            let events = if count == 1 { "warning was" } else { "warnings were" };
            last.event =
                Body::Warning { message: format!("{count} {events} left out: the service did not take them in time") };
            self.push(Entry { index: last.index, json: json(&last), replaced: false });
        }
    }

    fn batch(&mut self, most: usize) -> Option<Batch> {
        // One at a time, or a flood of them would fill what is bounded.
        if self.left_out.is_some() && self.has_room(SHORT) {
            self.tell_left_out();
        }
        let progress = self.progress.as_ref().map(|event| (event.index, json(event)));
        let mut told: Vec<(u64, &str)> = self.high.iter().take(most).map(|entry| (entry.index, &*entry.json)).collect();
        if let Some((index, json)) = &progress {
            told.insert(told.partition_point(|(other, _)| other < index), (*index, json));
        }
        told.truncate(most);
        let mut body = String::from(r#"{"events":["#);
        let (mut count, mut last) = (0, 0);
        for (index, json) in told {
            if count > 0 && body.len() + json.len() + AROUND > BATCH_BYTES {
                break;
            }
            if count > 0 {
                body.push(',');
            }
            body.push_str(json);
            (count, last) = (count + 1, index);
        }
        body.push_str("]}");
        (count > 0).then(|| Batch { body: body.into(), count, last })
    }

    fn answered(&mut self, batch: &Batch, next: u64) -> bool {
        self.sent = self.sent.max(batch.last + 1);
        // What was never sent cannot have arrived.
        let next = next.min(self.sent);
        let before = self.high.len();
        while self.high.front().is_some_and(|entry| entry.index < next) {
            self.bytes -= self.high.pop_front().map_or(0, |entry| entry.json.len());
        }
        // Whether or not it has arrived, a later one will replace it.
        let told = self.progress.take_if(|progress| progress.index <= batch.last).is_some();
        self.high.len() < before || (told && self.high.is_empty())
    }

    fn refused(&mut self, index: u64) -> Fallback {
        self.progress.take_if(|progress| progress.index == index);
        let Ok(at) = self.high.binary_search_by_key(&index, |entry| entry.index) else { return Fallback::GoOn };
        let Some(entry) = self.high.remove(at) else { return Fallback::GoOn };
        self.bytes -= entry.json.len();
        let is_last = self.last == Some(index);
        let event = serde_json::from_str::<Event>(&entry.json).ok().filter(|_| !entry.replaced);
        match event {
            Some(event) => {
                let event = Event { event: in_place_of(event.event), ..event };
                self.push(Entry { index, json: json(&event), replaced: true });
                Fallback::GoOn
            }
            // It is kept, so that nobody takes it for accepted.
            None if is_last => {
                self.push(entry);
                Fallback::Hopeless
            }
            None => Fallback::GoOn,
        }
    }
}

fn may_be_left_out(body: &Body) -> bool {
    matches!(body, Body::Warning { .. } | Body::Retry { .. } | Body::PathChanged(_))
}

fn json(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

/// What is said instead of an event that the service does not take: of the end, the least that says it.
fn in_place_of(body: Body) -> Body {
    match body {
        Body::RunFinished(summary) => Body::RunFinished(Box::new(shortest(*summary))),
        Body::RunFailed(failure) => Body::RunFailed(Box::new(Failure {
            message: failure.message.chars().take(SHORT).collect(),
            hint: None,
            causes: Vec::new(),
            torn_down: TornDown::default(),
            ..*failure
        })),
        other => {
            let kind = serde_json::to_value(&other).ok().and_then(|value| value.get("kind").cloned());
            let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown");
            Body::Warning { message: format!("an event of kind {kind} was left out: the service did not take it") }
        }
    }
}

fn shortest(mut summary: Summary) -> Summary {
    summary.target.wiped.clear();
    summary.target.containers.clear();
    if let Proof::NotProven { reason } = &mut summary.proof {
        *reason = reason.chars().take(SHORT).collect();
    }
    Summary {
        gpt: None,
        partitions: None,
        ipsec: String::new(),
        fallback: None,
        phases: Vec::new(),
        torn_down: TornDown::default(),
        ipl: None,
        ..summary
    }
}

#[cfg(test)]
mod tests;
