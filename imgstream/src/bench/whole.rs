//! The whole data path, as `imgstream write` runs it, and what its counters said on the way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::findings::{Moment, Spread, Whole};
use super::machine;
use super::meter::{Meter, Sample};
use super::sink::Sink;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::open::Image;
use crate::pipeline::{self, Report, Shape, WriteOptions};
use crate::progress::{Phase, Snapshot};

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(50);
/// Moments that are kept of a run.
const MOMENTS: usize = 240;

/// What every run of the whole needs.
pub(super) struct Path<'a> {
    pub(super) sink: &'a Sink,
    pub(super) watch: &'a Watch,
    pub(super) cancel: &'a CancellationToken,
}

/// One run, perhaps cut short.
pub(super) struct Run {
    pub(super) sample: Sample,
    /// As a report shows it; none of a run that was cut short.
    engine: Option<String>,
    /// Seconds until the first chunk went to the sink.
    first_write: Option<f64>,
    looks: Vec<Snapshot>,
}

impl Path<'_> {
    /// Runs `runs` times. What was measured before an error is handed back with it, with the engine's name; of a first run
    /// that was cut short, what it did until then.
    pub(super) async fn measure(
        &self,
        image: &Image,
        options: &WriteOptions,
        runs: usize,
    ) -> (Option<(Whole, Option<String>)>, Result<()>) {
        machine::forget_peak();
        let mut done = Vec::new();
        let mut outcome = Ok(());
        while done.len() < runs && outcome.is_ok() {
            let (run, ended) = self.run("the whole", image, options).await;
            if ended.is_ok() || done.is_empty() {
                done.extend(run);
            }
            outcome = ended;
        }
        let peak_rss = machine::peak_rss();
        let rate = Spread::of(done.iter().map(|run| run.sample.rate()));
        let cpu_seconds = Spread::of(done.iter().map(|run| run.sample.cpu));
        let (Some(rate), Some(cpu_seconds), Some(last)) = (rate, cpu_seconds, done.pop()) else {
            return (None, outcome);
        };
        let shape = Shape::of(options, image.descriptor().chunk_size);
        let timeline = timeline(&last.looks, shape.workers);
        (
            Some((Whole { rate, cpu_seconds, peak_rss, first_write_seconds: last.first_write, timeline }, last.engine)),
            outcome,
        )
    }

    /// Writes the image once, to a target of so many extents.
    pub(super) async fn sample(
        &self,
        what: &'static str,
        extents: usize,
        image: &Image,
        options: &WriteOptions,
    ) -> Result<Sample> {
        let (run, ended) = self.run_to(extents, what, image, options).await;
        ended?;
        run.map(|run| run.sample).ok_or_else(|| Error::device("a run was not measured"))
    }

    /// Writes the image once; what a run that failed did until then is handed back with its error.
    pub(super) async fn run(
        &self,
        what: &'static str,
        image: &Image,
        options: &WriteOptions,
    ) -> (Option<Run>, Result<()>) {
        self.run_to(1, what, image, options).await
    }

    async fn run_to(
        &self,
        extents: usize,
        what: &'static str,
        image: &Image,
        options: &WriteOptions,
    ) -> (Option<Run>, Result<()>) {
        if self.cancel.is_cancelled() {
            return (None, Err(Error::cancelled("measuring")));
        }
        let raw_size = image.descriptor().raw_size;
        let progress = self.watch.begin(what, raw_size, Duration::MAX, Snapshot::landed);
        let target = match self.sink.target_of(extents, raw_size, options.engine, self.cancel).await {
            Ok(target) => target,
            Err(error) => return (None, Err(error)),
        };
        let looks = Arc::new(Mutex::new(vec![progress.snapshot()]));
        let looking = tokio::spawn({
            let (looks, progress) = (Arc::clone(&looks), Arc::clone(&progress));
            async move {
                let mut ticks = tokio::time::interval(LOOK);
                loop {
                    ticks.tick().await;
                    looks.lock().unwrap_or_else(PoisonError::into_inner).push(progress.snapshot());
                }
            }
        });
        let meter = Meter::start();
        let start = self.sink.start();
        let written =
            pipeline::write_with(&start, image.clone(), target, options, Arc::clone(&progress), self.cancel).await;
        looking.abort();
        let mut looks = std::mem::take(&mut *looks.lock().unwrap_or_else(PoisonError::into_inner));
        looks.push(progress.snapshot());
        match written {
            Ok(Report { data_bytes, total_seconds, engine, first_write_seconds, .. }) => {
                let sample = Sample { seconds: total_seconds, ..meter.stop(data_bytes as f64) };
                (Some(Run { sample, engine: Some(engine), first_write: first_write_seconds, looks }), Ok(()))
            }
            Err(error) => {
                let sample = meter.stop(progress.snapshot().written as f64);
                let run = Run { sample, engine: None, first_write: None, looks };
                (Some(run).filter(|run| run.sample.bytes > 0.0), Err(error))
            }
        }
    }
}

