//! Who fetches what: the decisions, without any waiting.
//!
//! A chunk is *undelivered* from being planned until it is claimed and written. For every undelivered chunk there is a
//! request that waits, a flight that still has to pass it, or a frame in the workers' hands: whatever ends one of them
//! makes the next. Fetching a chunk twice is harmless, because it is claimed once; losing one is not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::{Admission, Health};
use super::patience::Patience;
use super::work::{Claim, Frame, Request};
use crate::decode::CorruptFrame;
use crate::error::{Error, Kind, Result, Retry};

/// So many times the tries without progress are the tries of a request in all.
const TRIES_WITH_PROGRESS: u32 = 4;

/// A request that a lane works on.
#[derive(Debug)]
struct Flight {
    request: Request,
    source: usize,
    since: Instant,
    /// The first chunk that has not been handed on.
    next: usize,
    /// The standing of its source when it began.
    epoch: u32,
    /// The lane that works on the same chunks.
    twin: Option<usize>,
    superseded: CancellationToken,
}

/// What a lane may do now.
#[derive(Debug)]
pub(super) enum Take {
    /// Fetch this, until the token is cancelled: then others have delivered it.
    Work(Request, CancellationToken),
    /// Ask again after a change, or at this time.
    Wait(Option<Instant>),
    /// Go home.
    Over,
}

/// What a failure comes to.
#[derive(Debug)]
pub(super) enum Failed {
    /// The request waits for its next try.
    Again,
    /// Nothing of it is needed any more, or its twin goes on.
    NotNeeded,
    /// The run cannot go on.
    Fatal(Error),
}

/// Requests, flights and sources.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) patience: Patience,
    pub(super) ready: VecDeque<Request>,
    pub(super) undelivered: usize,
    pub(super) all_planned: bool,
    pub(super) closed: bool,
    /// Frames that have come.
    pub(super) arrived: u64,
    flights: Vec<Option<Flight>>,
    sources: Vec<Health>,
    /// Whether two flights may ever have carried the same chunk.
    duplicated: bool,
    /// Chunks that came corrupted once, as (span, chunk), and from where.
    corrupted: HashMap<(usize, usize), usize>,
}

impl Board {
    pub(super) fn new(sources: Vec<Health>, patience: Patience) -> Self {
        Board {
            patience,
            sources,
            ready: VecDeque::new(),
            undelivered: 0,
            all_planned: false,
            closed: false,
            arrived: 0,
            flights: Vec::new(),
            duplicated: false,
            corrupted: HashMap::new(),
        }
    }

    pub(super) fn plan(&mut self, request: Request) {
        self.undelivered += request.chunks.len();
        self.ready.push_back(request);
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed || (self.all_planned && self.undelivered == 0)
    }

    /// What `lane` of `source` does next.
    pub(super) fn take(&mut self, lane: usize, source: usize, now: Instant) -> Take {
        if self.is_over() {
            return Take::Over;
        }
        match self.sources[source].admits(now) {
            Admission::Now => {}
            Admission::At(time) => return Take::Wait(Some(time)),
            Admission::AfterProbe | Admission::Never => return Take::Wait(None),
        }
        while let Some(mut request) = self.next_for(source) {
            if request.trim() {
                return self.take_off(lane, source, request, None, now);
            }
        }
        if self.all_planned { self.hedge(lane, source, now) } else { Take::Wait(None) }
    }

    /// The first request that a source can serve; one that it failed to serve last only when there is no other.
    fn next_for(&mut self, source: usize) -> Option<Request> {
        let mut able = self.ready.iter().enumerate().filter(|(_, request)| can_serve(source, request));
        let fresh = able.clone().find(|(_, request)| request.avoid != Some(source));
        let (at, _) = fresh.or_else(|| able.next())?;
        self.ready.remove(at)
    }

    fn take_off(
        &mut self,
        lane: usize,
        source: usize,
        mut request: Request,
        twin: Option<usize>,
        now: Instant,
    ) -> Take {
        request.since.get_or_insert(now);
        let superseded = CancellationToken::new();
        let flight = Flight {
            request: request.clone(),
            source,
            since: now,
            next: request.chunks.start,
            epoch: self.sources[source].begin(),
            twin,
            superseded: superseded.clone(),
        };
        if self.flights.len() <= lane {
            self.flights.resize_with(lane + 1, || None);
        }
        self.flights[lane] = Some(flight);
        Take::Work(request, superseded)
    }

