//! `imgstream pack`: deterministic, sparse, from devices, and all or nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::lab::{cmp, listing, pack};
use e2e::{KIB, Lab, Loop, MIB, Mount, Run, Running, TIB, Target, exit, sample};
use nix::sys::signal::Signal;

const NOTHING: [String; 0] = [];

fn equal_trees(one: &Path, other: &Path) {
    Run::tool("diff").arg("-r").args([one, other]).done().ok();
}

#[test]
fn the_same_input_and_options_give_the_same_bytes() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let key = lab.key();
    let options = "--chunk-size 128KiB --span-size 8MiB";
    let packed: Vec<PathBuf> = ["", "", "--workers 1", "--workers 7"]
        .iter()
        .map(|more| {
            let dir = lab.fresh("image");
            pack(&raw, &dir, &key, &format!("{options} {more}")).done().ok();
            dir
        })
        .collect();
    packed.iter().skip(1).for_each(|other| equal_trees(&packed[0], other));
}

#[test]
fn a_copy_without_holes_gives_the_same_bytes() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let (key, copy) = (lab.key(), lab.path("copy"));
    Run::tool("cp").arg("--sparse=never").args([&raw, &copy]).done().ok();
    let (one, other) = (lab.path("one"), lab.path("other"));
    pack(&raw, &one, &key, "").done().ok();
    pack(&copy, &other, &key, "").done().ok();
    equal_trees(&one, &other);
}

#[test]
fn another_time_key_or_level_gives_other_bytes_that_are_still_the_same_image() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    for options in ["--created 2026-05-05T05:05:05Z", "--level 1", "--level 9"] {
        let image = lab.pack(&raw, options);
        let target = Target::file(&lab, sample::DISK_SIZE);
        image.write(&image.dir, target.path()).done().ok();
        cmp(&raw, target.path(), sample::DISK_SIZE).ok();
    }
}

#[test]
fn a_block_device_is_packed_like_its_file() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let key = lab.key();
    let (from_file, from_device) = (lab.path("from-file"), lab.path("from-device"));
    pack(&raw, &from_file, &key, "").done().ok();
    let device = Loop::attach_with(&raw, "--read-only");
    pack(device.path(), &from_device, &key, "").done().ok();
    equal_trees(&from_file, &from_device);
}

#[test]
fn a_4096_block_device_tells_its_sector_size() {
    let lab = Lab::new();
    let raw = lab.file("raw", &sample::noise(2, MIB as usize));
    let device = Loop::attach_with(&raw, "--read-only --sector-size 4096");
    assert_eq!(lab.pack(device.path(), "").layout().descriptor()["sector_size"], 4096);
    assert_eq!(lab.pack(&raw, "").layout().descriptor()["sector_size"], 512);
    assert_eq!(lab.pack(&raw, "--sector-size 4096").layout().descriptor()["sector_size"], 4096);
}

#[test]
fn a_sparse_terabyte_is_packed_in_seconds_and_its_data_is_found() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    let file = sample::sparse(&raw, TIB);
    for place in [0, TIB / 3 / 4096 * 4096, TIB - 4096] {
        file.write_all_at(&sample::noise(place, 4096), place).unwrap();
    }
    let (key, dir) = (lab.key(), lab.path("image"));
    let done = pack(&raw, &dir, &key, "--json").done().ok();
    assert!(done.took.as_secs() < 30, "{:?}", done.took);
    // Three chunks of data, the rest one and the same frame of zeros: a few megabytes.
    let stored: u64 = e2e::Layout::new(&dir).blobs().iter().map(|blob| blob.metadata().unwrap().len()).sum();
    assert!(stored < 8 * MIB, "{stored} bytes");
    let image = e2e::Image { dir, key };
    let target = lab.path("target");
    image.write(&image.dir, &target).done().ok();
    let found = File::open(&target).unwrap();
    for place in [0, TIB / 3 / 4096 * 4096, TIB - 4096] {
        let mut bytes = vec![0; 4096];
        found.read_exact_at(&mut bytes, place).unwrap();
        assert!(bytes == sample::noise(place, 4096), "at {place}");
    }
    let blocks = std::os::unix::fs::MetadataExt::blocks(&found.metadata().unwrap());
    assert!(blocks * 512 < 64 * MIB, "zeros were written: {blocks} blocks");
}

