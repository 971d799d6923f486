//! Notices that nothing moves, names what is waited for, and says when that has lasted too long: every wait in the data
//! path has a bound and a name.
//!
//! It looks at the counters and at what the device and the sources have not answered; it touches neither. What happens to
//! a run that stands still is decided by whoever asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::error::{Error, Retry};
use crate::progress::{Phase, Progress};
use crate::sink::Target;
use crate::sink::outstanding::Unanswered;
use crate::source::Source;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A connection to these sources.
    Network(String),
    /// Bytes from these sources.
    Source(String),
    /// Threads that hash and decode.
    Decode(usize),
    /// The device.
    Device(Unanswered),
    /// Whoever knows whether this run may write.
    Permit,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Network(sources) => write!(f, "network: no connection to {sources}"),
            Place::Source(sources) => write!(f, "source: no bytes come from {sources}"),
            Place::Decode(chunks) => write!(f, "decode: {chunks} chunks are being verified and decoded"),
            Place::Device(unanswered) => write!(f, "{}: {unanswered}", unanswered.operation.stage()),
            Place::Permit => f.write_str("permit: whether this run may still write has not been answered"),
        }
    }
}

/// Nothing has moved, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// What is waited for.
    pub place: Place,
    /// For how long. Time in which this process did not run is not counted.
    pub lasted: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing has moved for {} s: {}", self.lasted.as_secs(), self.place)
    }
}

impl Stall {
    /// As the error that ends a run.
    pub fn error(&self) -> Error {
        let error = match &self.place {
            Place::Network(_) => Error::source_failed(self.to_string())
                .with_hint("check the network between here and the source, then run again"),
            Place::Source(_) => {
                Error::source_failed(self.to_string()).with_hint("find out why the source is silent, then run again")
            }
            Place::Decode(_) => {
                Error::device(self.to_string()).with_hint("this machine does not get on: see its kernel log")
            }
            Place::Device(_) => Error::device(self.to_string()).with_hint(
                "check the device, its paths and the kernel log, then run again; a slow but sound one needs a longer stall limit",
            ),
            Place::Permit => Error::target(self.to_string())
                .with_hint("find out why the target's reservation and this run's lease cannot be looked at, then run again"),
        };
        error.with_retry(Retry::Temporary)
    }
}

/// Looks after one run.
#[derive(Debug)]
pub struct Watchdog {
    progress: Arc<Progress>,
    sources: Vec<Arc<dyn Source>>,
    target: Option<Arc<Target>>,
    warning: Duration,
}

impl Watchdog {
    /// For a run that counts in `progress`, reads `sources` and writes to `target`. It warns when nothing has moved for
    /// `warning`, and again each time that has doubled.
    pub fn new(
        progress: Arc<Progress>,
        sources: Vec<Arc<dyn Source>>,
        target: Option<Arc<Target>>,
        warning: Duration,
    ) -> Self {
        Watchdog { progress, sources, target, warning }
    }

    /// Returns when nothing has moved for `limit`.
    pub async fn stalled_for(&self, limit: Duration) -> Stall {
        let pause = LOOK.min(self.warning / 4).min(limit / 4).max(Duration::from_millis(1));
        let mut watch = Watch { dog: self, still: Still::new(self.mark(), self.warning) };
        let mut looked = Instant::now();
        while watch.still.lasted < limit {
            tokio::time::sleep(pause).await;
            // A process that was stopped, or a machine that was, has not waited for anybody.
            let passed = looked.elapsed().min(pause * 2);
            looked = Instant::now();
            let place = self.place();
            if let Some(Place::Network(_)) = place {
                self.progress.network_wait.fetch_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX), Relaxed);
            }
            watch.look(place, passed);
        }
        self.stall(&watch.still)
    }

    /// What the device has not answered, oldest first.
    pub fn unanswered(&self) -> Option<Unanswered> {
        let devices = self.target.iter().flat_map(|target| target.devices().iter());
        devices.filter_map(|device| device.outstanding().oldest(&device.name())).max_by_key(|asked| asked.age)
    }

    /// What is waited for now, as far as that can be seen. A device that does not answer comes first: behind it everything
    /// fills up and stands, and nobody waits for sources.
    fn place(&self) -> Option<Place> {
        if let Some(unanswered) = self.unanswered() {
            return Some(Place::Device(unanswered));
        }
        if self.progress.asking.load(Relaxed) {
            return Some(Place::Permit);
        }
        let names = |waits: fn(&dyn Source) -> usize| -> Option<String> {
            let waiting = self.sources.iter().filter(|source| waits(source.as_ref()) > 0);
            let names: Vec<_> = waiting.map(|source| source.name()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let decoding = self.progress.decoding.load(Relaxed);
        let source = names(|source| source.waits().source).map(Place::Source);
        let network = || names(|source| source.waits().network).map(Place::Network);
        source.or_else(network).or_else(|| (decoding > 0).then_some(Place::Decode(decoding)))
    }

    fn stall(&self, still: &Still) -> Stall {
        // Where nothing at all can be seen, everybody is between two tries, or the file system below a source hangs.
        let all = || self.sources.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ");
        Stall { place: still.place.clone().unwrap_or_else(|| Place::Source(all())), lasted: still.lasted }
    }

    fn mark(&self) -> Mark {
        let devices = || self.target.iter().flat_map(|target| target.devices().iter());
        let answered = devices().map(|device| device.outstanding().count_answered()).sum();
        if self.unanswered().is_some() {
            return Mark::Device { answered };
        }
        let now = self.progress.snapshot();
        let counters = [
            now.planned_fetch,
            now.fetched,
            now.decoded,
            now.written,
            now.zeroed,
            now.read_back,
            now.compared,
            now.tail_cleared,
        ];
        Mark::Run { phase: now.phase, counters, answered }
    }
}

/// One watch of a run.
struct Watch<'a> {
    dog: &'a Watchdog,
    still: Still,
}

