//! Devices larger than the image: what a previous owner left there goes, and the backup of the GPT comes to the end.

use std::path::Path;

use e2e::server::Server;
use e2e::{Done, Image, KIB, Lab, Loop, MIB, Mount, Run, Target, exit, sample};
use nix::sys::signal::Signal;
use serde_json::Value;

const CHUNK: u64 = 256 * KIB;

#[track_caller]
fn report(done: Done) -> Value {
    let done = done.ok();
    done.json().into_iter().rfind(|line| line["event"] == "summary").expect("a summary")["report"].clone()
}

fn noise_image(lab: &Lab) -> (Vec<u8>, Image) {
    let raw = sample::noise(91, (2 * MIB) as usize + 512);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB");
    (raw, image)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
fn what_lies_beyond_the_image_is_zeroed() {
    let lab = Lab::new();
    let (raw, image) = noise_image(&lab);
    let device = || Target::device(&lab, 9 * MIB + 1024, "");
    let cases = [
        ("uring", device()),
        ("direct", device()),
        ("buffered", device()),
        ("auto", Target::file(&lab, 9 * MIB + 1024)),
        ("buffered", Target::file(&lab, 9 * MIB + 7)),
    ];
    for (engine, target) in cases {
        let done = report(image.write(&image.dir, target.path()).args(["--json", "--engine", engine]).done());
        let now = target.now();
        assert!(now.starts_with(&raw) && is_zero(&now[raw.len()..]), "{engine}");
        let tail = &done["tail"];
        assert_eq!(tail["bytes"], now.len() - raw.len());
        assert_eq!((&tail["how"], &tail["proven_bytes"]), (&"zeroed-by-device".into(), &tail["bytes"]));
    }
}

/// A device that cannot zero without writing: the file system below knows no holes.
#[test]
fn where_the_device_cannot_zero_zeros_are_written_and_read_back() {
    let lab = Lab::new();
    let (raw, image) = noise_image(&lab);
    let mount = Mount::new("-t ramfs", Path::new("none"), &lab.path("memory"));
    let backing = mount.path().join("disk");
    std::fs::write(&backing, sample::noise(92, 9 * MIB as usize)).unwrap();
    let device = Loop::attach(&backing);
    for resume in [false, true] {
        let write = image.write(&image.dir, device.path()).arg("--json");
        let done = report(if resume { write.arg("--resume") } else { write }.done());
        let how = if resume { "was-zero" } else { "zeroed-by-writing" };
        assert_eq!(done["tail"]["how"], how, "{done}");
        assert_eq!(done["tail"]["proven_bytes"], if resume { 0 } else { 9 * MIB - raw.len() as u64 });
    }
    Run::tool("sync").arg(device.path()).done().ok();
    let now = std::fs::read(&backing).unwrap();
    assert!(now.starts_with(&raw) && is_zero(&now[raw.len()..]));
    device.detached();
}

#[test]
fn a_tail_is_kept_or_discarded_only_when_asked_and_said() {
    let lab = Lab::new();
    let (raw, image) = noise_image(&lab);
    let target = Target::device(&lab, 9 * MIB, "");
    let before = target.now();
    let kept = report(image.write(&image.dir, target.path()).args(["--json", "--tail", "keep"]).done());
    assert_eq!((&kept["tail"]["how"], &kept["tail"]["proven_bytes"]), (&"kept".into(), &0.into()));
    let now = target.now();
    assert!(now.starts_with(&raw) && now[raw.len()..] == before[raw.len()..]);
    image.write(&image.dir, target.path()).args(["--tail", "keep"]).done().ok().says("kept");
    let discarded = report(image.write(&image.dir, target.path()).args(["--json", "--tail", "discard"]).done());
    assert_eq!(discarded["tail"]["how"], "discarded");
    assert!(target.now().starts_with(&raw));
    image.write(&image.dir, target.path()).args(["--tail", "shred"]).done().exits(exit::USAGE).says("keep");
}

#[test]
fn resuming_clears_a_tail_and_leaves_a_clear_one_alone() {
    let lab = Lab::new();
    let (raw, image) = noise_image(&lab);
    let target = Target::device(&lab, 9 * MIB, "");
    image.write(&image.dir, target.path()).args(["--tail", "keep"]).done().ok();
    let cleared = report(image.write(&image.dir, target.path()).args(["--json", "--resume"]).done());
    assert_eq!((&cleared["tail"]["how"], &cleared["kept_bytes"]), (&"zeroed-by-device".into(), &raw.len().into()));
    let now = target.now();
    assert!(now.starts_with(&raw) && is_zero(&now[raw.len()..]));
    let written = target.loop_device().sectors_written();
    let again = report(image.write(&image.dir, target.path()).args(["--json", "--resume"]).done());
    assert_eq!(again["tail"]["how"], "was-zero");
    assert_eq!(target.loop_device().sectors_written(), written, "something was written");
}

#[track_caller]
fn has_a_sound_table(disk: &Path) {
    let said = Run::tool("sfdisk").arg("--verify").arg(disk).text();
    assert!(said.contains("No errors detected"), "{said}");
}

/// An independent opinion: util-linux moves the backup GPT of a copy that dd made.
fn moved_by_sfdisk(lab: &Lab, raw: &Path, size: u64, sector: u32) -> Vec<u8> {
    let copy = lab.fresh("reference");
    std::fs::copy(raw, &copy).unwrap();
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(size).unwrap();
    let device = Loop::attach_with(&copy, &format!("--sector-size {sector}"));
    let relocate = Run::tool("sfdisk").words("--quiet --no-reread --no-tell-kernel --relocate gpt-bak-std");
    relocate.arg(device.path()).done().ok();
    Run::tool("sync").arg(device.path()).done().ok();
    std::fs::read(&copy).unwrap()
}

#[test]
fn the_backup_gpt_moves_to_the_end_of_a_larger_device() {
    for sector in [512, 4096] {
        let lab = Lab::new();
        let disk = sample::disk(sector);
        let image = lab.pack(&disk, "--chunk-size 64KiB");
        let size = 40 * MIB;
        let target = Target::device(&lab, size, &format!("--sector-size {sector}"));
        let done = report(image.write(&image.dir, target.path()).arg("--json").done());
        assert_eq!(done["gpt"], "moved", "{done}");
        has_a_sound_table(target.path());
        let (now, raw) = (target.now(), std::fs::read(&disk).unwrap());
        let reference = moved_by_sfdisk(&lab, &disk, size, sector);
        // sfdisk leaves the old backup where it was; we do not.
        let old_backup = raw.len() - (16384 + sector as usize);
        assert!(now[..old_backup] == reference[..old_backup], "{sector}: the image's part");
        assert!(is_zero(&now[old_backup..raw.len()]), "{sector}: the old backup");
        assert!(now[raw.len()..] == reference[raw.len()..], "{sector}: the new backup");
    }
}

#[test]
fn resuming_on_a_larger_device_fetches_the_ends_alone() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 64KiB");
    let target = Target::device(&lab, 40 * MIB, "");
    image.write(&image.dir, target.path()).done().ok();
    let (written, before) = (target.loop_device().sectors_written(), target.now());
    let again = report(image.write(&image.dir, target.path()).args(["--json", "--resume"]).done());
    let fetched = again["fetched_bytes"].as_u64().unwrap();
    assert!((1..4 * 64 * KIB).contains(&fetched), "{fetched} bytes were fetched");
    assert_eq!((&again["gpt"], &again["kept_bytes"]), (&"moved".into(), &sample::DISK_SIZE.into()));
    assert_eq!(target.loop_device().sectors_written(), written, "something was written");
    assert!(target.now() == before);
    // A backup that is wrong is mended, and costs what an end costs.
    let spoil = std::fs::File::options().write(true).open(target.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&spoil, &[7; 512], 40 * MIB - 512).unwrap();
    drop(spoil);
    image.write(&image.dir, target.path()).arg("--resume").done().ok();
    assert!(target.now() == before);
}

