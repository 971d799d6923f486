//! Runs that lose their right to write: nothing is written after that, not even to clean up.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

/// Refuses the question number `.0`, and counts the questions. Nobody may ask again after that.
#[derive(Debug)]
struct Refusing {
    at: usize,
    asked: AtomicUsize,
}

impl Permit for Refusing {
    fn may_write(&self) -> Result<()> {
        let number = self.asked.fetch_add(1, Relaxed);
        assert!(number <= self.at, "asked again after a refusal");
        if number == self.at {
            let conflict = std::io::Error::from_raw_os_error(libc::EBADE);
            return Err(Error::target("the lease is lost").with_source(conflict).with_hint("see the newer run"));
        }
        Ok(())
    }
}

/// Permits all questions before number `at`; how to write with that.
fn refusing(at: usize) -> (Arc<Refusing>, WriteOptions) {
    let permit = Arc::new(Refusing { at, asked: AtomicUsize::new(0) });
    let options = WriteOptions { permit: Some(Arc::clone(&permit) as Arc<dyn Permit>), ..WriteOptions::default() };
    (permit, options)
}

fn none(_: usize, _: &Write) -> Fault {
    Fault::None
}

/// The permit's own error, with these words added.
#[track_caller]
fn is_the_refusal(error: &Error, words: &[&str]) {
    let said = error.to_string();
    assert_eq!((error.kind(), error.hint()), (Kind::Target, Some("see the newer run")), "{said}");
    assert!(said.starts_with("the lease is lost; ") && error.is_reservation_conflict(), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{said} does not say {word:?}"));
}

/// For each engine, on each layout.
fn each(check: impl Fn(Media, EngineKind)) {
    LAYOUTS.into_iter().for_each(|layout| engines().into_iter().for_each(|engine| check(Media::new(layout), engine)));
}

#[test]
fn refused_before_anything_the_target_is_as_it_was() {
    each(|media, engine| {
        let (bench, (permit, options)) = (Bench::new(none), refusing(0));
        let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
        is_the_refusal(&error, &["this run has written nothing to ", "/media"]);
        assert!(media.now() == media.old, "something was written");
        media.leaves_the_slot_alone();
        assert_eq!((bench.counts(), permit.asked.load(Relaxed)), ((0, 0), 1));
        assert!(!media.progress.snapshot().has_touched_target());
    });
}

#[test]
fn refused_before_the_commit_nothing_of_what_boots_is_written_and_nothing_zeroed() {
    each(|media, engine| {
        let (bench, (permit, options)) = (Bench::new(none), refusing(1));
        let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
        is_the_refusal(&error, &["may hold part of the image, and nothing of this run's that boots"]);
        let mut expected = sample().raw.clone();
        expected[..CHUNK].fill(0);
        expected[(CHUNKS - 1) * CHUNK..].fill(0);
        assert!(media.now() == expected, "the media hold something else than all but the withheld chunks");
        assert_eq!((bench.counts().0, permit.asked.load(Relaxed)), (CHUNKS - 2, 2));
        assert!(!media.progress.snapshot().has_entered(Phase::Committing));
    });
}

/// The last chunk is committed, the first one fails: it would be taken back, but is not.
#[test]
fn refused_while_failing_nothing_is_cleaned_up() {
    each(|media, engine| {
        let (bench, (permit, options)) = (Bench::new(on_chunk(0, Fault::Errno(libc::EIO))), refusing(2));
        let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
        is_the_refusal(&error, &["may hold the whole image, and may boot", "before that: ", "Input/output error"]);
        let mut expected = sample().raw.clone();
        expected[..CHUNK].fill(0);
        assert!(media.now() == expected, "something was zeroed");
        assert_eq!(permit.asked.load(Relaxed), 3);
    });
}

/// The proof of the commit fails: the same.
#[test]
fn refused_after_a_wrong_proof_nothing_is_cleaned_up() {
    each(|media, engine| {
        let (bench, (permit, options)) = (Bench::new(on_chunk(CHUNKS - 1, Fault::Dropped)), refusing(2));
        let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
        is_the_refusal(&error, &["may hold the whole image, and may boot", "before that: ", "read back wrong"]);
        assert!(media.now()[..CHUNK] == sample().raw[..CHUNK], "the first chunk was zeroed");
        assert_eq!(permit.asked.load(Relaxed), 3);
    });
}

/// Without a permit, too: the device itself says that another one has taken over.
#[test]
fn a_reservation_conflict_in_the_commit_ends_all_writing() {
    each(|media, engine| {
        let bench = Bench::new(on_chunk(0, Fault::Errno(libc::EBADE)));
        let error = block_on(media.write(&bench, engine, &WriteOptions::default())).unwrap_err();
        assert!(error.kind() == Kind::Device && error.is_reservation_conflict(), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("has taken over")), "{error}");
        assert!(error.to_string().contains("may hold the whole image, and may boot"), "{error}");
        let mut expected = sample().raw.clone();
        expected[..CHUNK].fill(0);
        assert!(media.now() == expected, "something was zeroed");
    });
}

