//! Writers that are killed at random moments, with SIGKILL, as a power switch would: what they leave never boots unless it is
//! whole, and `--resume` makes it the image every time. 5 kills in every test run, 60 in a soak.

use std::time::Duration;

use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Run, Target, sample};

const CHUNK: u64 = 64 * KIB;
const RAW: u64 = 6 * MIB;
const DEVICE: u64 = 12 * MIB;

/// What a killed writer has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It had not begun: the old content is whole.
    Untouched,
    /// The first extent is zero: neither the old nor the new content boots.
    Unbootable,
    /// All of the image is there: it had ended, or was about to.
    Whole,
}

#[track_caller]
fn left(target: &Target, raw: &[u8]) -> Left {
    if !target.was_touched() {
        return Left::Untouched;
    }
    let now = target.now();
    if now.starts_with(raw) {
        assert!(
            now[raw.len()..].iter().all(|byte| *byte == 0),
            "the image is whole, but what lies beyond it is not clear"
        );
        return Left::Whole;
    }
    target.is_unbootable_and_never_wrong(raw, CHUNK);
    assert!(now[now.len() - 16896..].iter().all(|byte| *byte == 0), "the device's end may hold a backup GPT");
    Left::Unbootable
}

/// Kills writers `kills` times at moments spread over the length of a run, each time resuming what the last one left. When
/// it is whole, a new target is begun.
fn kill_and_resume(kills: usize, seed: u64) -> Vec<Left> {
    let lab = Lab::new();
    let raw = sample::noise(seed, RAW as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB --level 1");
    let server = Server::nginx(&lab, &image.dir, Some("1500k"));
    let moments = sample::noise(seed ^ 0xdead, kills * 2);
    let mut seen = Vec::new();
    let mut target = Target::device(&lab, DEVICE, "");
    for moment in moments.chunks(2) {
        let engine = ["uring", "direct", "buffered"][seen.len() % 3];
        let running = resume(&image, &server.url(), &target, engine).start();
        // A whole run takes about a second and a half: the rate above, and two connections.
        let at = u64::from(u16::from_le_bytes([moment[0], moment[1]])) * 1800 / 65535;
        std::thread::sleep(Duration::from_millis(at));
        running.kill();
        seen.push(left(&target, &raw));
        if seen.len() % 4 == 0 || seen.last() == Some(&Left::Whole) {
            resume(&image, image.dir.to_str().unwrap(), &target, engine).done().ok();
            assert_eq!(left(&target, &raw), Left::Whole, "after {seen:?}");
            target = Target::device(&lab, DEVICE, "");
        }
    }
    resume(&image, image.dir.to_str().unwrap(), &target, "auto").done().ok();
    assert_eq!(left(&target, &raw), Left::Whole, "after {seen:?}");
    println!("{kills} kills: {seen:?}");
    seen
}

fn resume(image: &Image, from: &str, target: &Target, engine: &str) -> Run {
    image.write(from, target.path()).args(["--resume", "--connections", "2", "--engine", engine])
}

#[test]
fn killed_at_random_moments_it_resumes_to_the_image() {
    let seen = kill_and_resume(5, 101);
    assert!(seen.contains(&Left::Unbootable), "no kill came midway: {seen:?}");
}

#[test]
#[ignore = "soak"]
fn killed_sixty_times_it_resumes_to_the_image() {
    let seen: Vec<_> = (0..4).flat_map(|round| kill_and_resume(15, 200 + round)).collect();
    assert!(seen.iter().filter(|left| **left == Left::Unbootable).count() >= 20, "{seen:?}");
}

/// The first extent may be there only when everything else is: looked at again and again while a writer works.
#[test]
fn the_first_extent_is_never_there_before_all_else_is() {
    let lab = Lab::new();
    let raw = sample::noise(111, RAW as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB --level 1");
    let server = Server::nginx(&lab, &image.dir, Some("3m"));
    let target = Target::file(&lab, RAW);
    let mut running = image.write(server.url(), target.path()).args(["--connections", "2"]).start();
    let (mut looks, mut zero) = (0, 0);
    while running.exit_status().is_none() {
        let now = target.now();
        if now[..CHUNK as usize] == raw[..CHUNK as usize] {
            assert!(now == raw, "the first extent is there, and the rest is not");
        } else if now[..CHUNK as usize].iter().all(|byte| *byte == 0) {
            zero += 1;
        }
        looks += 1;
    }
    running.finish().ok();
    assert!(zero > 3, "{looks} looks, {zero} of them midway: too few to mean anything");
}