    /// The last requests are made a second time, elsewhere: of those that an idle source would long have done, the oldest.
    fn hedge(&mut self, lane: usize, source: usize, now: Instant) -> Take {
        let corrupted = &self.corrupted;
        let by_us = |span: usize, chunk| corrupted.get(&(span, chunk)) == Some(&source);
        let spoiled = |rest: &Request| {
            !corrupted.is_empty() && rest.chunks.clone().any(|chunk| by_us(rest.span.plan.number, chunk))
        };
        let slow = self.flights.iter_mut().enumerate().filter_map(|(at, flight)| Some((at, flight.as_mut()?)));
        let slow = slow.filter(|(_, flight)| flight.twin.is_none() && flight.source != source);
        let Some((other, flight)) = slow
            .filter(|(_, flight)| flight.rest().is_some_and(|rest| can_serve(source, &rest) && !spoiled(&rest)))
            .min_by_key(|(_, flight)| flight.request.since)
        else {
            return Take::Wait(None);
        };
        let bytes = flight.request.bytes();
        let expected = self.sources[source].expected(bytes.end - bytes.start).saturating_mul(2);
        let since = flight.request.since.unwrap_or(now);
        let due = since.checked_add(expected.max(self.patience.hedge_after)).unwrap_or(now);
        if now < due {
            return Take::Wait(Some(due));
        }
        let Some(request) = flight.rest() else { return Take::Wait(None) };
        flight.twin = Some(lane);
        tracing::debug!(source = self.sources[source].name(), chunks = ?request.chunks, "one of the last requests again");
        self.duplicated = true;
        self.take_off(lane, source, request, Some(other), now)
    }

    /// A whole frame of `bytes` came, or one that others had delivered was passed over. Whether a source came back.
    pub(super) fn arrived(&mut self, lane: usize, bytes: u64) -> bool {
        self.arrived += 1;
        let Some(flight) = self.flights[lane].as_mut() else { return false };
        flight.next += 1;
        self.sources[flight.source].delivered(flight.epoch, bytes)
    }

    /// A flight got to its end.
    pub(super) fn landed(&mut self, lane: usize, now: Instant) {
        let Some(flight) = self.end_flight(lane) else { return };
        let bytes = flight.request.bytes();
        self.sources[flight.source].took(bytes.end - bytes.start, now - flight.since);
    }

    /// A flight was ended because others had delivered its chunks.
    pub(super) fn superseded(&mut self, lane: usize) {
        if let Some(flight) = self.end_flight(lane) {
            self.sources[flight.source].let_go(flight.epoch);
        }
    }

    /// A flight failed.
    pub(super) fn failed(&mut self, lane: usize, error: Error, now: Instant) -> Failed {
        let Some(flight) = self.end_flight(lane) else { return Failed::NotNeeded };
        let Some(rest) = flight.rest() else {
            tracing::debug!(%error, "after the last byte");
            self.sources[flight.source].let_go(flight.epoch);
            return Failed::NotNeeded;
        };
        if error.kind() != Kind::Source {
            return Failed::Fatal(error);
        }
        self.sources[flight.source].failed(flight.epoch, &error, now, &self.patience);
        let Some(twin) = flight.twin.and_then(|twin| self.flights[twin].as_mut()) else {
            return self.again(flight.source, rest, error);
        };
        twin.request.failed_at(flight.source, error.retry());
        Failed::NotNeeded
    }

    fn again(&mut self, source: usize, mut request: Request, error: Error) -> Failed {
        request.failed_at(source, error.retry());
        if self.is_hopeless(&request) {
            if request.corrupt_at.take().is_none() {
                return Failed::Fatal(self.nobody(error));
            }
            request.refused.clear();
        }
        self.ready.push_front(request);
        Failed::Again
    }

    /// Whether nobody is left to ask for a request, or it was asked for often enough.
    fn is_hopeless(&self, request: &Request) -> bool {
        let tries = self.patience.max_tries.max(1);
        let able: Vec<_> = self.able(request).collect();
        let in_all = tries.saturating_mul(TRIES_WITH_PROGRESS).saturating_mul(able.len() as u32);
        request.failures >= in_all || able.iter().all(|source| self.sources[*source].failures() >= tries)
    }

