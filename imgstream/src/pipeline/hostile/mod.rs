//! Whole runs onto devices that fail, dawdle, forget or lie. Whatever such a device does: a run that ends well has left
//! exactly the image, and one that does not has left nothing that boots. The image lies on one device, or is split over two.

mod cuts;
mod fates;
mod media;
mod permits;
mod resumes;

use std::time::Instant;

use super::*;
use crate::error::Retry;
use crate::sink::EngineKind;
use crate::sink::engine::Write;
use crate::sink::faulty::{Bench, Fault, FlushFault, Logged, Script};
use media::{CHUNK, CHUNKS, LAYOUTS, Layout, Media, SIZE, engines, noise, raw_offset, sample};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs with every engine, onto one device and onto two that behave like `script`; hands over the media and what came of it.
fn each_engine<S: Script + 'static>(script: impl Fn() -> S, check: impl Fn(&Media, Result<Report>)) {
    each_engine_with(&WriteOptions::default(), |_| script(), check);
}

fn each_engine_with<S: Script + 'static>(
    options: &WriteOptions,
    script: impl Fn(Layout) -> S,
    check: impl Fn(&Media, Result<Report>),
) {
    for (layout, engine) in LAYOUTS.into_iter().flat_map(|layout| engines().into_iter().map(move |of| (layout, of))) {
        let media = Media::new(layout);
        let outcome = block_on(media.write(&Bench::new(script(layout)), engine, options));
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
    move |_, write| if raw_offset(write) / CHUNK as u64 == chunk as u64 { fault } else { Fault::None }
}

/// The fault, for the first so many tries of each write.
fn first_tries(tries: u32, fault: Fault) -> impl FnMut(usize, &Write) -> Fault {
    move |_, write| if write.interruptions < tries { fault } else { Fault::None }
}

#[test]
fn an_error_of_the_device_names_it_where_and_what_to_do() {
    let offset = format!("writing 65536 bytes at offset {}", 7 * CHUNK);
    for (errno, words) in [
        (libc::ENOSPC, ["No space left", "make room"]),
        (libc::EIO, ["Input/output error", "kernel log"]),
        (libc::ENODEV, ["No such device", "its paths"]),
        (libc::ENXIO, ["No such device or address", "its paths"]),
        (libc::EROFS, ["Read-only", "make it writable"]),
    ] {
        let words = [words[0], words[1], &offset, "/media"];
        each_engine(|| on_chunk(7, Fault::Errno(errno)), fails(Kind::Device, &words));
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
        each_engine(|| on_chunk(7, Fault::Errno(errno)), fails(Kind::Device, &["offset 458752"]));
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

/// On the next chunk, which is of the same span, so that it is known which of the two is named first.
#[test]
fn a_write_that_lands_elsewhere_is_found() {
    let astray = |_: usize, write: &Write| {
        let is_second = raw_offset(write) == 2 * CHUNK as u64;
        if is_second { Fault::Misplaced(write.offset + CHUNK as u64) } else { Fault::None }
    };
    each_engine(|| astray, fails(Kind::Proof, &["chunk 2 of span 0", "read back wrong"]));
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

/// A device that is smaller than it says, and keeps what is beyond its end in place of what it had there before.
#[test]
fn a_late_write_that_also_lands_on_a_proven_chunk_is_found() {
    let (behind, late) = (2 * CHUNK as u64, 4 * CHUNK as u64);
    each_engine(
        || {
            move |_: usize, write: &Write| {
                if raw_offset(write) == late { Fault::AlsoAt(write.offset - behind) } else { Fault::None }
            }
        },
        fails(Kind::Proof, &["read back wrong"]),
    );
}

#[test]
fn a_write_that_never_comes_back_is_given_up() {
    // Shorter, and a real flush on a busy machine would be a stall.
    let quick = WriteOptions { stall_limit: Duration::from_secs(1), ..WriteOptions::default() };
    for (layout, chunk) in [(Layout::Single, 0), (Layout::Single, 4), (Layout::Split, 0)] {
        for engine in engines() {
            let media = Media::new(layout);
            let bench = Bench::new(on_chunk(chunk, Fault::Hangs));
            block_on(async {
                let since = Instant::now();
                let error = media.write(&bench, engine, &quick).await.unwrap_err();
                assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
                assert_eq!((error.kind(), error.retry()), (Kind::Device, Retry::Temporary), "{error}");
                let said = error.to_string();
                assert!(said.contains("write: 1 writes to ") && said.contains("was given up"), "{said}");
                assert!(media.progress.given_up.load(Relaxed));
                let (flushes, now) = (bench.counts().1, media.now());
                bench.release();
                // What waited for it comes back, and does nothing more, not even to take back what was committed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(bench.counts().1, flushes);
                assert!(media.now() == now, "something was written");
            });
            media.does_not_boot();
        }
    }
}
