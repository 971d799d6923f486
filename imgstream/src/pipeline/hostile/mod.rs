//! Whole runs onto devices that fail, dawdle, forget or lie. Whatever such a device does: a run that ends well has left
//! exactly the image, and one that does not has left nothing that boots.

mod fates;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use envelope::{SecretKey, Trust};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;
use crate::manifest::Policy;
use crate::pack::{self, PackOptions, PackProgress};
use crate::sink::engine::Write;
use crate::sink::faulty::{Bench, Fault, FlushFault, Logged, Script};
use crate::sink::{Device, EngineKind, OpenOptions};
use crate::source::{self, Locator, SourceOptions};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 9;
/// The last chunk is not whole, nor whole blocks of 4096.
const SIZE: usize = CHUNKS * CHUNK - 3 * 512;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 24).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// All engines, except under an emulator of system calls, which has no io_uring: whoever runs the tests in one says so with
/// Z_WITHOUT_URING, and here it is made sure that this is so.
fn engines() -> Vec<EngineKind> {
    let mut engines = vec![EngineKind::Uring, EngineKind::Direct, EngineKind::Buffered];
    if std::env::var_os("Z_WITHOUT_URING").is_some() {
        let refusal = io_uring::IoUring::new(1).map(drop).expect_err("Z_WITHOUT_URING is set, but io_uring works here");
        assert_eq!(refusal.raw_os_error(), Some(libc::ENOSYS), "{refusal}");
        engines.retain(|engine| *engine != EngineKind::Uring);
    }
    engines
}

/// A directory on a disk: /tmp may be memory, which knows no O_DIRECT.
fn on_disk() -> TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// One signed image of noise for all tests.
struct Sample {
    dir: TempDir,
    raw: Vec<u8>,
    trust: Trust,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let (dir, raw, key) = (on_disk(), noise(1, SIZE), SecretKey::generate().unwrap());
        std::fs::write(dir.path().join("raw"), &raw).unwrap();
        let options = PackOptions {
            name: "sample".into(),
            image_version: 1,
            architecture: "s390x".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            expires: None,
            chunk_size: CHUNK as u32,
            span_size: 4 * CHUNK as u64,
            level: 1,
            holes: false,
            sector_size: Some(512),
            workers: 1,
        };
        let (from, to) = (dir.path().join("raw"), dir.path().join("image"));
        pack::pack(&from, &to, &options, &key, &PackProgress::default(), &CancellationToken::new()).unwrap();
        Sample { dir, raw, trust: Trust::new(vec![key.public()], 1).unwrap() }
    })
}

async fn open_image() -> Image {
    let locator: Locator = sample().dir.path().join("image").to_str().unwrap().parse().unwrap();
    let source = source::connect(&locator, &SourceOptions::default()).unwrap();
    Image::open(vec![source], &sample().trust, &Policy::default()).await.unwrap()
}

/// A file full of old content, and what became of it.
struct Media {
    dir: TempDir,
    old: Vec<u8>,
    progress: Arc<Progress>,
}

impl Media {
    fn new() -> Self {
        let media = Media { dir: on_disk(), old: noise(2, SIZE), progress: Arc::default() };
        std::fs::write(media.path(), &media.old).unwrap();
        media
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("media")
    }

