//! Counters of the data path → steps, progress, rates.

use std::collections::VecDeque;
use std::time::Duration;

use imgstream::progress::{Phase as Reached, Snapshot};
use protocol::event::{Body, Phase, Progress, Rates, Stage, Step};

/// Rates are means over this long: shorter jumps about, longer hides a stall.
const WINDOW: Duration = Duration::from_secs(3);

const STEPS: [(Reached, Step); 7] = [
    (Reached::Comparing, Step::Compare),
    (Reached::Invalidating, Step::Invalidate),
    (Reached::Writing, Step::Write),
    (Reached::ClearingTail, Step::ClearTail),
    (Reached::Flushing, Step::Flush),
    (Reached::ReadingBack, Step::ReadBack),
    (Reached::Committing, Step::Commit),
];

/// Looks at the counters now and then, and says what is new.
#[derive(Debug)]
pub struct Sampler {
    raw_size: u64,
    chunk_size: u64,
    /// Steps told so far.
    told: usize,
    window: VecDeque<Snapshot>,
}

impl Sampler {
    /// For an image of this size.
    pub fn new(raw_size: u64, chunk_size: u32) -> Self {
        Sampler { raw_size, chunk_size: chunk_size.into(), told: 0, window: VecDeque::new() }
    }

    /// The events that follow from the counters as they are `now`: every step begun since the last look, also one too short
    /// to be seen, then how far the current one is.
    pub fn look(&mut self, now: Snapshot) -> Vec<Body> {
        let begun = STEPS.iter().filter(|(reached, _)| now.has_entered(*reached));
        let new = begun.skip(self.told).map(|(_, step)| Body::StepStarted { phase: Phase::Stream, step: step.clone() });
        let mut events: Vec<Body> = new.collect();
        if !events.is_empty() {
            self.told += events.len();
            // The last look before the step is where its rates start from.
            self.window.drain(..self.window.len().saturating_sub(1));
        }
        while self.window.front().is_some_and(|first| now.at.duration_since(first.at) > WINDOW) {
            self.window.pop_front();
        }
        self.window.push_back(now);
        events.extend(self.progress(&now).map(Body::Progress));
        events
    }

    fn progress(&self, now: &Snapshot) -> Option<Progress> {
        let earlier = self.window.front()?;
        let rates = rates(earlier, now);
        let rate = |from: u64, to: u64| per_second(earlier, now, from, to);
        let (step, bytes, total_bytes, rate) = match now.phase {
            Reached::Comparing => (Step::Compare, now.compared, self.raw_size, rate(earlier.compared, now.compared)),
            Reached::Writing => (Step::Write, now.landed(), self.raw_size, rates.write),
            Reached::ClearingTail => {
                (Step::ClearTail, now.tail_cleared, now.tail_total, rate(earlier.tail_cleared, now.tail_cleared))
            }
            Reached::ReadingBack => (Step::ReadBack, now.read_back, self.raw_size, rates.read_back),
            // The others are short, and have no length known beforehand.
            _ => return None,
        };
        let bytes = bytes.min(total_bytes);
        let total_chunks = total_bytes.div_ceil(self.chunk_size);
        let limiting = || now.limiting_stage(earlier).map(|stage| Stage::from(stage.name().to_owned()));
        Some(Progress {
            phase: Phase::Stream,
            bytes,
            total_bytes,
            chunks: if bytes == total_bytes { total_chunks } else { bytes / self.chunk_size },
            total_chunks,
            rates,
            limited_by: if step == Step::Write { limiting() } else { None },
            eta_seconds: (total_bytes - bytes).checked_div(rate),
            step,
        })
    }
}

fn rates(earlier: &Snapshot, now: &Snapshot) -> Rates {
    let rate = |from: u64, to: u64| per_second(earlier, now, from, to);
    Rates {
        source: rate(earlier.fetched, now.fetched),
        decode: rate(earlier.decoded, now.decoded),
        write: rate(earlier.landed(), now.landed()),
        read_back: rate(earlier.read_back, now.read_back),
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn per_second(earlier: &Snapshot, now: &Snapshot, from: u64, to: u64) -> u64 {
    let seconds = now.at.duration_since(earlier.at).as_secs_f64();
    if seconds > 0.0 { (to.saturating_sub(from) as f64 / seconds) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use imgstream::progress::Progress as Counters;

    use super::*;

    fn steps(events: &[Body]) -> Vec<String> {
        let name = |body: &Body| match body {
            Body::StepStarted { step, .. } => Some(step.to_string()),
            _ => None,
        };
        events.iter().filter_map(name).collect()
    }

    #[test]
    fn a_step_too_short_to_be_seen_is_told_all_the_same() {
        let counters = Counters::default();
        let mut sampler = Sampler::new(100, 10);
        assert_eq!(sampler.look(counters.snapshot()), []);
        counters.enter(Reached::Invalidating);
        counters.enter(Reached::Writing);
        assert_eq!(steps(&sampler.look(counters.snapshot())), ["invalidate", "write"]);
        assert_eq!(steps(&sampler.look(counters.snapshot())), [""; 0]);
        for reached in [Reached::Flushing, Reached::ReadingBack, Reached::Committing, Reached::Done] {
            counters.enter(reached);
        }
        assert_eq!(steps(&sampler.look(counters.snapshot())), ["flush", "read-back", "commit"]);
    }

    #[test]
    fn a_step_that_is_passed_over_is_not_told() {
        let counters = Counters::default();
        let mut sampler = Sampler::new(100, 10);
        for reached in [Reached::Comparing, Reached::ClearingTail, Reached::Flushing, Reached::Done] {
            counters.enter(reached);
        }
        assert_eq!(steps(&sampler.look(counters.snapshot())), ["compare", "clear-tail", "flush"]);
    }

    #[test]
    fn progress_has_bytes_chunks_rates_and_the_limit() {
        let counters = Counters::default();
        counters.raw_total.store(1000, Relaxed);
        counters.enter(Reached::Writing);
        let mut sampler = Sampler::new(1000, 100);
        let first = counters.snapshot();
        sampler.look(Snapshot { phase: Reached::Invalidating, entered: 0, ..first });
        counters.written.store(300, Relaxed);
        counters.zeroed.store(150, Relaxed);
        counters.fetched.store(80, Relaxed);
        counters.source_wait.store(7, Relaxed);
        let now = Snapshot { at: first.at + Duration::from_secs(2), ..counters.snapshot() };
        let [Body::StepStarted { .. }, Body::Progress(progress)] = &sampler.look(now)[..] else { panic!() };
        assert_eq!((progress.bytes, progress.total_bytes, progress.chunks, progress.total_chunks), (450, 1000, 4, 10));
        assert_eq!((progress.rates.write, progress.rates.source), (225, 40));
        assert_eq!((progress.limited_by.clone(), progress.eta_seconds), (Some(Stage::Source), Some(2)));
    }

    #[test]
    fn a_stall_shows_as_no_speed_and_no_end() {
        let counters = Counters::default();
        counters.raw_total.store(1000, Relaxed);
        counters.enter(Reached::Writing);
        let mut sampler = Sampler::new(1000, 100);
        let first = counters.snapshot();
        sampler.look(first);
        let [Body::Progress(progress)] = &sampler.look(Snapshot { at: first.at + WINDOW, ..first })[..] else {
            panic!()
        };
        assert_eq!((progress.rates.write, progress.eta_seconds), (0, None));
    }
}
