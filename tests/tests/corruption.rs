//! Flipped bits and missing pieces: exit 5 or 3, and nothing on the target that was not verified.

use std::path::{Path, PathBuf};

use e2e::layout::flip;
use e2e::server::{Server, push};
use e2e::{Done, Image, KIB, Lab, Layout, Run, Target, exit, sample};

const CHUNK: u64 = 64 * KIB;
/// Twenty chunks and a short one.
const SIZE: u64 = 20 * CHUNK + 3 * 512;

/// An image in three spans: noise with two chunks of zeros.
fn image(lab: &Lab) -> (Vec<u8>, Image) {
    let mut raw = sample::noise(21, SIZE as usize);
    raw[5 * CHUNK as usize..7 * CHUNK as usize].fill(0);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB --span-size 512KiB");
    (raw, image)
}

#[track_caller]
fn failed(done: &Done, what: &str) {
    assert!(matches!(done.status.code(), Some(exit::SOURCE | exit::IMAGE)), "{what}: {done:?}");
}

/// Writes from the directory and from a server onto a file and a device.
#[track_caller]
fn is_refused_everywhere(lab: &Lab, image: &Image, dir: &Path, raw: &[u8], touched: bool, code: i32) {
    let server = Server::imgstream(dir);
    for from in [dir.to_str().unwrap(), &server.url()] {
        for target in [Target::device(lab, SIZE, ""), Target::file(lab, SIZE)] {
            image.write(from, target.path()).done().exits(code);
            if touched {
                target.is_unbootable_and_never_wrong(raw, CHUNK);
            } else {
                target.is_untouched();
            }
        }
    }
}

fn damaged(lab: &Lab, image: &Image, which: impl FnOnce(&Layout) -> PathBuf, at: impl FnOnce(u64) -> u64) -> PathBuf {
    let copy = lab.copy(&image.dir);
    let file = which(&Layout::new(&copy));
    let len = std::fs::metadata(&file).unwrap().len();
    flip(&file, at(len));
    copy
}

#[test]
fn a_flipped_bit_in_the_first_chunk() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.data_blobs()[0].clone(), |_| 100);
    is_refused_everywhere(&lab, &image, &dir, &raw, true, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_middle() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.data_blobs()[1].clone(), |len| len / 2);
    is_refused_everywhere(&lab, &image, &dir, &raw, true, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_last_chunk() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    // Before the seek table: 17 bytes and 8 per chunk.
    let dir = damaged(&lab, &image, |layout| layout.data_blobs()[2].clone(), |len| len - 17 - 8 * 5 - 20);
    is_refused_everywhere(&lab, &image, &dir, &raw, true, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_first_index_leaves_the_target_untouched() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.index_blobs()[0].clone(), |len| len / 2);
    is_refused_everywhere(&lab, &image, &dir, &raw, false, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_last_index() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.index_blobs()[2].clone(), |len| len - 1);
    is_refused_everywhere(&lab, &image, &dir, &raw, true, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_envelope_leaves_the_target_untouched() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, Layout::envelope_path, |len| len / 3);
    is_refused_everywhere(&lab, &image, &dir, &raw, false, exit::SOURCE);
}

#[test]
fn a_flipped_bit_in_the_manifest_leaves_the_target_untouched() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = damaged(&lab, &image, Layout::manifest_path, |len| len / 2);
    is_refused_everywhere(&lab, &image, &dir, &raw, false, exit::SOURCE);
}

#[test]
fn the_corrupt_chunk_and_its_source_are_named() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.data_blobs()[1].clone(), |len| len / 2);
    let server = Server::imgstream(&dir);
    let target = Target::file(&lab, SIZE);
    let done = image.write(server.url(), target.path()).done().exits(exit::SOURCE);
    done.says("chunk").says("span 1").says(&server.authority()).says("corrupt");
}

/// Every file of the image, bits all over it: the result is an error and an unbootable target, or exactly the image.
#[test]
fn wherever_a_bit_flips_the_target_is_never_wrong() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let key = &image.key.public;
    let (mut tried, mut harmless) = (0, Vec::new());
    for file in image.layout().blobs().into_iter().chain([image.layout().index_path()]) {
        let name = file.strip_prefix(&image.dir).unwrap().to_owned();
        let len = std::fs::metadata(&file).unwrap().len();
        for nth in 0..6 {
            let at = (len * nth / 6 + 13 * nth) % len;
            flip(&file, at);
            let target = Target::file(&lab, SIZE);
            let write = Run::imgstream().arg("write").args([&image.dir, target.path()]).arg("--trust").arg(key);
            let done = write.done();
            if done.status.success() {
                assert!(target.now() == raw, "{}: byte {at} flipped, and the target is wrong", name.display());
                harmless.push(name.clone());
            } else {
                failed(&done, &format!("{} byte {at}", name.display()));
                if target.was_touched() {
                    target.is_unbootable_and_never_wrong(&raw, CHUNK);
                }
            }
            flip(&file, at);
            tried += 1;
            std::fs::remove_file(target.backing()).unwrap();
        }
    }
    image.verify().done().ok();
    // What nothing depends on: the empty config, the seek tables, frames of zeros, words of index.json.
    assert!(tried > 50 && harmless.len() * 3 < tried, "{} of {tried} did nothing: {harmless:?}", harmless.len());
}