    fn now(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    fn bench(&self, script: impl Script + 'static) -> Bench {
        Bench::new(self.path(), script)
    }

    async fn write(&self, bench: &Bench, engine: EngineKind, options: &WriteOptions) -> Result<Report> {
        let image = open_image().await;
        let buffered = engine == EngineKind::Buffered;
        let open = OpenOptions { buffered, create: false, raw_size: SIZE as u64 };
        let target = Target::single(Device::open(&self.path(), open).unwrap(), SIZE as u64);
        let options = WriteOptions { engine: EngineChoice::Only(engine), workers: 2, depth: 4, ..options.clone() };
        let (start, progress) = (bench.start(), Arc::clone(&self.progress));
        write_with(&start, image, target, &options, progress, &CancellationToken::new()).await
    }

    #[track_caller]
    fn holds_the_image(&self) {
        assert!(self.now() == sample().raw, "the media differ from the image");
    }

    /// Neither the image nor what was there before starts here.
    #[track_caller]
    fn does_not_boot(&self) {
        assert!(self.now()[..CHUNK].iter().all(|byte| *byte == 0), "the first chunk is not zero");
        assert_eq!(self.now().len(), SIZE, "the file's length");
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs with every engine onto a device that behaves like `script`; hands over the media and what came of it.
fn each_engine<S: Script + 'static>(script: impl Fn() -> S, check: impl Fn(&Media, Result<Report>)) {
    each_engine_with(&WriteOptions::default(), script, check);
}

fn each_engine_with<S: Script + 'static>(
    options: &WriteOptions,
    script: impl Fn() -> S,
    check: impl Fn(&Media, Result<Report>),
) {
    for engine in engines() {
        let media = Media::new();
        let outcome = block_on(media.write(&media.bench(script()), engine, options));
        check(&media, outcome);
    }
}

/// Reading back waits until all is written, so that it is known which flush comes when.
fn proven_last() -> WriteOptions {
    WriteOptions { read_back_last: true, ..WriteOptions::default() }
}

/// Fails with this kind, says these words, and leaves nothing that boots.
fn fails(kind: Kind, words: &[&str]) -> impl Fn(&Media, Result<Report>) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    move |media, outcome| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let said = format!("{error} {}", error.hint().unwrap_or_default());
        words.iter().for_each(|word| assert!(said.contains(word), "{said} does not say {word:?}"));
        media.does_not_boot();
    }
}

fn succeeds(media: &Media, outcome: Result<Report>) {
    outcome.unwrap();
    media.holds_the_image();
}

/// The fault, for writes that touch this chunk.
fn on_chunk(chunk: usize, fault: Fault) -> impl FnMut(usize, &Write) -> Fault {
    move |_, write| if write.offset / CHUNK as u64 == chunk as u64 { fault } else { Fault::None }
}

/// The fault, for the first so many tries of each write.
fn first_tries(tries: u32, fault: Fault) -> impl FnMut(usize, &Write) -> Fault {
    move |_, write| if write.interruptions < tries { fault } else { Fault::None }
}

#[test]
fn an_error_of_the_device_names_it_where_and_what_to_do() {
    let offset = format!("writing 65536 bytes at offset {}", 3 * CHUNK);
    for (errno, words) in [
        (libc::ENOSPC, ["No space left", "make room"]),
        (libc::EIO, ["Input/output error", "kernel log"]),
        (libc::ENODEV, ["No such device", "its paths"]),
        (libc::ENXIO, ["No such device or address", "its paths"]),
        (libc::EROFS, ["Read-only", "make it writable"]),
    ] {
        let words = [words[0], words[1], &offset, "/media"];
        each_engine(|| on_chunk(3, Fault::Errno(errno)), fails(Kind::Device, &words));
    }
}

#[test]
fn an_error_that_comes_once_is_an_error() {
    let once = || {
        let mut told = false;
        move |_: usize, _: &Write| {
            if std::mem::replace(&mut told, true) { Fault::None } else { Fault::Errno(libc::EIO) }
        }
    };
    each_engine(once, fails(Kind::Device, &["Input/output error"]));
}

#[test]
fn a_device_that_vanishes_midway() {
    let gone = || move |number: usize, _: &Write| if number >= 4 { Fault::Errno(libc::ENXIO) } else { Fault::None };
    each_engine(gone, fails(Kind::Device, &["No such device"]));
}

#[test]
fn a_commit_that_fails_is_taken_back() {
    for chunk in [0, CHUNKS - 1] {
        each_engine(|| on_chunk(chunk, Fault::Errno(libc::EIO)), fails(Kind::Device, &["Input/output error"]));
    }
}

#[test]
fn short_writes_are_finished_and_whole_blocks_written_again() {
    for taken in [1, 511, 513, 4095, 4097, 32768, CHUNK - 1] {
        let first = move |_: usize, write: &Write| {
            if write.from + write.interruptions as usize == 0 { Fault::Short(taken) } else { Fault::None }
        };
        each_engine(|| first, succeeds);
    }
}