#[test]
fn a_larger_device_after_a_smaller_one_and_back() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 64KiB");
    let target = Target::file(&lab, 40 * MIB);
    image.write(&image.dir, target.path()).done().ok();
    let grown = std::fs::File::options().write(true).open(target.path()).unwrap();
    grown.set_len(64 * MIB).unwrap();
    image.write(&image.dir, target.path()).arg("--resume").done().ok();
    has_a_sound_table(target.path());
    let reference = Target::file(&lab, 64 * MIB);
    image.write(&image.dir, reference.path()).done().ok();
    assert!(target.now() == reference.now());
    grown.set_len(sample::DISK_SIZE).unwrap();
    image.write(&image.dir, target.path()).arg("--resume").done().ok();
    assert!(target.now() == std::fs::read(sample::disk(512)).unwrap());
}

#[test]
fn a_device_larger_by_a_little_keeps_the_gpt_where_it_is_and_says_so() {
    let lab = Lab::new();
    let disk = sample::disk(512);
    let image = lab.pack(&disk, "--chunk-size 64KiB");
    let target = Target::device(&lab, sample::DISK_SIZE + 512, "");
    let done = image.write(&image.dir, target.path()).done().ok();
    done.says("larger by less than a partition table");
    let now = target.now();
    let raw = std::fs::read(&disk).unwrap();
    assert!(now.starts_with(&raw) && is_zero(&now[raw.len()..]));
}

/// Firmware that finds no primary GPT may boot by the backup at the device's end, a previous owner's too.
#[test]
fn the_devices_end_is_taken_away_before_anything_is_written() {
    let lab = Lab::new();
    let (raw, image) = noise_image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("200k"));
    let target = Target::device(&lab, 9 * MIB, "");
    let mut running = image.write(server.url(), target.path()).args(["--connections", "1"]).start();
    running.until("the first chunks", |_| target.starts_with_zeros(CHUNK) && target.right_chunks(&raw, CHUNK) > 0);
    running.signal(Signal::SIGKILL);
    drop(running);
    assert!(is_zero(&target.now()[(9 * MIB - 16896) as usize..]));
}

/// What the kernel knows of the old partitions is gone with them. (Whether it can read the new table is its own affair.)
#[test]
fn the_kernel_reads_the_partition_table_again() {
    let lab = Lab::new();
    let (_, image) = noise_image(&lab);
    let target = Target::device(&lab, 9 * MIB, "--partscan");
    let old = target.loop_device().partition(1, MIB, 2 * MIB);
    assert!(old.exists());
    let done = report(image.write(&image.dir, target.path()).arg("--json").done());
    assert_eq!(done["partitions"], "shown");
    let name = target.path().file_name().unwrap().to_str().unwrap();
    assert!(!Path::new(&format!("/sys/block/{name}/{name}p1")).exists(), "the kernel still shows the old partition");
}