/// Kinds of the chunks, from the index's rows: 32 bytes of header, 80 per row, the kind first.
fn kinds(image: &e2e::Image) -> Vec<u8> {
    let rows = |blob: PathBuf| std::fs::read(blob).unwrap()[32..].chunks(80).map(|row| row[0]).collect::<Vec<_>>();
    image.layout().index_blobs().into_iter().flat_map(rows).collect()
}

/// Data, a hole, written zeros, data.
fn holey(lab: &Lab) -> PathBuf {
    let raw = lab.path("holey");
    let file = sample::sparse(&raw, 256 * KIB);
    file.write_all_at(&sample::noise(1, 65536), 0).unwrap();
    file.write_all_at(&[0; 65536], 128 * KIB).unwrap();
    file.write_all_at(&sample::noise(2, 65536), 192 * KIB).unwrap();
    file.sync_all().unwrap();
    raw
}

#[test]
fn holes_are_zeros_unless_their_maker_vouches_for_them() {
    const DATA: u8 = 1;
    const ZERO: u8 = 2;
    const HOLE: u8 = 3;
    let lab = Lab::new();
    let raw = holey(&lab);
    assert_eq!(kinds(&lab.pack(&raw, "--chunk-size 64KiB")), [DATA, ZERO, ZERO, DATA]);
    assert_eq!(kinds(&lab.pack(&raw, "--chunk-size 64KiB --holes")), [DATA, HOLE, ZERO, DATA]);
}

#[test]
fn a_hole_never_lets_old_data_show() {
    let lab = Lab::new();
    let raw = holey(&lab);
    let image = lab.pack(&raw, "--chunk-size 64KiB --holes");
    for target in [Target::device(&lab, 256 * KIB, ""), Target::file(&lab, 256 * KIB)] {
        image.write(&image.dir, target.path()).done().ok();
        cmp(&raw, target.path(), 256 * KIB).ok();
    }
}

#[test]
fn existing_output_is_refused_and_untouched() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let key = lab.key();
    let (directory, empty) = (lab.fresh_dir("exists"), lab.fresh_dir("exists"));
    let file = lab.file("exists", b"precious");
    let link = lab.path("link");
    std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
    std::fs::write(directory.join("precious"), b"precious").unwrap();
    let before = listing(lab.dir());
    for output in [&directory, &empty, &file, &link] {
        pack(&raw, output, &key, "").done().exits(exit::USAGE).says("exists");
    }
    assert_eq!(listing(lab.dir()), before);
    assert_eq!(listing(&directory), ["precious"]);
    assert_eq!(listing(&empty), NOTHING);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/nonexistent"));
}

#[test]
fn output_that_appears_while_packing_is_not_replaced() {
    let lab = Lab::new();
    let (mut packing, out) = slow_pack(&lab, &lab.path("raw"), 12);
    let image = out.join("image");
    packing.signal(Signal::SIGSTOP);
    std::fs::create_dir(&image).unwrap();
    packing.signal(Signal::SIGCONT);
    packing.finish().exits(exit::DEVICE);
    assert_eq!(listing(&out), ["image"]);
    assert_eq!(listing(&image), NOTHING);
}

/// Starts to pack a file that takes seconds, into a directory of its own; returns once the packing has begun.
fn slow_pack(lab: &Lab, raw: &Path, level: u8) -> (Running, PathBuf) {
    // Compressible, but with work: noise of six bits a byte.
    let bytes: Vec<u8> = sample::noise(7, 16 * MIB as usize).into_iter().map(|byte| b'0' + byte % 64).collect();
    std::fs::write(raw, bytes).unwrap();
    let out = lab.fresh_dir("out");
    let options = format!("--workers 1 --chunk-size 64KiB --level {level}");
    let mut packing = pack(raw, &out.join("image"), &lab.key(), &options).start();
    packing.until("a partial image", |_| !listing(&out).is_empty());
    (packing, out)
}

/// Stops the packer in the middle, does something, and lets it go on.
fn packed_while(change: impl FnOnce(&File)) -> (e2e::Done, Vec<String>) {
    let lab = Lab::new();
    let raw = lab.path("raw");
    let (mut packing, out) = slow_pack(&lab, &raw, 19);
    packing.signal(Signal::SIGSTOP);
    assert!(!out.join("image").exists(), "the packer was faster than its test");
    change(&File::options().write(true).open(&raw).unwrap());
    packing.signal(Signal::SIGCONT);
    let done = packing.finish();
    (done, listing(&out))
}