/// Each try gets one block further, or not even that.
#[test]
fn a_device_that_takes_block_after_block_is_finished() {
    let crumbs = |number: usize, write: &Write| match number % 2 {
        _ if write.len <= 4096 => Fault::None,
        0 => Fault::Short(4096),
        _ => Fault::Short(100),
    };
    each_engine(|| crumbs, succeeds);
}

#[test]
fn a_device_that_takes_nothing_is_an_error() {
    each_engine(|| on_chunk(2, Fault::Short(0)), fails(Kind::Device, &["write zero"]));
}

#[test]
fn a_device_that_takes_more_than_it_was_given_is_an_error() {
    each_engine(|| on_chunk(2, Fault::Long), fails(Kind::Device, &["says that it took 65537"]));
}

#[test]
fn interruptions_are_borne_but_not_for_ever() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        each_engine(|| first_tries(99, Fault::Errno(errno)), succeeds);
        each_engine(|| on_chunk(2, Fault::Errno(errno)), fails(Kind::Device, &["offset 131072"]));
    }
}

#[test]
fn completions_in_any_order() {
    let every_other =
        || move |number: usize, _: &Write| if number.is_multiple_of(2) { Fault::Late } else { Fault::None };
    each_engine(every_other, succeeds);
}

/// An outcome cannot be told twice, by types; one that is not told at all is an error.
#[test]
fn a_write_that_the_engine_loses_is_an_error() {
    each_engine(|| on_chunk(5, Fault::Lost), fails(Kind::Device, &["lost by the write engine"]));
}

#[test]
fn a_write_that_is_acknowledged_and_dropped_is_found() {
    each_engine(|| on_chunk(5, Fault::Dropped), fails(Kind::Proof, &["chunk 1 of span 1", "read back wrong"]));
}

#[test]
fn a_write_that_lands_elsewhere_is_found() {
    let elsewhere = Fault::Misplaced(6 * CHUNK as u64);
    each_engine(|| on_chunk(2, elsewhere), fails(Kind::Proof, &["chunk 2 of span 0", "read back wrong"]));
}

#[test]
fn anothers_data_is_found() {
    each_engine(|| on_chunk(7, Fault::Foreign), fails(Kind::Proof, &["chunk 3 of span 1", "read back wrong"]));
}

#[test]
fn lies_about_the_commit_are_found_and_taken_back() {
    for chunk in [0, CHUNKS - 1] {
        for lie in [Fault::Dropped, Fault::Foreign, Fault::Misplaced(4 * CHUNK as u64)] {
            let name = format!("raw offset {}", chunk * CHUNK);
            each_engine(|| on_chunk(chunk, lie), fails(Kind::Proof, &["read back wrong", &name]));
        }
    }
}

/// Behaves at flush number `.0`.
struct AtFlush(usize, FlushFault);

impl Script for AtFlush {
    fn write(&mut self, _: usize, _: &Write) -> Fault {
        Fault::None
    }

    fn flush(&mut self, number: usize) -> FlushFault {
        if number == self.0 { self.1 } else { FlushFault::None }
    }
}

/// One flush before the proof, one after each of the two committed chunks.
const FLUSHES: usize = 3;

#[test]
fn a_flush_that_fails_is_an_error() {
    for number in 0..FLUSHES {
        each_engine_with(&proven_last(), || AtFlush(number, FlushFault::Fails), fails(Kind::Device, &["flushing"]));
        // While the proof follows, there are these and some more.
        each_engine(|| AtFlush(number, FlushFault::Fails), fails(Kind::Device, &["flushing"]));
    }
    let media = Media::new();
    let bench = media.bench(AtFlush(FLUSHES, FlushFault::Fails));
    block_on(media.write(&bench, EngineKind::Direct, &proven_last())).unwrap();
    assert_eq!(bench.counts().1, FLUSHES, "flushes of a run");
}

#[test]
fn a_power_cut_instead_of_a_flush_is_found() {
    for number in 0..FLUSHES {
        each_engine_with(
            &proven_last(),
            || AtFlush(number, FlushFault::PowerCut),
            fails(Kind::Proof, &["read back wrong"]),
        );
    }
}

