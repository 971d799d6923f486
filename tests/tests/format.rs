//! The format, read by tools that are not ours: zstd, openssl, sha256sum.

use std::collections::BTreeSet;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use e2e::lab::{cmp, pack};
use e2e::layout::{openssl_verifies, pae, sha256};
use e2e::{Image, Key, Lab, MIB, Run, TIB, exit, sample};

/// `zstd -dc` of the data blobs, in order, into a file.
fn zstd(lab: &Lab, image: &Image) -> std::path::PathBuf {
    let out = lab.fresh("zstd-out");
    let file = std::fs::File::create(&out).unwrap();
    Run::tool("zstd").arg("-dcq").args(image.layout().data_blobs()).stdout(file).done().ok();
    out
}

#[test]
fn zstd_turns_the_data_blobs_into_the_raw_image() {
    let lab = Lab::new();
    for sector_size in [512, 4096] {
        let raw = sample::disk(sector_size);
        for options in ["", "--chunk-size 64KiB --span-size 2MiB", "--chunk-size 8MiB --span-size 8MiB --level 1"] {
            let image = lab.pack(&raw, options);
            let out = zstd(&lab, &image);
            cmp(&raw, &out, 1 << 40).ok();
        }
    }
}

#[test]
fn zstd_agrees_for_images_packed_with_holes() {
    let lab = Lab::new();
    let raw = sample::disk(512);
    let image = lab.pack(&raw, "--holes --chunk-size 64KiB");
    cmp(&raw, &zstd(&lab, &image), 1 << 40).ok();
}

#[test]
fn every_blob_is_named_by_its_sha256() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 256KiB --span-size 4MiB");
    let blobs = image.layout().blobs();
    assert!(blobs.len() > 12, "{blobs:?}");
    for blob in blobs {
        assert_eq!(sha256(&blob), blob.file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn sizes_and_digests_in_manifest_and_descriptor_are_those_of_the_files() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 256KiB --span-size 4MiB");
    let layout = image.layout();
    let (manifest, descriptor) = (layout.manifest(), layout.descriptor());
    let spans = descriptor["spans"].as_array().unwrap();
    let referred = spans.iter().flat_map(|span| [&span["index"], &span["data"]]);
    for content in referred.chain(manifest["layers"].as_array().unwrap()).chain([&manifest["config"]]) {
        assert_eq!(std::fs::metadata(layout.blob(content)).unwrap().len(), content["size"].as_u64().unwrap());
    }
    let raw_size = std::fs::metadata(sample::disk(512)).unwrap().len();
    assert_eq!(descriptor["raw_size"], raw_size);
    let covered: u64 = spans.iter().map(|span| span["raw_length"].as_u64().unwrap()).sum();
    assert_eq!(covered, raw_size);
}

#[test]
fn the_images_digest_is_the_sha256_of_the_descriptors_bytes() {
    let lab = Lab::new();
    let key = lab.key();
    let dir = lab.path("image");
    let packed = pack(&sample::disk(512), &dir, &key, "--json").done().ok();
    let image = Image { dir, key };
    let payload = lab.file("payload", &image.layout().payload());
    let digest = format!("sha256:{}", sha256(&payload));
    assert_eq!(packed.json().pop().expect("a summary")["digest"], digest.as_str());
    image.verify().args(["--digest", &digest]).done().ok();
}

fn signature(image: &Image, number: usize) -> Vec<u8> {
    BASE64_STANDARD.decode(image.layout().envelope()["signatures"][number]["sig"].as_str().unwrap()).unwrap()
}

fn signed(image: &Image) -> Vec<u8> {
    let layout = image.layout();
    pae(layout.envelope()["payloadType"].as_str().unwrap(), &layout.payload())
}

#[test]
fn openssl_agrees_on_the_signature() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "");
    let (message, signature) = (signed(&image), signature(&image, 0));
    assert!(openssl_verifies(&message, &signature, &image.key.public));
    assert!(!openssl_verifies(&message[1..], &signature, &image.key.public));
    assert!(!openssl_verifies(&message, &signature, &lab.key().public));
}

/// A key pair made by openssl alone.
fn openssl_key(lab: &Lab) -> Key {
    let key = Key { secret: lab.fresh("openssl-key"), public: lab.fresh("openssl-pub") };
    Run::tool("openssl").words("genpkey -algorithm ed25519 -out").arg(&key.secret).done().ok();
    Run::tool("openssl").words("pkey -pubout -in").arg(&key.secret).arg("-out").arg(&key.public).done().ok();
    key
}

#[test]
fn keys_made_by_openssl_sign_and_verify() {
    let lab = Lab::new();
    let (key, dir) = (openssl_key(&lab), lab.path("image"));
    pack(&sample::disk(512), &dir, &key, "").done().ok();
    let image = Image { dir, key };
    image.verify().done().ok();
    assert!(openssl_verifies(&signed(&image), &signature(&image, 0), &image.key.public));
    let second = openssl_key(&lab);
    Run::imgstream().arg("sign").arg(&image.dir).arg("--key").arg(&second.secret).done().ok();
    assert!(openssl_verifies(&signed(&image), &signature(&image, 1), &second.public));
}

