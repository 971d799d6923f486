//! Made-up sources with made-up faults, and a simple model of what must come of them.
//!
//! The fetching half runs in virtual time, where a case costs a millisecond or two; the whole data path, with its threads
//! and a real file, runs in real time with pauses of milliseconds.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Kind};
use imgstream::fetch::Patience;
use imgstream::pipeline::{self, WriteOptions};
use imgstream::progress::Progress;
use imgstream::sink::{Device, EngineChoice, EngineKind, OpenOptions, Target};
use imgstream::source::Source;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::sync::CancellationToken;

use crate::image::{CHUNK, Packed};
use crate::lanes::{Setting, fetch};
use crate::mock::{Fault, Mock, Script};

const MAX_TRIES: u32 = 6;
/// Less than a frame: a source that never gets further never delivers anything.
const EARLY: usize = 60_000;
const FOR_EVER: u32 = 1_000_000;
/// Beats until a source gives up a connection that stalls.
const DEADLINE: u32 = 30;
/// Beats without any chunk that are borne with for certain: less than the patience of both halves, by a request's time.
const SILENCE: u32 = 100;
/// More than the pieces of a chunk: a failure that has brought more of them has brought a chunk.
const PIECES: u32 = 5;

/// Sources, and how they are asked. Durations are in beats: a second of virtual time, a millisecond of real time.
#[derive(Debug, Clone)]
struct Universe {
    sources: Vec<Plot>,
    connections: usize,
    request: usize,
}

/// What one source will do.
#[derive(Debug, Clone, Default)]
struct Plot {
    piece: u32,
    first: Vec<Option<Trouble>>,
    then: Option<Trouble>,
    dead: Option<Range<u32>>,
}

#[derive(Debug, Clone)]
enum Trouble {
    Refused(Option<u32>),
    NotHere,
    BreaksOff(usize),
    Truncated(usize),
    TooMany,
    Flipped(usize),
    Garbage,
    Stalls(usize),
    Hangs(usize),
    Drips(u32),
}

impl Trouble {
    fn fault(&self, beat: Duration) -> Fault {
        match *self {
            Trouble::Refused(after) => Fault::Refused(after.map(|beats| beat * beats)),
            Trouble::NotHere => Fault::NotHere,
            Trouble::BreaksOff(at) => Fault::BreaksOff(at),
            Trouble::Truncated(at) => Fault::Truncated(at),
            Trouble::TooMany => Fault::TooMany,
            Trouble::Flipped(at) => Fault::Flipped(at),
            Trouble::Garbage => Fault::Garbage,
            Trouble::Stalls(at) => Fault::Stalls(at),
            Trouble::Hangs(at) => Fault::Hangs(at),
            Trouble::Drips(beats) => Fault::Drips(beat * beats),
        }
    }

    fn lies(&self) -> bool {
        matches!(self, Trouble::Flipped(_) | Trouble::Garbage)
    }

    /// Whether waiting mends it.
    fn passes(&self) -> bool {
        use Trouble::{BreaksOff, Drips, Refused, Stalls, Truncated};
        matches!(self, Refused(_) | BreaksOff(_) | Truncated(_) | Stalls(_) | Drips(_))
    }

    /// Beats that may pass, by a source whose pieces take `piece` beats, from being asked to being asked again, and no
    /// chunk comes.
    fn silence(&self, piece: u32) -> u32 {
        const PAUSE: u32 = 2;
        let pieces = piece * PIECES;
        match *self {
            Trouble::Refused(after) => after.unwrap_or(0).min(60) + PAUSE,
            Trouble::Stalls(_) => pieces + DEADLINE + PAUSE,
            Trouble::Drips(beats) => PIECES * beats,
            _ => pieces + PAUSE,
        }
    }

    /// Whether a source that always has this trouble never delivers a right chunk, or corrupts the same one twice.
    fn is_fatal_for_ever(&self) -> bool {
        match *self {
            Trouble::Refused(_) | Trouble::NotHere | Trouble::Flipped(_) | Trouble::Garbage => true,
            Trouble::BreaksOff(at) | Trouble::Truncated(at) | Trouble::Stalls(at) | Trouble::Hangs(at) => at < EARLY,
            Trouble::TooMany | Trouble::Drips(_) => false,
        }
    }
}