#[test]
fn a_reservation_conflict_while_writing_is_known_without_matching_text() {
    each_engine(
        || on_chunk(7, Fault::Errno(libc::EBADE)),
        |media, outcome| {
            let error = outcome.unwrap_err();
            assert!(error.is_reservation_conflict(), "{error:?}");
            media.does_not_boot();
        },
    );
}

#[test]
fn who_is_never_refused_is_asked_twice() {
    each(|media, engine| {
        let (permit, options) = refusing(usize::MAX);
        block_on(media.write(&Bench::new(none), engine, &options)).unwrap();
        media.holds_the_image();
        assert_eq!(permit.asked.load(Relaxed), 2, "before the first touch, and before the commit");
    });
}

/// A file that padding has made longer, as happens where O_DIRECT needs larger blocks than the image's sectors.
fn lengthen(path: &std::path::Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4096], SIZE as u64).unwrap();
}

#[test]
fn refused_in_the_clean_up_of_a_failed_run_a_file_keeps_its_padding() {
    for engine in engines() {
        let media = Media::new(Layout::Single);
        let path = media.lun();
        let failing = move |_: usize, write: &Write| {
            lengthen(&path);
            if raw_offset(write) == 3 * CHUNK as u64 { Fault::Errno(libc::EIO) } else { Fault::None }
        };
        let (permit, options) = refusing(1);
        let error = block_on(media.write(&Bench::new(failing), engine, &options)).unwrap_err();
        is_the_refusal(&error, &["may hold part of the image", "before that: ", "Input/output error"]);
        assert_eq!(std::fs::metadata(media.lun()).unwrap().len(), SIZE as u64 + 4096, "the file was cut");
        assert_eq!(permit.asked.load(Relaxed), 2);
    }
}

#[test]
fn refused_at_the_very_end_a_file_keeps_its_padding() {
    for engine in engines() {
        let media = Media::new(Layout::Single);
        let path = media.lun();
        let lengthening = move |_: usize, _: &Write| {
            lengthen(&path);
            Fault::None
        };
        let (permit, options) = refusing(2);
        let error = block_on(media.write(&Bench::new(lengthening), engine, &options)).unwrap_err();
        is_the_refusal(&error, &["may hold the whole image, and may boot"]);
        assert_eq!(std::fs::metadata(media.lun()).unwrap().len(), SIZE as u64 + 4096, "the file was cut");
        assert_eq!(permit.asked.load(Relaxed), 3);
    }
}

/// A resumed run that finds nothing to do asks as well, before it looks after what lies beyond the image.
#[test]
fn a_run_with_nothing_to_do_may_be_refused() {
    each(|media, engine| {
        block_on(media.write(&Bench::new(none), engine, &WriteOptions::default())).unwrap();
        let (permit, options) = refusing(0);
        let media = media.for_another_run();
        let options = WriteOptions { resume: true, ..options };
        let error = block_on(media.write(&Bench::new(none), engine, &options)).unwrap_err();
        is_the_refusal(&error, &["this run has written nothing to "]);
        assert_eq!(permit.asked.load(Relaxed), 1);
        media.holds_the_image();
    });
}

/// Cancelled when the first write is begun: no other is begun, and what is left of that one is not either.
#[test]
fn once_a_run_is_over_no_write_is_begun() {
    for fault in [Fault::Late, Fault::Short(4096), Fault::Errno(libc::EINTR)] {
        each(|media, engine| {
            let cancel = CancellationToken::new();
            let cancelling = cancel.clone();
            let bench = Bench::new(move |_: usize, _: &Write| {
                cancelling.cancel();
                fault
            });
            let options = WriteOptions { workers: 1, ..WriteOptions::default() };
            let error = block_on(media.write_image(sample(), &bench, engine, &options, &cancel)).unwrap_err();
            assert_eq!(error.kind(), Kind::Cancelled, "{error}");
            assert_eq!(bench.counts().0, 1, "writes begun");
            media.does_not_boot();
        });
    }
}

/// Over without being asked, from the moment that it is told so; and then it says why.
#[derive(Debug, Default)]
struct Passing {
    over: AtomicBool,
    asked_after: AtomicUsize,
}

