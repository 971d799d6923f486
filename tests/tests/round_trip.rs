//! Pack, serve, stream, write, prove: what arrives is what was packed, compared by `cmp`.

use e2e::lab::cmp;
use e2e::server::Server;
use e2e::{Lab, MIB, Run, Target, exit, sample};

fn size_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Through `imgstream serve` onto a loop device and into a file, with one engine.
fn written_with(engine: &str) {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "--chunk-size 256KiB");
    let server = Server::imgstream(&image.dir);
    let size = size_of(&raw);
    let device = Target::device(&lab, size, "");
    let file = Target::file(&lab, size);
    for target in [device.path(), file.path()] {
        let done = image.write(server.url(), target).args(["--engine", engine]).done().ok();
        let name = match engine {
            "uring" => "io_uring",
            "buffered" => "page cache",
            other => other,
        };
        done.says(name).says("proven");
        cmp(&raw, target, size).ok();
        let partition = format!("{}?offset={MIB}", target.display());
        Run::tool("e2fsck").args(["-fn", &partition]).done().ok();
    }
    assert_eq!(size_of(file.path()), size, "the file's length");
}

#[test]
fn uring_writes_a_device_and_a_file() {
    written_with("uring");
}

#[test]
fn direct_writes_a_device_and_a_file() {
    written_with("direct");
}

#[test]
fn buffered_writes_a_device_and_a_file() {
    written_with("buffered");
}

#[test]
fn the_engine_is_chosen_and_named_when_nobody_forces_one() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "");
    let device = Target::device(&lab, size_of(&raw), "");
    let done = image.write(&image.dir, device.path()).arg("--json").done().ok();
    let summary = done.json().pop().expect("a summary");
    assert_eq!(summary["event"], "summary");
    let engine = summary["report"]["engine"].as_str().expect("an engine");
    assert!(!engine.is_empty() && engine != "auto", "{summary}");
    assert_eq!(summary["report"]["raw_bytes"], size_of(&raw), "{summary}");
    assert_eq!(summary["report"]["read_back_bytes"], size_of(&raw), "{summary}");
    cmp(&raw, device.path(), size_of(&raw)).ok();
}

#[test]
fn a_new_file_is_made_with_the_images_length() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "--chunk-size 1MiB");
    for engine in ["uring", "direct", "buffered"] {
        let file = lab.fresh("new");
        image.write(&image.dir, &file).args(["--engine", engine]).done().ok();
        assert_eq!(size_of(&file), size_of(&raw));
        cmp(&raw, &file, size_of(&raw)).ok();
    }
}

#[test]
fn a_device_by_a_symbolic_link_is_fine() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "");
    let device = Target::device(&lab, size_of(&raw), "");
    let link = lab.path("by-id");
    std::os::unix::fs::symlink(device.path(), &link).unwrap();
    image.write(&image.dir, &link).done().ok();
    cmp(&raw, device.path(), size_of(&raw)).ok();
}

#[test]
fn a_4096_image_goes_onto_a_4096_device() {
    let (lab, raw) = (Lab::new(), sample::disk(4096));
    let image = lab.pack(&raw, "--chunk-size 256KiB");
    assert_eq!(image.layout().descriptor()["sector_size"], 4096, "found out from where the GPT lies");
    for engine in ["uring", "direct", "buffered"] {
        let device = Target::device(&lab, size_of(&raw), "--sector-size 4096");
        image.write(&image.dir, device.path()).args(["--engine", engine]).done().ok();
        cmp(&raw, device.path(), size_of(&raw)).ok();
    }
}

#[test]
fn sector_sizes_that_differ_are_refused_both_ways() {
    for (of_image, of_device) in [(512, 4096), (4096, 512)] {
        let lab = Lab::new();
        let raw = sample::disk(of_image);
        let image = lab.pack(&raw, "");
        // Large enough and whole sectors, so that only the sector size is in the way.
        let device = Target::device(&lab, 32 * MIB, &format!("--sector-size {of_device}"));
        image.write(&image.dir, device.path()).done().exits(exit::TARGET).says("sectors").says(&of_device.to_string());
        device.is_untouched();
    }
}