/// A flush that loses what it should have kept, while other chunks are on their way: found, unless there was nothing to lose.
#[test]
fn a_power_cut_while_the_proof_follows_is_found() {
    for number in 0..2 * FLUSHES {
        each_engine(
            || AtFlush(number, FlushFault::PowerCut),
            |media, outcome| match outcome {
                Ok(_) => media.holds_the_image(),
                error => fails(Kind::Proof, &["read back wrong"])(media, error),
            },
        );
    }
}

/// A device that is smaller than it says, and keeps what is beyond its end in place of what it had there before.
#[test]
fn a_late_write_that_also_lands_on_a_proven_chunk_is_found() {
    let (victim, late) = (2 * CHUNK as u64, 6 * CHUNK as u64);
    each_engine(
        || move |_: usize, write: &Write| if write.offset == late { Fault::AlsoAt(victim) } else { Fault::None },
        fails(Kind::Proof, &["read back wrong"]),
    );
}

/// A power cut of the whole machine, at every moment of a run: what was flushed is on the media, of what came later any part
/// may be, down to single sectors. If then anything of the first chunk is there, everything else is.
#[test]
fn after_a_power_cut_at_any_moment_the_target_is_whole_or_does_not_boot() {
    let media = Media::new();
    let bench = media.bench(|_: usize, _: &Write| Fault::None);
    block_on(media.write(&bench, EngineKind::Direct, &WriteOptions::default())).unwrap();
    let log = bench.log();
    assert_eq!(log.iter().filter(|logged| matches!(logged, Logged::Write { .. })).count(), CHUNKS);
    let mut dice = noise(3, 1 << 20).into_iter().cycle();
    let (mut with_first, mut without) = (0, 0);
    for cut in 0..=log.len() {
        for _ in 0..40 {
            let now = after_a_cut(&media.old, &log[..cut], &mut dice);
            let rest_is_right = now[CHUNK..] == sample().raw[CHUNK..];
            let starts = now[..CHUNK].iter().any(|byte| *byte != 0);
            assert!(!starts || rest_is_right, "cut after {cut} of {} steps", log.len());
            with_first += u32::from(starts);
            without += u32::from(!starts);
        }
    }
    assert!(with_first > 20 && without > 200, "{with_first} and {without}: that tests nothing");
}

/// What the media hold when the power fails after these steps.
fn after_a_cut(old: &[u8], log: &[Logged], dice: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut now = old.to_vec();
    // Where a run starts from: both ends zeroed and flushed, before the first write of the engine.
    now[..CHUNK].fill(0);
    now[(CHUNKS - 1) * CHUNK..].fill(0);
    let durable = log.iter().rposition(|logged| matches!(logged, Logged::Flush)).unwrap_or(0);
    for (step, logged) in log.iter().enumerate() {
        let Logged::Write { offset, bytes, .. } = logged else { continue };
        let odds = dice.next().unwrap();
        for (number, sector) in bytes.chunks(512).enumerate() {
            let at = *offset as usize + number * 512;
            if at < now.len() && (step < durable || dice.next().unwrap() <= odds) {
                now[at..at + 512].copy_from_slice(sector);
            }
        }
    }
    now
}

#[test]
fn a_write_that_never_comes_back_is_given_up() {
    let quick = WriteOptions { stall_limit: Duration::from_millis(300), ..WriteOptions::default() };
    for engine in engines() {
        for chunk in [0, 4] {
            let media = Media::new();
            let bench = media.bench(on_chunk(chunk, Fault::Hangs));
            block_on(async {
                let since = Instant::now();
                let error = media.write(&bench, engine, &quick).await.unwrap_err();
                assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
                assert_eq!((error.kind(), error.retry()), (Kind::Device, crate::error::Retry::Temporary), "{error}");
                let said = error.to_string();
                assert!(said.contains("write: 1 writes to ") && said.contains("was given up"), "{said}");
                assert!(media.progress.given_up.load(Relaxed));
                let flushes = bench.counts().1;
                bench.release();
                // What waited for it comes back, and does nothing more.
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(bench.counts().1, flushes);
            });
            media.does_not_boot();
        }
    }
}