#[test]
fn keys_made_by_keygen_are_what_openssl_reads_and_nobody_else_may() {
    let lab = Lab::new();
    let key = lab.key();
    let again = lab.path("again");
    Run::tool("openssl").words("pkey -pubout -in").arg(&key.secret).arg("-out").arg(&again).done().ok();
    cmp(&key.public, &again, 1 << 20).ok();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key.secret).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key.secret).unwrap();
    let done = Run::imgstream().arg("keygen").arg(&key.secret).done();
    assert_ne!(done.status.code(), Some(0), "a key was overwritten");
    assert_eq!(std::fs::read(&key.secret).unwrap(), before);
}

#[test]
fn an_image_signed_by_openssl_alone_is_accepted() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(9, 200_192), "--chunk-size 64KiB");
    image.layout().sign_changed(&[&image.key], |descriptor| descriptor["image_version"] = 8.into());
    image.verify().args(["--min-version", "8"]).done().ok();
}

#[test]
fn equal_spans_are_stored_once() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    let file = sample::sparse(&raw, 16 * MIB);
    for place in [2 * MIB, 9 * MIB] {
        std::os::unix::fs::FileExt::write_all_at(&file, &sample::noise(4, 512 * 1024), place).unwrap();
    }
    let image = lab.pack(&raw, "--chunk-size 256KiB --span-size 1MiB");
    let distinct = |blobs: Vec<std::path::PathBuf>| blobs.into_iter().collect::<BTreeSet<_>>().len();
    let layout = image.layout();
    assert_eq!(layout.data_blobs().len(), 16);
    assert_eq!(distinct(layout.data_blobs()), 2, "one of zeros, one of noise");
    assert_eq!(distinct(layout.index_blobs()), 2);
    // Two of each, the envelope, the manifest and the empty config.
    assert_eq!(layout.blobs().len(), 7);
    cmp(&raw, &zstd(&lab, &image), 1 << 40).ok();
    image.verify().done().ok();
}

#[test]
fn zero_spans_of_a_terabyte_are_stored_once() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    drop(sample::sparse(&raw, TIB));
    let image = lab.pack(&raw, "");
    assert_eq!(image.layout().data_blobs().len(), 256);
    assert_eq!(image.layout().blobs().len(), 5);
}

/// Frames of a data blob end in a skippable frame, the seek table: magic 0x184D2A5E … 0x8F92EAB1.
#[test]
fn a_data_blob_ends_in_zstds_seek_table() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 1MiB");
    let blob = std::fs::read(&image.layout().data_blobs()[0]).unwrap();
    let chunks = sample::DISK_SIZE.div_ceil(MIB) as usize;
    let word = |at: usize| u32::from_le_bytes(blob[at..at + 4].try_into().unwrap());
    let footer = blob.len() - 9;
    assert_eq!(word(blob.len() - 4), 0x8F92_EAB1);
    assert_eq!(word(footer) as usize, chunks);
    let table = footer - 8 * chunks;
    assert_eq!(word(table - 8), 0x184D_2A5E);
    let rows = || (0..chunks).map(|row| (word(table + 8 * row), word(table + 8 * row + 4)));
    assert_eq!(rows().map(|(packed, _)| packed as usize).sum::<usize>(), table - 8);
    assert_eq!(rows().map(|(_, raw)| u64::from(raw)).sum::<u64>(), sample::DISK_SIZE);
    // Each row leads to a frame that zstd decodes to that many bytes of the raw image.
    let raw = std::fs::read(sample::disk(512)).unwrap();
    let (mut at, mut raw_at) = (0, 0);
    for (packed, len) in rows().take(3) {
        let frame = lab.file("frame", &blob[at..at + packed as usize]);
        let out = lab.fresh("frame-out");
        Run::tool("zstd").arg("-dcq").arg(frame).stdout(std::fs::File::create(&out).unwrap()).done().ok();
        assert!(std::fs::read(out).unwrap() == raw[raw_at..raw_at + len as usize]);
        (at, raw_at) = (at + packed as usize, raw_at + len as usize);
    }
}

#[test]
fn the_descriptor_tells_partitions_and_sector_size() {
    let lab = Lab::new();
    for sector_size in [512, 4096] {
        let descriptor = lab.pack(&sample::disk(sector_size), "").layout().descriptor();
        assert_eq!(descriptor["sector_size"], sector_size);
        let regions = descriptor["regions"].to_string();
        assert!(regions.contains("\"root\"") && regions.contains("\"noise\""), "{regions}");
    }
}

#[test]
fn usage_errors_exit_with_2_and_leave_nothing() {
    let lab = Lab::new();
    let (raw, key) = (lab.file("raw", &sample::noise(1, 65536)), lab.key());
    let odd = lab.file("odd", &sample::noise(1, 65537));
    let empty = lab.file("empty", b"");
    let missing = Path::new("/nonexistent/key");
    let dir = lab.fresh_dir("out");
    let image = dir.join("image");
    for options in ["--chunk-size 96KiB", "--chunk-size 16MiB", "--level 0", "--span-size 1000", "--sector-size 1024"] {
        pack(&raw, &image, &key, options).done().exits(exit::USAGE);
    }
    pack(&odd, &image, &key, "").done().exits(exit::USAGE).says("sector");
    pack(&empty, &image, &key, "").done().exits(exit::USAGE);
    pack(&raw, &image, &Key { secret: missing.into(), public: missing.into() }, "").done().exits(exit::USAGE);
    Run::imgstream().arg("write").arg(&raw).done().exits(exit::USAGE);
    Run::imgstream().arg("frobnicate").done().exits(exit::USAGE);
    assert!(e2e::lab::listing(&dir).is_empty());
}