/// The counters' differences, interval by interval.
fn timeline(looks: &[Snapshot], workers: usize) -> Vec<Moment> {
    let every = looks.len().div_ceil(MOMENTS).max(1);
    let last = looks.len().saturating_sub(1);
    let kept: Vec<&Snapshot> = looks
        .iter()
        .enumerate()
        .filter(|(number, look)| *number == last || (number % every == 0 && look.phase != Phase::Done))
        .map(|(_, look)| look)
        .collect();
    let Some(first) = kept.first() else { return Vec::new() };
    let moment = |pair: &[&Snapshot]| {
        let (then, now) = (pair[0], pair[1]);
        let seconds = now.at.duration_since(then.at).as_secs_f64().max(1e-6);
        let share = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / seconds / workers as f64;
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Moment {
            seconds: now.at.duration_since(first.at).as_secs_f64(),
            source_wait: share(now.source_wait, then.source_wait),
            decode_busy: share(now.decode_busy, then.decode_busy),
            write_wait: share(now.write_wait, then.write_wait),
            fetched: rate(now.fetched, then.fetched),
            decoded: rate(now.decoded, then.decoded),
            written: rate(now.written, then.written),
            read_back: rate(now.read_back, then.read_back),
        }
    };
    let mut moments: Vec<Moment> = kept.windows(2).map(moment).collect();
    spread_back(&mut moments, |moment| &mut moment.source_wait);
    spread_back(&mut moments, |moment| &mut moment.decode_busy);
    spread_back(&mut moments, |moment| &mut moment.write_wait);
    moments
}

/// A wait is counted when it ends. What does not fit into the interval it ended in belongs to those before.
fn spread_back(moments: &mut [Moment], share: fn(&mut Moment) -> &mut f64) {
    let mut excess = 0.0;
    let mut after = moments.last().map_or(0.0, |last| last.seconds);
    for at in (0..moments.len()).rev() {
        let begins = if at == 0 { 0.0 } else { moments[at - 1].seconds };
        let len = (after - begins).max(1e-6);
        after = begins;
        let share = share(&mut moments[at]);
        let all = *share + excess / len;
        *share = all.min(1.0);
        excess = (all - *share) * len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_long_wait_is_spread_over_the_time_it_took() {
        let progress = Progress::default();
        let first = progress.snapshot();
        let at = |tenths: u64| Snapshot { at: first.at + Duration::from_millis(100 * tenths), ..progress.snapshot() };
        let mut looks = vec![first, at(1), at(2), at(3)];
        // Two workers waited for the last 250 ms.
        progress.source_wait.store(500_000_000, Relaxed);
        progress.fetched.store(1000, Relaxed);
        looks.push(at(4));
        let moments = timeline(&looks, 2);
        let waits: Vec<f64> = moments.iter().map(|moment| (moment.source_wait * 10.0).round() / 10.0).collect();
        assert_eq!(waits, [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(moments[3].fetched.round(), 10_000.0);
    }
}
