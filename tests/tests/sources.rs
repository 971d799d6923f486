//! Several sources at once: who does how much, who is waited for, and what is said of those that fail.

use std::path::Path;
use std::time::Duration;

use e2e::server::{Server, free_port};
use e2e::{Done, Image, Lab, MIB, Run, Target, exit, sample};

const SIZE: u64 = 32 * MIB;

fn image(lab: &Lab) -> (Vec<u8>, Image) {
    let raw = sample::noise(71, SIZE as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB --level 1");
    (raw, image)
}

fn write(image: &Image, from: &[&str], to: &Path) -> Run {
    Run::imgstream().arg("write").args(from).arg(to).arg("--trust").arg(&image.key.public)
}

/// Bytes that came from the source at `url`, by the summary.
fn share(done: &Done, url: &str) -> u64 {
    let events = done.json();
    let summary = events.iter().find(|event| event["event"] == "summary").expect("a summary");
    let sources = summary["report"]["sources"].as_array().expect("sources");
    sources.iter().find(|share| share["source"] == url).expect("the source")["bytes"].as_u64().unwrap()
}

/// On each of its four connections the slow server would take more than 15 seconds for one request.
#[test]
fn a_slow_server_does_little_and_holds_nothing_back() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let (fast, slow) = (Server::nginx(&lab, &image.dir, None), Server::nginx(&lab, &image.dir, Some("100k")));
    let target = Target::file(&lab, SIZE);
    let write = write(&image, &[&slow.url(), &fast.url()], target.path());
    let done = write.words("--request-size 2MiB --json").done().ok();
    assert!(target.now() == raw);
    let (most, least) = (share(&done, &fast.url()), share(&done, &slow.url()));
    assert!(most > 3 * SIZE / 4 && most > 4 * least, "fast {most}, slow {least}");
    assert!(done.took < Duration::from_secs(10), "{:?}: the slow server held the run back", done.took);
}

#[test]
fn two_servers_share_the_work() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let both = [Server::nginx(&lab, &image.dir, Some("2m")), Server::nginx(&lab, &image.dir, Some("2m"))];
    let target = Target::file(&lab, SIZE);
    let write = write(&image, &[&both[0].url(), &both[1].url()], target.path());
    let done = write.words("--request-size 1MiB --json").done().ok();
    assert!(target.now() == raw);
    for server in &both {
        assert!(share(&done, &server.url()) > SIZE / 4, "{done:?}");
    }
}

#[test]
fn what_is_no_source_is_said_and_the_others_are_used() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let (server, empty) = (Server::nginx(&lab, &image.dir, None), Server::nginx(&lab, &lab.fresh_dir("empty"), None));
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    for order in [[&empty.url(), &nobody, &server.url()], [&server.url(), &nobody, &empty.url()]] {
        let target = Target::file(&lab, SIZE);
        let done = write(&image, &order.map(String::as_str), target.path()).done().ok();
        assert!(target.now() == raw);
        let told = |url: &str| done.stderr.lines().filter(|line| line.contains("WARN") && line.contains(url)).count();
        assert!(told(&empty.url()) >= 1 && told(&nobody) >= 1, "{}", done.stderr);
        assert_eq!(told(&server.url()), 0, "{}", done.stderr);
    }
}

#[test]
fn every_source_is_named_when_none_can_be_had() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let empty = Server::nginx(&lab, &lab.fresh_dir("empty"), None);
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let target = Target::file(&lab, SIZE);
    let done = write(&image, &[&empty.url(), &nobody], target.path()).done().exits(exit::SOURCE);
    done.says(&empty.authority()).says(&nobody).says("404");
    target.is_untouched();
}

#[test]
fn every_source_is_named_when_all_die_midway() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let both = [Server::nginx(&lab, &image.dir, Some("1m")), Server::nginx(&lab, &image.dir, Some("1m"))];
    let urls = both.each_ref().map(Server::url);
    let target = Target::file(&lab, SIZE);
    let mut running = write(&image, &urls.each_ref().map(String::as_str), target.path()).start();
    running.until("the first chunks", |_| {
        target.settle();
        target.starts_with_zeros(MIB / 4) && target.right_chunks(&raw, MIB / 4) > 0
    });
    drop(both);
    let done = running.finish().exits(exit::SOURCE);
    done.says("every source failed").says(&urls[0]).says(&urls[1]);
    target.is_unbootable_and_never_wrong(&raw, MIB / 4);
}