impl Watch<'_> {
    fn look(&mut self, place: Option<Place>, passed: Duration) {
        match self.still.look(self.dog.mark(), place, passed) {
            Some(Change::Stands) => tracing::warn!("{}", self.dog.stall(&self.still)),
            Some(Change::GoesOn(lasted)) => tracing::warn!("it goes on, after {} s", lasted.as_secs()),
            None => {}
        }
    }
}

impl Drop for Watch<'_> {
    /// A run may go on and reach its end between two looks.
    fn drop(&mut self) {
        self.look(None, Duration::ZERO);
    }
}

/// What changes whenever anything moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The device has something to answer. Sources fill buffers for a while behind one that hangs; that is no movement.
    Device { answered: u64 },
    /// It has not.
    Run { phase: Phase, counters: [u64; 8], answered: u64 },
}

/// What is worth saying.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Stands,
    GoesOn(Duration),
}

/// How long nothing has moved.
#[derive(Debug)]
struct Still {
    mark: Mark,
    lasted: Duration,
    warning: Duration,
    /// When to warn next.
    next: Duration,
    /// What was waited for when that could last be seen.
    place: Option<Place>,
}

impl Still {
    fn new(mark: Mark, warning: Duration) -> Self {
        Still { mark, lasted: Duration::ZERO, warning, next: warning, place: None }
    }

    /// Looks again, `passed` after the last look.
    fn look(&mut self, mark: Mark, place: Option<Place>, passed: Duration) -> Option<Change> {
        if mark != self.mark {
            let before = std::mem::replace(self, Still::new(mark, self.warning));
            return (before.lasted >= before.warning).then_some(Change::GoesOn(before.lasted));
        }
        self.lasted += passed;
        self.place = place.or(self.place.take());
        if self.lasted < self.next {
            return None;
        }
        self.next = self.lasted * 2;
        Some(Change::Stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(written: u64) -> Mark {
        Mark::Run { phase: Phase::Writing, counters: [0, 0, 0, written, 0, 0, 0, 0], answered: 0 }
    }

    #[tokio::test]
    async fn chunks_that_are_never_decoded_are_named() {
        let progress = Arc::new(Progress::default());
        progress.decoding.store(2, Relaxed);
        let dog = Watchdog::new(Arc::clone(&progress), Vec::new(), None, Duration::from_millis(20));
        let stall = dog.stalled_for(Duration::from_millis(80)).await;
        assert_eq!(stall.place, Place::Decode(2));
        assert!(stall.to_string().contains("decode: 2 chunks"), "{stall}");
        assert_eq!((stall.error().kind(), stall.error().retry()), (crate::error::Kind::Device, Retry::Temporary));
    }

    #[tokio::test]
    async fn a_permit_that_is_never_given_is_named() {
        let progress = Arc::new(Progress::default());
        progress.asking.store(true, Relaxed);
        let dog = Watchdog::new(Arc::clone(&progress), Vec::new(), None, Duration::from_millis(20));
        let stall = dog.stalled_for(Duration::from_millis(80)).await;
        assert!(stall.to_string().contains("permit: whether this run may still write"), "{stall}");
        assert_eq!((stall.error().kind(), stall.error().retry()), (crate::error::Kind::Target, Retry::Temporary));
    }

    #[tokio::test]
    async fn what_moves_now_and_then_is_no_stall() {
        let progress = Arc::new(Progress::default());
        let dog = Watchdog::new(Arc::clone(&progress), Vec::new(), None, Duration::from_millis(100));
        let moving = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                progress.fetched.fetch_add(1, Relaxed);
            }
        };
        tokio::select! {
            stall = dog.stalled_for(Duration::from_secs(1)) => panic!("{stall}"),
            () = moving => {}
        }
    }

    #[test]
    fn it_warns_at_doubling_intervals_and_says_when_it_goes_on() {
        let second = Duration::from_secs(1);
        let mut still = Still::new(mark(0), 10 * second);
        let stands = |still: &mut Still| (1..=100).filter(|_| still.look(mark(0), None, second).is_some()).count();
        assert_eq!((1..10).find_map(|_| still.look(mark(0), None, second)), None);
        assert_eq!(still.look(mark(0), None, second), Some(Change::Stands), "after 10 s");
        assert_eq!(stands(&mut still), 3, "after 20, 40 and 80 s");
        assert_eq!(still.look(mark(1), None, second), Some(Change::GoesOn(110 * second)));
        assert_eq!(still.look(mark(1), None, second), None);
        assert_eq!(still.look(mark(2), None, second), None, "a short pause is not worth a word");
    }

    #[test]
    fn what_was_seen_last_is_remembered_through_a_pause() {
        let mut still = Still::new(mark(0), Duration::from_secs(2));
        still.look(mark(0), Some(Place::Network("a".into())), Duration::from_secs(1));
        still.look(mark(0), None, Duration::from_secs(1));
        assert_eq!(still.place, Some(Place::Network("a".into())));
        still.look(mark(1), None, Duration::from_secs(1));
        assert_eq!(still.place, None, "that was another stall");
    }
}