#[test]
fn verify_finds_a_flipped_bit_in_every_blob() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let layout = image.layout();
    let mut blobs = [layout.data_blobs(), layout.index_blobs()].concat();
    blobs.extend([layout.envelope_path(), layout.manifest_path()]);
    for blob in blobs {
        let len = std::fs::metadata(&blob).unwrap().len();
        for at in [0, len / 4, len / 2, len - 30, len - 1] {
            flip(&blob, at);
            failed(&image.verify().done(), &format!("{} byte {at}", blob.display()));
            flip(&blob, at);
        }
    }
    image.verify().done().ok();
}

#[test]
fn unpack_leaves_nothing_of_a_corrupt_image() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let dir = damaged(&lab, &image, |layout| layout.data_blobs()[2].clone(), |len| len / 2);
    let out = lab.fresh_dir("out");
    let unpack = Run::imgstream().arg("unpack").arg(&dir).arg(out.join("raw")).arg("--trust").arg(&image.key.public);
    unpack.done().exits(exit::SOURCE);
    assert_eq!(e2e::lab::listing(&out), Vec::<String>::new());
}

#[test]
fn a_blob_that_is_missing_or_cut_short() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let missing = lab.copy(&image.dir);
    std::fs::remove_file(&Layout::new(&missing).data_blobs()[1]).unwrap();
    is_refused_everywhere(&lab, &image, &missing, &raw, true, exit::SOURCE);
    let short = lab.copy(&image.dir);
    let blob = Layout::new(&short).data_blobs()[1].clone();
    let len = std::fs::metadata(&blob).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(blob).unwrap().set_len(len / 2).unwrap();
    is_refused_everywhere(&lab, &image, &short, &raw, true, exit::SOURCE);
}

#[test]
fn two_chunks_that_changed_places() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let dir = lab.copy(&image.dir);
    let blob = Layout::new(&dir).data_blobs()[0].clone();
    let mut bytes = std::fs::read(&blob).unwrap();
    // Frames of noise are all of one length: read it from the seek table's first row.
    let chunks = 8;
    let table = bytes.len() - 9 - 8 * chunks;
    let len = u32::from_le_bytes(bytes[table..table + 4].try_into().unwrap()) as usize;
    let (first, second) = (bytes[len..2 * len].to_vec(), bytes[2 * len..3 * len].to_vec());
    bytes[len..2 * len].copy_from_slice(&second);
    bytes[2 * len..3 * len].copy_from_slice(&first);
    std::fs::write(blob, bytes).unwrap();
    is_refused_everywhere(&lab, &image, &dir, &raw, true, exit::SOURCE);
}

#[test]
fn a_good_source_makes_up_for_a_corrupt_one() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let bad = damaged(&lab, &image, |layout| layout.data_blobs()[1].clone(), |len| len / 2);
    for order in [[&bad, &image.dir], [&image.dir, &bad]] {
        let target = Target::file(&lab, SIZE);
        let write = Run::imgstream().arg("write").args(order).arg(target.path()).arg("--trust").arg(&image.key.public);
        write.done().ok();
        assert!(target.now() == raw);
    }
}

/// A registry whose store went bad on its disk.
#[test]
fn a_registry_that_serves_a_flipped_bit() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let registry = Server::registry(&lab, "");
    let reference = format!("{}/sample:7", registry.authority());
    push(&image.dir, &reference, "");
    let blob = &image.layout().data_blobs()[1];
    let digest = blob.file_name().unwrap().to_str().unwrap();
    let store = std::fs::read_dir(lab.dir()).unwrap().flatten().map(|entry| entry.path());
    let stored = store
        .map(|dir| dir.join("data/docker/registry/v2/blobs/sha256").join(&digest[..2]).join(digest).join("data"))
        .find(|path| path.exists())
        .expect("the blob in the registry's store");
    flip(&stored, std::fs::metadata(&stored).unwrap().len() / 2);
    let target = Target::device(&lab, SIZE, "");
    let done = image.write(format!("oci+http://{reference}"), target.path()).done().exits(exit::SOURCE);
    done.says(&registry.authority());
    target.is_unbootable_and_never_wrong(&raw, CHUNK);
}