impl Plot {
    fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.first.iter().chain([&self.then]).flatten()
    }

    fn is_honest(&self) -> bool {
        self.troubles().next().is_none() && self.dead.is_none()
    }

    fn lies(&self) -> bool {
        self.troubles().any(Trouble::lies)
    }

    fn hangs(&self) -> bool {
        self.troubles().any(|trouble| matches!(trouble, Trouble::Hangs(_)))
    }

    /// It fails now and then in ways that pass, and not any more after its first answers.
    fn recovers(&self) -> bool {
        self.then.is_none() && self.dead.is_none() && self.troubles().all(Trouble::passes)
    }

    fn silence(&self) -> u32 {
        self.troubles().map(|trouble| trouble.silence(self.piece)).sum()
    }

    fn is_hopeless(&self) -> bool {
        self.dead.as_ref().is_some_and(|dead| *dead == (0..FOR_EVER))
            || (self.first.is_empty() && self.then.as_ref().is_some_and(Trouble::is_fatal_for_ever))
    }

    fn mock(&self, name: &str, image: &Arc<Packed>, beat: Duration) -> Arc<Mock> {
        let fault = |trouble: &Option<Trouble>| trouble.as_ref().map(|trouble| trouble.fault(beat));
        let script = Script {
            piece: beat * self.piece,
            first: self.first.iter().map(fault).collect(),
            then: fault(&self.then),
            dead: self.dead.as_ref().map(|dead| beat * dead.start..beat * dead.end),
            metadata: None,
        };
        Mock::new(name, image, script, beat * DEADLINE)
    }
}

/// What must come of a universe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Arrives,
    Fails,
    /// It depends on who is asked when: right bytes or an error.
    Either,
}

impl Universe {
    fn verdict(&self) -> Verdict {
        let liars = self.sources.iter().filter(|source| source.lies()).count();
        let honest = self.sources.iter().any(Plot::is_honest);
        let troubles = self.sources.iter().flat_map(Plot::troubles).count();
        let all_recover = self.sources.iter().all(Plot::recovers);
        let hanging = self.sources.iter().filter(|source| source.hangs()).count();
        // Whoever is honest makes up for the others, unless two of them lie about the same chunk, or one that never ends
        // has the only duplicate of what another one that never ends was asked for. (No source of ours never ends.)
        if honest && liars <= 1 && hanging <= 1 {
            return Verdict::Arrives;
        }
        // Few failures, all of which pass, are borne with whoever has them, unless they keep everybody waiting for too long.
        let silence: u32 = self.sources.iter().map(Plot::silence).sum();
        if all_recover && troubles < MAX_TRIES as usize && silence <= SILENCE {
            return Verdict::Arrives;
        }
        if self.sources.iter().all(Plot::is_hopeless) {
            return Verdict::Fails;
        }
        Verdict::Either
    }

    fn mocks(&self, image: &Arc<Packed>, beat: Duration) -> Vec<Arc<Mock>> {
        let named = self.sources.iter().zip(["north", "east", "south", "west"]);
        named.map(|(plot, name)| plot.mock(name, image, beat)).collect()
    }

    /// Checks an error against the model.
    fn check_error(&self, error: &Error) {
        assert_ne!(self.verdict(), Verdict::Arrives, "it must arrive, but: {error}");
        assert_eq!(error.kind(), Kind::Source, "{error}");
        assert!(!error.to_string().contains("hang"), "{error}");
    }
}

fn passing() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        proptest::option::of(0u32..100).prop_map(Trouble::Refused),
        (0..200_000usize).prop_map(Trouble::BreaksOff),
        (0..200_000usize).prop_map(Trouble::Truncated),
        (0..200_000usize).prop_map(Trouble::Stalls),
        (0u32..5).prop_map(Trouble::Drips),
    ]
}

fn lie() -> impl Strategy<Value = Trouble> {
    prop_oneof![(0..200_000usize).prop_map(Trouble::Flipped), Just(Trouble::Garbage)]
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        4 => passing(),
        1 => Just(Trouble::NotHere),
        1 => Just(Trouble::TooMany),
        1 => lie(),
        1 => (0..200_000usize).prop_map(Trouble::Hangs),
    ]
}

fn fatal() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        proptest::option::of(0u32..100).prop_map(Trouble::Refused),
        Just(Trouble::NotHere),
        lie(),
        (0..EARLY).prop_map(Trouble::BreaksOff),
        (0..EARLY).prop_map(Trouble::Stalls),
        (0..EARLY).prop_map(Trouble::Hangs),
    ]
}

fn plot() -> impl Strategy<Value = Plot> {
    let now_and_then = || proptest::collection::vec(proptest::option::of(passing()), 0..4);
    let kinds = prop_oneof![
        3 => Just(Plot::default()),
        3 => now_and_then().prop_map(|first| Plot { first, ..Plot::default() }),
        4 => fatal().prop_map(|then| Plot { then: Some(then), ..Plot::default() }),
        1 => Just(Plot { dead: Some(0..FOR_EVER), ..Plot::default() }),
        2 => (0u32..50, 1u32..200).prop_map(|(from, long)| Plot { dead: Some(from..from + long), ..Plot::default() }),
        3 => (
            proptest::collection::vec(proptest::option::of(any_trouble()), 0..12),
            proptest::option::of(any_trouble()),
        ).prop_map(|(first, then)| Plot { first, then, ..Plot::default() }),
    ];
    (kinds, 0u32..4).prop_map(|(plot, piece)| Plot { piece, ..plot })
}