#[test]
fn the_same_target_is_written_again_and_again() {
    let lab = Lab::new();
    let device = Target::device(&lab, 4 * MIB, "");
    for seed in 0..3 {
        let raw = lab.file("raw", &sample::noise(seed, 3 * MIB as usize + 512));
        let image = lab.pack(&raw, "--chunk-size 64KiB");
        image.write(&image.dir, device.path()).done().ok();
        cmp(&raw, device.path(), size_of(&raw)).ok();
    }
}

#[test]
fn every_size_around_a_chunk_arrives() {
    let lab = Lab::new();
    let chunk = 64 * 1024;
    for size in [512, chunk - 512, chunk, chunk + 512, 2 * chunk, 2 * chunk + 512] {
        let raw = lab.file("raw", &sample::noise(size, size as usize));
        let image = lab.pack(&raw, "--chunk-size 64KiB");
        for engine in ["uring", "direct", "buffered"] {
            let target = Target::file(&lab, size);
            image.write(&image.dir, target.path()).args(["--engine", engine]).done().ok();
            cmp(&raw, target.path(), size).ok();
            assert_eq!(size_of(target.path()), size);
        }
        // The writer that stands in for all of the format's readers here: unpack.
        let unpacked = lab.fresh("unpacked");
        let run = Run::imgstream().arg("unpack").args([&image.dir, &unpacked]).arg("--trust").arg(&image.key.public);
        run.done().ok();
        cmp(&raw, &unpacked, size).ok();
        assert_eq!(size_of(&unpacked), size);
    }
}

#[test]
fn old_data_does_not_show_through_zeros() {
    let lab = Lab::new();
    let raw = lab.path("sparse");
    let file = sample::sparse(&raw, 8 * MIB);
    std::os::unix::fs::FileExt::write_all_at(&file, &sample::noise(5, 4096), 4 * MIB + 4096).unwrap();
    let image = lab.pack(&raw, "--chunk-size 128KiB");
    for engine in ["uring", "direct", "buffered"] {
        for target in [Target::device(&lab, 8 * MIB, ""), Target::file(&lab, 8 * MIB)] {
            image.write(&image.dir, target.path()).args(["--engine", engine]).done().ok();
            cmp(&raw, target.path(), 8 * MIB).ok();
        }
    }
}

#[test]
fn without_read_back_the_result_says_that_it_is_not_proven() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "");
    let device = Target::device(&lab, size_of(&raw), "");
    image.write(&image.dir, device.path()).arg("--no-read-back").done().ok().says("NOT PROVEN");
    cmp(&raw, device.path(), size_of(&raw)).ok();
    let done = image.write(&image.dir, device.path()).args(["--no-read-back", "--json"]).done().ok();
    assert!(done.json().pop().expect("a summary")["report"]["read_back_bytes"].is_null());
}

#[test]
fn unpack_gives_the_raw_image_and_never_overwrites() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "");
    let unpacked = lab.path("unpacked");
    let unpack =
        || Run::imgstream().arg("unpack").args([&image.dir, &unpacked]).arg("--trust").arg(&image.key.public).done();
    unpack().ok();
    cmp(&raw, &unpacked, size_of(&raw)).ok();
    let before = std::fs::metadata(&unpacked).unwrap().modified().unwrap();
    unpack().exits(exit::USAGE).says("exists");
    assert_eq!(std::fs::metadata(&unpacked).unwrap().modified().unwrap(), before);
}

#[test]
fn many_small_requests_and_one_worker_give_the_same() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "--chunk-size 64KiB --span-size 4MiB");
    let server = Server::imgstream(&image.dir);
    for options in
        ["--request-size 64KiB --connections 16 --workers 4 --depth 64", "--workers 1 --connections 1 --depth 2"]
    {
        let device = Target::device(&lab, size_of(&raw), "");
        image.write(server.url(), device.path()).words(options).done().ok();
        cmp(&raw, device.path(), size_of(&raw)).ok();
    }
}

#[test]
fn a_directory_and_a_server_together_are_sources() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "--chunk-size 128KiB");
    let server = Server::imgstream(&image.dir);
    let device = Target::device(&lab, size_of(&raw), "");
    let run = Run::imgstream().arg("write").arg(&image.dir).arg(server.url());
    let run = run.arg(device.path()).arg("--trust").arg(&image.key.public);
    run.done().ok();
    cmp(&raw, device.path(), size_of(&raw)).ok();
}
