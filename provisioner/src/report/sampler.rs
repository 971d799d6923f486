//! Counters of the data path → steps, progress, rates.

use std::collections::VecDeque;
use std::time::Duration;

use imgstream::progress::{Phase as Reached, Snapshot};
use protocol::event::{Body, Phase, Progress, Rates, Stage, Step};

/// Rates are means over this long: shorter jumps about, longer hides a stall.
const WINDOW: Duration = Duration::from_secs(3);

const STEPS: [Step; 5] = [Step::Invalidate, Step::Write, Step::Flush, Step::ReadBack, Step::Commit];

/// Looks at the counters now and then, and says what is new.
#[derive(Debug)]
pub struct Sampler {
    raw_size: u64,
    chunk_size: u64,
    read_back: bool,
    /// Steps told so far.
    told: usize,
    window: VecDeque<Snapshot>,
}

impl Sampler {
    /// For an image of this size, with or without read-back.
    pub fn new(raw_size: u64, chunk_size: u32, read_back: bool) -> Self {
        Sampler { raw_size, chunk_size: chunk_size.into(), read_back, told: 0, window: VecDeque::new() }
    }

    /// The events that follow from the counters as they are `now`: every step begun since the last look, also one too short
    /// to be seen, then how far the current one is.
    pub fn look(&mut self, now: Snapshot) -> Vec<Body> {
        let begun = steps_begun(now.phase);
        let mut events = Vec::new();
        for step in STEPS.iter().take(begun).skip(self.told) {
            if *step != Step::ReadBack || self.read_back {
                events.push(Body::StepStarted { phase: Phase::Stream, step: step.clone() });
            }
        }
        if begun > self.told {
            self.told = begun;
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
        let step = match now.phase {
            Reached::Writing => Step::Write,
            Reached::ReadingBack => Step::ReadBack,
            // The others are short, and have no length known beforehand.
            _ => return None,
        };
        let earlier = self.window.front()?;
        let rates = rates(earlier, now);
        let (bytes, rate) = match step {
            Step::ReadBack => (now.read_back.min(self.raw_size), rates.read_back),
            _ => (now.landed(), rates.write),
        };
        let total_chunks = self.raw_size.div_ceil(self.chunk_size);
        let limiting = || now.limiting_stage(earlier).map(|stage| Stage::from(stage.name().to_owned()));
        Some(Progress {
            phase: Phase::Stream,
            bytes,
            total_bytes: self.raw_size,
            chunks: if bytes == self.raw_size { total_chunks } else { bytes / self.chunk_size },
            total_chunks,
            rates,
            limited_by: if step == Step::Write { limiting() } else { None },
            eta_seconds: (self.raw_size - bytes).checked_div(rate),
            step,
        })
    }
}

fn steps_begun(reached: Reached) -> usize {
    match reached {
        Reached::Starting => 0,
        Reached::Invalidating => 1,
        Reached::Writing => 2,
        Reached::Flushing => 3,
        Reached::ReadingBack => 4,
        Reached::Committing | Reached::Done => 5,
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rates(earlier: &Snapshot, now: &Snapshot) -> Rates {
    let seconds = now.at.duration_since(earlier.at).as_secs_f64();
    let rate = |from: u64, to: u64| if seconds > 0.0 { (to.saturating_sub(from) as f64 / seconds) as u64 } else { 0 };
    Rates {
        source: rate(earlier.fetched, now.fetched),
        decode: rate(earlier.decoded, now.decoded),
        write: rate(earlier.landed(), now.landed()),
        read_back: rate(earlier.read_back, now.read_back),
    }
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
        let mut sampler = Sampler::new(100, 10, true);
        assert_eq!(sampler.look(counters.snapshot()), []);
        counters.enter(Reached::Writing);
        assert_eq!(steps(&sampler.look(counters.snapshot())), ["invalidate", "write"]);
        assert_eq!(steps(&sampler.look(counters.snapshot())), [""; 0]);
        counters.enter(Reached::Done);
        assert_eq!(steps(&sampler.look(counters.snapshot())), ["flush", "read-back", "commit"]);
        let mut without = Sampler::new(100, 10, false);
        assert_eq!(steps(&without.look(counters.snapshot())), ["invalidate", "write", "flush", "commit"]);
    }

    #[test]
    fn progress_has_bytes_chunks_rates_and_the_limit() {
        let counters = Counters::default();
        counters.raw_total.store(1000, Relaxed);
        counters.enter(Reached::Writing);
        let mut sampler = Sampler::new(1000, 100, true);
        let first = counters.snapshot();
        sampler.look(Snapshot { phase: Reached::Invalidating, ..first });
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
        let mut sampler = Sampler::new(1000, 100, true);
        let first = counters.snapshot();
        sampler.look(first);
        let [Body::Progress(progress)] = &sampler.look(Snapshot { at: first.at + WINDOW, ..first })[..] else {
            panic!()
        };
        assert_eq!((progress.rates.write, progress.eta_seconds), (0, None));
    }
}
