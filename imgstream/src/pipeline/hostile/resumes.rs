//! Runs that are to resume what may never have begun, and images that have something where a target has no place.

use super::media::{MAPPED, NOWHERE, Sample};
use super::*;

fn none(_: usize, _: &Write) -> Fault {
    Fault::None
}

fn write(image: &Sample, media: &Media, bench: &Bench, options: &WriteOptions) -> Result<Report> {
    block_on(media.write_image(image, bench, EngineKind::Direct, options, &CancellationToken::new()))
}

fn resuming() -> WriteOptions {
    WriteOptions { resume: true, foreign: Some("gpt, LVM2_member".into()), ..WriteOptions::default() }
}

#[test]
fn what_holds_nothing_of_the_image_but_somebody_elses_is_not_resumed() {
    for layout in LAYOUTS {
        let media = Media::new(layout);
        let bench = Bench::new(none);
        let error = block_on(media.write(&bench, EngineKind::Direct, &resuming())).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.kind(), Kind::Target, "{said}");
        assert!(
            said.starts_with("nothing of this image is on ") && said.contains("it holds gpt, LVM2_member"),
            "{said}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("allow it to be wiped")), "{error}");
        assert!(media.now() == media.old && bench.counts().0 == 0, "something was written");
        assert!(!media.progress.snapshot().has_touched_target());
        // Nobody said that it is somebody else's.
        let media = media.for_another_run();
        let unknown = WriteOptions { foreign: None, ..resuming() };
        block_on(media.write(&Bench::new(none), EngineKind::Direct, &unknown)).unwrap();
        media.holds_the_image();
    }
}

#[test]
fn one_chunk_of_the_image_is_enough_to_resume() {
    for layout in LAYOUTS {
        for chunk in [0, 3, CHUNKS - 1] {
            let media = Media::new(layout);
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(SIZE);
            media.put(range.clone(), &sample().raw[range]);
            block_on(media.write(&Bench::new(none), EngineKind::Direct, &resuming())).unwrap();
            media.holds_the_image();
        }
    }
}

/// Zeros are on any media: that they are where the image has them says nothing of who put them there.
#[test]
fn zeros_alone_are_no_sign_of_an_earlier_attempt() {
    let mut raw = noise(5, SIZE);
    raw[3 * CHUNK..5 * CHUNK].fill(0);
    let media = Media::new(Layout::Single);
    media.put(3 * CHUNK..5 * CHUNK, &[0; 2 * CHUNK]);
    let error = write(&media::packed(raw), &media, &Bench::new(none), &resuming()).unwrap_err();
    assert_eq!(error.kind(), Kind::Target, "{error}");
}

#[test]
fn resuming_onto_several_devices_finds_nothing_to_do() {
    for engine in engines() {
        let media = Media::new(Layout::Split);
        block_on(media.write(&Bench::new(none), engine, &WriteOptions::default())).unwrap();
        let media = media.for_another_run();
        let bench = Bench::new(none);
        let report = block_on(media.write(&bench, engine, &resuming())).unwrap();
        assert_eq!((report.kept_bytes, report.fetched_bytes, bench.counts().0), (Some(SIZE as u64), 0, 0));
        media.holds_the_image();
    }
}

#[test]
fn a_byte_that_has_no_place_is_refused_before_its_chunk_is_written() {
    // In the chunk that ends nowhere, and in the one that begins there.
    for (at, chunk) in [(NOWHERE.start, 5), (NOWHERE.end - 1, 6)] {
        let mut raw = sample().raw.clone();
        raw[at] = 1;
        let (image, bench, media) = (media::packed(raw), Bench::new(none), Media::new(Layout::Split));
        let error = write(&image, &media, &bench, &WriteOptions::default()).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.kind(), Kind::Image, "{said}");
        let region = format!("the encrypted region at raw offset {}", MAPPED.start);
        assert!(said.contains(&format!("byte {at} of the image")) && said.contains(&region), "{said}");
        let is_of_it = |logged: &Logged| match logged {
            Logged::Write { device, offset, .. } => media::raw_at(*device, *offset) as usize / CHUNK == chunk,
            Logged::Flush { .. } => false,
        };
        assert!(!bench.log().iter().any(is_of_it), "part of the chunk was written");
        media.does_not_boot();
        // One device has a place for everything.
        let media = Media::new(Layout::Single);
        write(&image, &media, &Bench::new(none), &WriteOptions::default()).unwrap();
        assert!(media.now() == image.raw);
    }
}
