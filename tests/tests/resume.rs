//! `--resume`: the media say what they hold, only what differs is fetched and written, and what is right is left alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use e2e::{Done, Image, KIB, Lab, Layout, MIB, Run, Target, exit, sample};
use serde_json::Value;

const CHUNK: u64 = 256 * KIB;
const SIZE: u64 = 8 * MIB;

/// Data, four chunks of zeros, data.
fn raw() -> Vec<u8> {
    let mut raw = sample::noise(81, SIZE as usize);
    raw[(4 * CHUNK) as usize..(8 * CHUNK) as usize].fill(0);
    raw
}

fn packed(lab: &Lab, raw: &[u8]) -> Image {
    lab.pack_bytes(raw, "--chunk-size 256KiB --level 1")
}

fn resume(image: &Image, target: &Target) -> Run {
    image.write(&image.dir, target.path()).args(["--resume", "--json"])
}

/// The report of a run's summary.
#[track_caller]
fn report(done: Done) -> Value {
    let done = done.ok();
    done.json().into_iter().rfind(|line| line["event"] == "summary").expect("a summary")["report"].clone()
}

/// A copy of the image without its data: whoever succeeds with it has fetched none.
fn without_data(lab: &Lab, image: &Image) -> PathBuf {
    let dir = lab.copy(&image.dir);
    Layout::new(&dir).data_blobs().iter().for_each(|blob| drop(std::fs::remove_file(blob)));
    dir
}

fn put(target: &Target, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(target.path()).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn an_unchanged_target_needs_metadata_only() {
    let lab = Lab::new();
    let (raw, target) = (raw(), Target::device(&lab, SIZE, ""));
    let image = packed(&lab, &raw);
    image.write(&image.dir, target.path()).done().ok();
    let written = target.loop_device().sectors_written();
    let bare = without_data(&lab, &image);
    let again = report(image.write(&bare, target.path()).args(["--resume", "--json"]).done());
    assert_eq!((&again["fetched_bytes"], &again["kept_bytes"]), (&0.into(), &SIZE.into()));
    assert_eq!((&again["data_bytes"], &again["read_back_bytes"]), (&0.into(), &SIZE.into()));
    assert_eq!(target.loop_device().sectors_written(), written, "something was written");
    assert!(target.now() == raw);
}

#[test]
fn only_what_differs_is_fetched() {
    let lab = Lab::new();
    let (raw, target) = (raw(), Target::device(&lab, SIZE, ""));
    let image = packed(&lab, &raw);
    image.write(&image.dir, target.path()).done().ok();
    // One byte of a data chunk, one of a chunk of zeros.
    put(&target, 20 * CHUNK + 77, &[!raw[(20 * CHUNK + 77) as usize]]);
    put(&target, 5 * CHUNK + 9, &[1]);
    let mended = report(resume(&image, &target).done());
    assert!(target.now() == raw);
    // The chunk that differed, and the two ends, which were taken away for as long as the target was wrong.
    let fetched = mended["fetched_bytes"].as_u64().unwrap();
    assert!((2 * CHUNK..4 * CHUNK).contains(&fetched), "{fetched} bytes were fetched");
    assert_eq!(mended["kept_bytes"], SIZE - 4 * CHUNK);
    assert_eq!((&mended["zero_bytes"], &mended["data_bytes"]), (&CHUNK.into(), &(3 * CHUNK).into()));
    assert_eq!(mended["read_back_bytes"], SIZE);
}

#[test]
fn from_one_version_to_the_next() {
    let lab = Lab::new();
    let (old, target) = (raw(), Target::device(&lab, SIZE, ""));
    let mut new = old.clone();
    new[(9 * CHUNK) as usize..(10 * CHUNK) as usize].copy_from_slice(&sample::noise(82, CHUNK as usize));
    new[(12 * CHUNK) as usize..(13 * CHUNK) as usize].fill(0);
    new[(6 * CHUNK) as usize..][..4].copy_from_slice(b"data");
    let (first, second) = (packed(&lab, &old), packed(&lab, &new));
    first.write(&first.dir, target.path()).done().ok();
    let done = report(resume(&second, &target).done());
    assert!(target.now() == new);
    assert_eq!(done["kept_bytes"], SIZE - 5 * CHUNK);
}

#[test]
fn a_target_with_nothing_of_the_image_gets_all_of_it() {
    let lab = Lab::new();
    let raw = raw();
    let image = packed(&lab, &raw);
    for target in [Target::device(&lab, SIZE, ""), Target::file(&lab, SIZE)] {
        let done = report(resume(&image, &target).done());
        assert_eq!((&done["kept_bytes"], &done["read_back_bytes"]), (&0.into(), &SIZE.into()));
        assert!(target.now() == raw);
    }
    let fresh = lab.fresh("new");
    image.write(&image.dir, &fresh).arg("--resume").done().ok();
    assert!(std::fs::read(fresh).unwrap() == raw);
}

/// Whether old bytes show through a hole depends on what is there, so a hole is compared too.
#[test]
fn a_hole_on_an_old_target_is_zeroed_and_then_left_alone() {
    let lab = Lab::new();
    let file = lab.fresh("sparse");
    let data = sample::noise(83, MIB as usize);
    sample::sparse(&file, SIZE).write_all_at(&data, 0).unwrap();
    let image = lab.pack(&file, "--chunk-size 256KiB --holes");
    let target = Target::device(&lab, SIZE, "");
    resume(&image, &target).done().ok();
    assert!(target.now() == std::fs::read(&file).unwrap());
    put(&target, 5 * MIB + 3, b"old");
    report(resume(&image, &target).done());
    assert!(target.now() == std::fs::read(&file).unwrap());
    let again = report(resume(&image, &target).done());
    assert_eq!(again["kept_bytes"], SIZE);
}

#[test]
fn what_is_refused_leaves_the_target_alone() {
    let lab = Lab::new();
    let image = packed(&lab, &raw());
    let target = Target::device(&lab, SIZE, "");
    let other = lab.key();
    let write = Run::imgstream().arg("write").arg(&image.dir).arg(target.path()).arg("--resume");
    write.arg("--trust").arg(other.public).done().exits(exit::IMAGE);
    target.is_untouched();
    // The index is there, the data are not: found out when the target has been invalidated.
    let bare = without_data(&lab, &image);
    image.write(&bare, target.path()).arg("--resume").done().exits(exit::SOURCE).says("does not boot");
    assert!(target.starts_with_zeros(CHUNK));
}

#[test]
fn without_read_back_what_was_written_is_not_proven() {
    let lab = Lab::new();
    let (raw, target) = (raw(), Target::device(&lab, SIZE, ""));
    let image = packed(&lab, &raw);
    let done = report(resume(&image, &target).arg("--no-read-back").done());
    assert_eq!(done["read_back_bytes"], Value::Null);
    assert!(target.now() == raw);
}