impl Permit for Passing {
    fn may_write(&self) -> Result<()> {
        if !self.is_over() {
            return Ok(());
        }
        self.asked_after.fetch_add(1, Relaxed);
        Err(Error::target("the lease is over"))
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

fn passing() -> (Arc<Passing>, WriteOptions) {
    let permit = Arc::<Passing>::default();
    let options =
        WriteOptions { permit: Some(Arc::clone(&permit) as Arc<dyn Permit>), workers: 1, ..WriteOptions::default() };
    (permit, options)
}

/// As a process that was stopped, and wakes up when its lease is over: nobody has cancelled anything.
#[test]
fn once_a_permit_is_over_no_write_is_begun() {
    for fault in [Fault::Late, Fault::Short(4096), Fault::Errno(libc::EINTR)] {
        each(|media, engine| {
            let (permit, options) = passing();
            let passes = Arc::clone(&permit);
            let bench = Bench::new(move |_: usize, _: &Write| {
                passes.over.store(true, Relaxed);
                fault
            });
            let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
            assert_eq!(error.kind(), Kind::Cancelled, "{error}");
            assert_eq!(bench.counts().0, 1, "writes begun");
            media.does_not_boot();
        });
    }
}

/// The last chunk is committed when the permit passes: it is not taken back, and the first is not written.
#[test]
fn a_commit_whose_permit_passes_stays_as_it_is() {
    each(|media, engine| {
        let (permit, options) = passing();
        let passes = Arc::clone(&permit);
        let bench = Bench::new(move |_: usize, write: &Write| {
            if raw_offset(write) == (CHUNKS as u64 - 1) * CHUNK as u64 {
                passes.over.store(true, Relaxed);
            }
            Fault::None
        });
        let error = block_on(media.write(&bench, engine, &options)).unwrap_err();
        assert!(error.to_string().starts_with("the lease is over; "), "{error}");
        assert_eq!(permit.asked_after.load(Relaxed), 1);
        let (now, raw, last) = (media.now(), &sample().raw, (CHUNKS - 1) * CHUNK);
        assert!(now[..CHUNK].iter().all(|byte| *byte == 0), "the first chunk is there");
        assert!(now[CHUNK..last] == raw[CHUNK..last], "something was zeroed");
        // An engine with threads may have had it waiting still.
        assert!(now[last..] == raw[last..] || now[last..].iter().all(|byte| *byte == 0), "the last chunk");
    });
}

/// Answers late, and then well.
#[derive(Debug)]
struct Late {
    from: usize,
    asked: AtomicUsize,
}

impl Permit for Late {
    fn may_write(&self) -> Result<()> {
        if self.asked.fetch_add(1, Relaxed) >= self.from {
            std::thread::sleep(Duration::from_secs(4));
        }
        Ok(())
    }
}

fn late(from: usize) -> WriteOptions {
    let permit = Some(Arc::new(Late { from, asked: AtomicUsize::new(0) }) as Arc<dyn Permit>);
    WriteOptions { permit, stall_limit: Duration::from_secs(1), ..WriteOptions::default() }
}

#[test]
fn a_permit_that_comes_too_late_is_named_and_of_no_use() {
    let media = Media::new(Layout::Split);
    let bench = Bench::new(none);
    block_on(async {
        let since = Instant::now();
        let error = media.write(&bench, EngineKind::Direct, &late(0)).await.unwrap_err();
        assert!(since.elapsed() < Duration::from_millis(3900), "{:?}", since.elapsed());
        assert_eq!((error.kind(), error.retry()), (Kind::Target, Retry::Temporary), "{error}");
        assert!(error.to_string().contains("whether this run may still write has not been answered"), "{error}");
        tokio::time::sleep(Duration::from_millis(4500)).await;
    });
    assert!(media.now() == media.old && bench.counts() == (0, 0), "something was written");
}

#[test]
fn a_permit_to_clean_up_that_comes_too_late_is_of_no_use() {
    let media = Media::new(Layout::Single);
    let path = media.lun();
    let failing = move |_: usize, _: &Write| {
        lengthen(&path);
        Fault::Errno(libc::EIO)
    };
    block_on(async {
        let error = media.write(&Bench::new(failing), EngineKind::Direct, &late(1)).await.unwrap_err();
        assert!(error.to_string().contains("given up"), "{error}");
        tokio::time::sleep(Duration::from_millis(4500)).await;
    });
    assert_eq!(std::fs::metadata(media.lun()).unwrap().len(), SIZE as u64 + 4096, "the file was cut");
}

/// Cancelled when the commit begins: what was committed is taken back, and nothing else is.
#[test]
fn a_commit_that_is_cancelled_is_taken_back() {
    each(|media, engine| {
        let cancel = CancellationToken::new();
        let cancelling = cancel.clone();
        let bench = Bench::new(move |_: usize, write: &Write| {
            if raw_offset(write) == (CHUNKS as u64 - 1) * CHUNK as u64 {
                cancelling.cancel();
            }
            Fault::None
        });
        let error =
            block_on(media.write_image(sample(), &bench, engine, &WriteOptions::default(), &cancel)).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled, "{error}");
        let now = media.now();
        assert!(now[..CHUNK].iter().chain(&now[(CHUNKS - 1) * CHUNK..]).all(|byte| *byte == 0), "an end is there");
        assert_eq!(bench.counts().0, CHUNKS - 1, "writes begun");
    });
}