#[test]
fn input_that_shrinks_while_packed_is_refused_and_leaves_nothing() {
    let (done, left) = packed_while(|raw| raw.set_len(15 * MIB).unwrap());
    done.exits(exit::SOURCE).says("shorter");
    assert_eq!(left, NOTHING);
}

#[test]
fn input_that_changes_while_packed_is_refused_and_leaves_nothing() {
    let (done, left) = packed_while(|raw| raw.write_all_at(b"!", 15 * MIB).unwrap());
    done.exits(exit::SOURCE).says("changed");
    assert_eq!(left, NOTHING);
}

#[test]
fn input_that_grows_while_packed_is_refused_and_leaves_nothing() {
    let (done, left) = packed_while(|raw| raw.set_len(17 * MIB).unwrap());
    done.exits(exit::SOURCE).says("changed");
    assert_eq!(left, NOTHING);
}

#[test]
fn a_sparse_input_that_shrinks_is_refused_too() {
    let (done, left) = packed_while(|raw| {
        raw.set_len(MIB).unwrap();
        raw.set_len(16 * MIB).unwrap();
    });
    done.exits(exit::SOURCE);
    assert_eq!(left, NOTHING);
}

#[test]
fn signals_stop_packing_and_leave_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = Lab::new();
        let (mut packing, out) = slow_pack(&lab, &lab.path("raw"), 19);
        packing.signal(signal);
        let told = std::time::Instant::now();
        packing.finish().exits(exit::CANCELLED);
        assert!(told.elapsed().as_secs() < 5, "{:?}", told.elapsed());
        assert_eq!(listing(&out), NOTHING);
    }
}

#[test]
fn a_packer_that_is_killed_leaves_nothing_that_looks_whole() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    let (mut packing, out) = slow_pack(&lab, &raw, 19);
    packing.signal(Signal::SIGKILL);
    drop(packing);
    assert!(
        listing(&out).iter().all(|name| name.starts_with('.') && name.ends_with(".partial")),
        "{:?}",
        listing(&out)
    );
    // And it is not in the way of the next one.
    let small = lab.file("small", &sample::noise(1, 65536));
    pack(&small, &out.join("image"), &lab.key(), "").done().ok();
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let mount = Mount::new("-t tmpfs -o size=3m", Path::new("none"), &lab.path("small"));
    let out = mount.path().join("image");
    pack(&raw, &out, &lab.key(), "").done().exits(exit::DEVICE).says("no space left");
    assert_eq!(listing(mount.path()), NOTHING);
    // Full in the very first write, too.
    std::fs::write(mount.path().join("ballast"), vec![1; 3 * MIB as usize - 64 * 1024]).unwrap();
    pack(&raw, &out, &lab.key(), "").done().exits(exit::DEVICE).says("no space left");
    assert_eq!(listing(mount.path()), ["ballast"]);
}

#[test]
fn input_that_cannot_be_read_is_named() {
    let lab = Lab::new();
    let (key, out) = (lab.key(), lab.fresh_dir("out"));
    pack(&lab.path("missing"), &out.join("image"), &key, "").done().exits(exit::SOURCE).says("missing");
    for odd in [lab.dir(), Path::new("/dev/null")] {
        let done = pack(odd, &out.join("image"), &key, "").done();
        assert!(matches!(done.status.code(), Some(exit::USAGE | exit::SOURCE)), "{done:?}");
    }
    assert_eq!(listing(&out), NOTHING);
}

#[test]
fn a_disk_image_that_was_cut_is_refused() {
    let lab = Lab::new();
    let cut = lab.path("cut");
    Run::tool("cp").args([&sample::disk(512), &cut]).done().ok();
    std::fs::set_permissions(&cut, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    File::options().write(true).open(&cut).unwrap().set_len(18 * MIB).unwrap();
    let out = lab.fresh_dir("out");
    pack(&cut, &out.join("image"), &lab.key(), "").done().exits(exit::IMAGE).says("partition table");
    assert_eq!(listing(&out), NOTHING);
}