    /// The sources that may have what a request wants, now or later.
    fn able<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = usize> + 'a {
        let may = move |source: &usize| !self.sources[*source].is_left_for_good() && can_serve(*source, request);
        (0..self.sources.len()).filter(may)
    }

    /// The chunk of a claim is on its way to the target: whoever still fetches nothing but delivered chunks may stop.
    pub(super) fn delivered(&mut self, claim: &Claim) {
        self.undelivered -= 1;
        if !self.duplicated {
            return;
        }
        let same = |flight: &&Flight| {
            Arc::ptr_eq(&flight.request.span, &claim.span) && flight.next < flight.request.chunks.end
        };
        for flight in self.flights.iter().flatten().filter(same) {
            if flight.rest().is_none() {
                flight.superseded.cancel();
            }
        }
    }

    /// A frame is not what it should be. Its chunk is fetched once more, elsewhere if there is an elsewhere; whether it is.
    pub(super) fn corrupt(&mut self, frame: &Frame, why: CorruptFrame) -> Result<bool> {
        let name = frame.span.plan.chunk_name(frame.chunk);
        let source = self.sources[frame.source].name().to_owned();
        self.sources[frame.source].sent_corrupt(&format!("{name} from {source} came corrupted: {why}"));
        let key = (frame.span.plan.number, frame.chunk);
        let before = self.corrupted.get(&key).copied();
        if let Some(before) = before.filter(|before| frame.second_try || *before != frame.source)
            && !frame.is_late()
        {
            let error = why.into_error(&format!("{name} from {source}"));
            return Err(error.in_addition(&format!("it came corrupted from {} before", self.sources[before].name())));
        }
        tracing::warn!(source, "{name} came corrupted: {why}; it is fetched once more where no other copy is right");
        self.leave_if_untrustworthy(frame.source);
        if before.is_some() || frame.is_late() {
            return Ok(false);
        }
        self.corrupted.insert(key, frame.source);
        let mut request = Request::new(Arc::clone(&frame.span), frame.chunk..frame.chunk + 1);
        let elsewhere = self.able(&request).any(|other| other != frame.source);
        request.corrupt_at = elsewhere.then_some(frame.source);
        request.second_try = true;
        self.duplicated = true;
        self.ready.push_front(request);
        Ok(true)
    }

    fn leave_if_untrustworthy(&mut self, source: usize) {
        let other = |(other, health): (usize, &Health)| other != source && health.is_in_service();
        if !self.sources[source].is_untrustworthy() || !self.sources.iter().enumerate().any(other) {
            return;
        }
        self.sources[source].leave_for_good();
        // Who waits for nobody else any more asks once more those who refused.
        for at in 0..self.ready.len() {
            if self.able(&self.ready[at]).next().is_none() {
                self.ready[at].refused.clear();
                self.ready[at].corrupt_at = None;
            }
        }
    }

    fn end_flight(&mut self, lane: usize) -> Option<Flight> {
        let flight = self.flights.get_mut(lane)?.take()?;
        if let Some(twin) = flight.twin.and_then(|twin| self.flights[twin].as_mut()) {
            twin.twin = None;
        }
        Some(flight)
    }

    /// The error for when no source is left, because of the last one's `error`.
    fn nobody(&self, error: Error) -> Error {
        if self.sources.len() == 1 {
            return error;
        }
        let (words, retry) = self.last_words();
        let hint = error.hint().unwrap_or("run again when one of them is back").to_owned();
        let error = Error::new(Kind::Source, format!("every source failed: {words}")).with_source(error);
        error.with_retry(retry).with_hint(hint)
    }

    /// The error for when nothing came for `time`.
    pub(super) fn silence(&self, time: Duration) -> Error {
        let (words, _) = self.last_words();
        Error::source_failed(format!("no chunk came from any source for {:.0} s: {words}", time.as_secs_f64()))
            .with_hint("look at the servers and at what lies between, then run again")
    }

    /// What every source said last, and what trying again can do about it.
    fn last_words(&self) -> (String, Retry) {
        let (words, retries): (Vec<_>, Vec<_>) = self.sources.iter().map(Health::last_word).unzip();
        let passing =
            retries.iter().any(|retry| *retry != Some(Retry::OtherSource) && *retry != Some(Retry::Permanent));
        (words.join("; "), if passing { Retry::Temporary } else { Retry::OtherSource })
    }

    /// What came from each source, in bytes of whole frames.
    pub(super) fn shares(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sources.iter().map(|source| (source.name(), source.bytes))
    }
}

impl Flight {
    /// What it has not handed on and nobody has delivered.
    fn rest(&self) -> Option<Request> {
        let mut rest = self.request.clone();
        rest.chunks.start = self.next;
        rest.trim().then_some(rest)
    }
}

fn can_serve(source: usize, request: &Request) -> bool {
    !request.refused.contains(&source) && request.corrupt_at != Some(source)
}