fn universe() -> impl Strategy<Value = Universe> {
    (proptest::collection::vec(plot(), 1..=4), 1usize..4, 1usize..5)
        .prop_map(|(sources, connections, request)| Universe { sources, connections, request })
}

/// `PROPTEST_CASES` where it is set, divided by `share`; else `cases`.
fn config(cases: u32, share: u32) -> Config {
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if told { (Config::default().cases / share).max(1) } else { cases };
    Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() }
}

/// The fetching half, in virtual time.
fn fetches(universe: &Universe) {
    let (image, beat) = (Packed::small(), Duration::from_secs(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let setting = Setting { connections: universe.connections, request: universe.request, ..Setting::default() };
    let mocks = universe.mocks(&image, beat);
    let fetching = async { tokio::time::timeout(Duration::from_secs(6 * 3600), fetch(&image, &mocks, setting)).await };
    let outcome = runtime.block_on(fetching).expect("it must end within six hours of virtual time");
    match &outcome.result {
        Ok(()) => {
            outcome.whole();
            assert_ne!(universe.verdict(), Verdict::Fails, "it cannot arrive");
        }
        Err(error) => universe.check_error(error),
    }
    assert!(outcome.claimed.values().all(|times| *times == 1), "{:?}", outcome.claimed);
}

/// The whole data path, onto a file, in real time.
fn writes(universe: &Universe) {
    let (image, beat) = (Packed::small(), Duration::from_millis(1));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    let old = vec![0xa5u8; image.raw.len()];
    std::fs::write(&path, &old).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let writing = async { tokio::time::timeout(Duration::from_secs(60), write(universe, &image, &path, beat)).await };
    let outcome = runtime.block_on(writing).expect("it must end within a minute");
    drop(runtime);
    let found = std::fs::read(&path).unwrap();
    match outcome {
        Ok(report) => {
            assert!(found == image.raw, "the target differs from the image");
            assert_eq!(report.sources.len(), universe.sources.len());
            assert_ne!(universe.verdict(), Verdict::Fails, "it cannot arrive");
        }
        Err(error) => {
            universe.check_error(&error);
            let first = &found[..CHUNK];
            assert!(
                first == &old[..CHUNK] || first.iter().all(|byte| *byte == 0),
                "the first chunk is neither old nor zero"
            );
        }
    }
}

async fn write(
    universe: &Universe,
    image: &Arc<Packed>,
    path: &std::path::Path,
    beat: Duration,
) -> imgstream::error::Result<pipeline::Report> {
    let sources = universe.mocks(image, beat).into_iter().map(|mock| mock as Arc<dyn Source>).collect();
    let opened = image.open(sources).await?;
    let raw_size = image.raw.len() as u64;
    let device = Device::open(path, OpenOptions { buffered: true, create: false, raw_size })?;
    let options = WriteOptions {
        engine: EngineChoice::Only(EngineKind::Buffered),
        workers: 2,
        connections: universe.connections,
        request_size: (universe.request * (CHUNK + 1024)) as u64,
        patience: Patience {
            first_pause: beat,
            longest_pause: beat * 30,
            longest_retry_after: beat * 60,
            max_tries: MAX_TRIES,
            // A loaded machine may let nobody run for a while, which is nobody's silence.
            give_up_after: Duration::from_secs(2),
            hedge_after: beat * 2,
        },
        ..WriteOptions::default()
    };
    let target = Target::single(device, raw_size);
    pipeline::write(opened, target, &options, Arc::new(Progress::default()), &CancellationToken::new()).await
}

#[test]
fn whatever_the_sources_do_each_chunk_is_claimed_once_or_the_run_fails_in_bounded_time() {
    TestRunner::new(config(400, 1))
        .run(&universe(), |universe| {
            fetches(&universe);
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_the_sources_do_the_target_is_the_image_or_does_not_boot() {
    TestRunner::new(config(48, 8))
        .run(&universe(), |universe| {
            writes(&universe);
            Ok(())
        })
        .unwrap();
}

/// The model must be able to say something, or the tests above say nothing.
#[test]
fn the_model_decides_often_enough() {
    let mut runner = TestRunner::deterministic();
    let verdicts: Vec<_> = (0..1000).map(|_| universe().new_tree(&mut runner).unwrap().current().verdict()).collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    let counts = [count(Verdict::Arrives), count(Verdict::Fails), count(Verdict::Either)];
    assert!(counts[0] > 250 && counts[1] > 80 && counts[2] > 100, "{counts:?}");
}
