//! How far all runs are, for all who watch all of them. It is looked at once in a while and written down once, and each watcher is sent
//! the same bytes, at a moment of its own: many megabytes at once would make everybody else wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use protocol::control::run::{Fleet, Glance};
use tokio::time::Instant;

use super::service::Service;
use super::watch::write_event;

/// Most runs of one event: a reader has a limit for the size of one.
const RUNS: usize = 2048;
/// Into how many moments the time between two looks is divided.
const MOMENTS: u32 = 64;

/// What all watchers share.
pub(super) struct Looks {
    began: Instant,
    every: Duration,
    last: Mutex<Last>,
}

/// The last look.
#[derive(Default)]
struct Last {
    /// When it was, counted in looks from the beginning.
    turn: u64,
    /// What the service calls it.
    name: u64,
    /// It was the next after the one with the number before its own. Looks that nobody was there for have none.
    number: u64,
    /// The runs that got on since the one before.
    news: Vec<Bytes>,
    /// All that are running, where somebody has asked.
    whole: Option<Vec<Bytes>>,
}

/// Where a watcher is.
pub(super) struct Place {
    moment: u32,
    seen: Option<u64>,
}

impl Place {
    /// The place of the watcher with this number, which has seen nothing.
    pub(super) fn of(number: usize) -> Self {
        let moment = u32::try_from(number % MOMENTS as usize).unwrap_or_default();
        // Neighbours in number are far apart in time: a few watchers are spread as well as many.
        Place { moment: moment.reverse_bits() >> (u32::BITS - MOMENTS.ilog2()), seen: None }
    }
}

impl Looks {
    pub(super) fn new(every: Duration) -> Self {
        Looks { began: Instant::now(), every, last: Mutex::default() }
    }

    fn turn(&self, at: Instant) -> u64 {
        let every = self.every.as_nanos().max(1);
        u64::try_from(at.duration_since(self.began).as_nanos() / every).unwrap_or(u64::MAX) + 1
    }

    /// When a watcher should look again.
    pub(super) fn next(&self, place: &Place, now: Instant) -> Instant {
        let turns = u32::try_from(self.turn(now)).unwrap_or(u32::MAX);
        let begin = self.began + self.every.saturating_mul(turns);
        begin + self.every * place.moment / MOMENTS
    }

    /// What a watcher has not seen yet.
    pub(super) fn look(&self, service: &dyn Service, place: &mut Place, now: Instant) -> Vec<Bytes> {
        let turn = self.turn(now);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.turn != turn {
            let is_next = last.turn + 1 == turn;
            let (name, news) = service.fleet(last.name);
            // After a pause nobody knows the look before: the news of all the time since are for nobody.
            let news = if is_next { written(news) } else { Vec::new() };
            *last = Last { turn, name, number: last.number + if is_next { 1 } else { 2 }, news, whole: None };
        }
        let before = place.seen.replace(last.number);
        if before == Some(last.number) {
            return Vec::new();
        }
        if before.is_some_and(|before| before + 1 == last.number) {
            return last.news.clone();
        }
        // Whatever gets on after the look stands in the next news, also where it stands in the whole already.
        last.whole.get_or_insert_with(|| written(service.fleet(0).1)).clone()
    }
}

/// As events, none where there are no runs.
fn written(mut glances: Vec<Glance>) -> Vec<Bytes> {
    let mut events = Vec::new();
    while !glances.is_empty() {
        let rest = glances.split_off(glances.len().min(RUNS));
        let mut text = String::with_capacity(glances.len() * 192);
        write_event(&mut text, "fleet", None, &Fleet { runs: std::mem::replace(&mut glances, rest) });
        events.push(text.into());
    }
    events
}
