//! The benchmark: its verdict names the stage that was made slow on purpose, and nothing is destroyed unasked.

use std::path::Path;

use e2e::server::Server;
use e2e::{Cgroup, Done, Lab, MIB, Narrow, Run, Target, exit, sample};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Short runs: what is measured here is the verdict.
const QUICK: &str = "--size 64MiB --chunk-size 1MiB --seconds 1 --json";

/// Shorter still, for what is slow.
const SMALL: &str = "--size 32MiB --chunk-size 1MiB --seconds 1 --json";

fn bench() -> Run {
    Run::imgstream().arg("bench")
}

/// The findings: one object and nothing else.
#[track_caller]
fn findings(done: &Done) -> Value {
    let mut objects = done.json();
    assert_eq!(objects.len(), 1, "{}", done.stdout);
    objects.remove(0)
}

#[track_caller]
fn limited_by(done: &Done, what: &str, words: &str) {
    let findings = findings(done);
    let verdict = &findings["verdict"];
    eprintln!("{:?}\n{}", done.took, done.stderr);
    assert_eq!(verdict["limited_by"], what, "{}", done.stderr);
    let first = verdict["sentences"][0].as_str().unwrap();
    assert!(first.starts_with("limited by") && first.contains(words), "{first}");
    let reached = verdict["reached"].as_f64().unwrap();
    assert!((0.5..1.5).contains(&reached), "the limit was not the whole's: {reached}");
}

fn rate(findings: &Value, part: &str) -> f64 {
    let stages = findings["stages"].as_array().unwrap();
    let stage = stages.iter().rfind(|stage| stage["part"] == part).expect(part);
    stage["rate"]["median"].as_f64().unwrap()
}

/// The report's page, with plain spaces and hyphens, and its findings.
#[track_caller]
fn report(dir: &Path) -> (String, Value) {
    let read = |name| std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    (
        read("index.html").replace('\u{a0}', " ").replace('\u{2011}', "-"),
        serde_json::from_str(&read("findings.json")).unwrap(),
    )
}

/// As it stands in a page.
fn escaped(text: &str) -> String {
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&#39;")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn without_a_device_it_ends_in_a_verdict_all_the_same() {
    let lab = Lab::new();
    let dir = lab.path("report");
    let done = bench().words(QUICK).words("--sweep connections,engine --report").arg(&dir).limit(120).done().ok();
    let found = findings(&done);
    for part in ["source", "hash", "decode"] {
        assert!(rate(&found, part) > MIB as f64, "{part}: {found}");
    }
    assert!(found["whole"]["rate"]["median"].as_f64().unwrap() > MIB as f64);
    assert_eq!(found["whole"]["rate"]["samples"], 3);
    assert!(!found["whole"]["timeline"].as_array().unwrap().is_empty());
    let first_write = found["whole"]["first_write_seconds"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&first_write), "the first write came after {first_write} s");
    let versions = found["machine"]["versions"].as_array().unwrap();
    let sha256 = versions.iter().find(|version| version[0] == "SHA-256").expect("who computes SHA-256");
    assert!(sha256[1].as_str().is_some_and(|by| by.contains("ring") || by.contains("CPACF")), "{versions:?}");
    assert_eq!(found["interrupted"], false);
    let (raw, packed) = (&found["subject"]["data_bytes"], &found["subject"]["compressed_bytes"]);
    let ratio = raw.as_f64().unwrap() / packed.as_f64().unwrap();
    assert!((2.7..3.3).contains(&ratio), "the ratio is {ratio}");
    let connections = found["sweeps"][0]["points"].as_array().unwrap();
    assert!(connections.iter().all(|point| point["rate"]["median"].as_f64().unwrap() > MIB as f64), "{connections:?}");
    let engines = found["sweeps"][1]["points"].as_array().unwrap();
    assert!(engines.iter().all(|point| point["failed"].as_str().unwrap().contains("null sink")), "{engines:?}");
    done.says("verdict").says("limited by").says("SHA-256 ");
    let (page, written) = report(&dir);
    assert_eq!(written, found);
    let verdict = escaped(found["verdict"]["sentences"][0].as_str().unwrap());
    let headline = format!("<h1>L{}.</h1>", verdict.strip_prefix('l').expect("limited by"));
    assert!(page.contains(&headline), "{headline} is not in\n{page}");
}

#[test]
fn a_slow_source_is_named() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(81, 12 * MIB as usize), "--chunk-size 1MiB --level 1");
    let server = Server::imgstream(&image.dir);
    let narrow = Narrow::new(&server.authority(), 8 * MIB);
    let bench = bench().args(["--source", &narrow.url()]).arg("--trust").arg(&image.key.public);
    let done = bench.words(QUICK).words("--runs 2 --request-size 1MiB").done().ok();
    limited_by(&done, "source", "the source");
    let source = rate(&findings(&done), "source") / MIB as f64;
    assert!((6.0..10.0).contains(&source), "{source} MiB/s through a link of 8");
}

#[test]
fn a_slow_device_is_named() {
    let lab = Lab::new();
    let target = Target::device(&lab, 64 * MIB, "");
    let group = Cgroup::with_writes_of(target.path(), 40 * MIB);
    let bench = group.imgstream().arg("bench").arg("--sink").arg(target.path()).arg("--yes-destroy").arg(target.path());
    let done = bench.words(SMALL).words("--runs 2").done().ok();
    limited_by(&done, "write", "the device's writes");
    let write = rate(&findings(&done), "write") / MIB as f64;
    assert!((30.0..50.0).contains(&write), "{write} MiB/s to a device of 40");
}

#[test]
fn slow_processors_are_named() {
    let group = Cgroup::with_cores(30);
    let done = group.imgstream().arg("bench").words(QUICK).words("--runs 2").done().ok();
    limited_by(&done, "cpu", "core");
    done.says("SHA-256");
}

#[test]
fn the_media_are_read_back_when_that_is_asked_for() {
    let lab = Lab::new();
    let target = Target::device(&lab, 64 * MIB, "");
    let bench = bench().arg("--sink").arg(target.path()).arg("--yes-destroy").arg(target.path());
    let done = bench.words(QUICK).words("--runs 1 --read-back --sweep engine").done().ok();
    let found = findings(&done);
    assert!(rate(&found, "read") > MIB as f64 && rate(&found, "raw-hash") > MIB as f64, "{found}");
    assert_eq!(found["settings"]["read_back"], true);
    let engines = found["sweeps"][0]["points"].as_array().unwrap();
    let names: Vec<_> = engines.iter().map(|point| point["value"].as_str().unwrap()).collect();
    assert_eq!(names, ["uring", "direct", "buffered"]);
    // What is left behind is an image that was proven: no half of one.
    assert!(target.was_touched() && !target.starts_with_zeros(MIB));
}

#[test]
fn a_map_of_many_extents_takes_turns_with_one() {
    let lab = Lab::new();
    let target = Target::device(&lab, 64 * MIB, "");
    let bench = || Run::imgstream().words("bench --size 64MiB --runs 1 --seconds 1 --json --extents 100");
    let done = bench().arg("--sink").arg(target.path()).arg("--yes-destroy").arg(target.path()).done().ok();
    let routing = findings(&done)["routing"].clone();
    assert_eq!(routing["extents"], 100, "{routing}");
    for part in ["alone", "whole"] {
        let turns = &routing[part];
        let rate = |of: &str| turns[of]["median"].as_f64().unwrap();
        assert!(rate("one") > MIB as f64 && rate("many") > MIB as f64, "{part}: {turns}");
        assert_eq!((&turns["rate_ratio"]["samples"], &turns["cpu_ratio"]["samples"]), (&8.into(), &8.into()));
    }
    done.says("the device alone, in 8 pairs").says("100 extents");
    bench().done().exits(exit::USAGE).says("the null sink has no extents");
}

#[test]
fn nothing_is_destroyed_unasked() {
    let lab = Lab::new();
    for target in [Target::device(&lab, 16 * MIB, ""), Target::file(&lab, 16 * MIB)] {
        let sink = || bench().words("--size 16MiB --sink").arg(target.path());
        let remedy = format!("--yes-destroy {}", target.path().display());
        sink().done().exits(exit::TARGET).says("would be overwritten").says(&remedy);
        sink().arg("--yes-destroy").arg("/dev/null").done().exits(exit::USAGE).says("exactly the path of --sink");
        let relative = Path::new("/dev/..").join(target.path().strip_prefix("/").unwrap());
        sink().arg("--yes-destroy").arg(relative).done().exits(exit::USAGE);
        target.is_untouched();
    }
    bench().words("--yes-destroy null").done().exits(exit::USAGE);
}

#[test]
fn an_image_without_a_trusted_key_is_not_measured() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(82, MIB as usize), "--chunk-size 64KiB");
    bench().arg("--source").arg(&image.dir).done().exits(exit::USAGE).says("--trust");
    let other = lab.key();
    bench().arg("--source").arg(&image.dir).arg("--trust").arg(other.public).done().exits(exit::IMAGE);
}

#[test]
fn a_file_that_was_made_for_it_goes_with_it() {
    let lab = Lab::new();
    let file = lab.path("made");
    let done = bench().words(SMALL).words("--runs 1 --sink").arg(&file).done().ok();
    assert!(rate(&findings(&done), "write") > MIB as f64);
    assert!(!file.exists());
}

#[test]
fn an_interruption_keeps_what_was_measured() {
    let lab = Lab::new();
    let report = lab.path("report");
    // A hundred runs of the source are over soon; those of computing take a minute.
    let mut running = bench().words("--size 64MiB --runs 99 --report").arg(&report).start();
    running.until("the second stage", |running| running.stderr().contains("SHA-256 alone"));
    running.signal(Signal::SIGINT);
    let done = running.finish().exits(exit::CANCELLED).says("interrupted").says("source");
    let found: Value = serde_json::from_slice(&std::fs::read(report.join("findings.json")).unwrap()).unwrap();
    assert_eq!(found["interrupted"], true);
    assert_eq!(found["stages"][0]["part"], "source");
    assert_eq!(found["verdict"], Value::Null);
    assert!(done.stdout.is_empty(), "{}", done.stdout);
}

#[test]
fn other_tools_stand_beside_ours() {
    let lab = Lab::new();
    let name = "cat <image> & sync";
    let peers = serde_json::json!({"format": 1, "command": "x", "subject": "y", "raw_bytes": 1, "rounds": 3,
        "limit_seconds": null, "limit_by": null, "ways": [{"name": name, "ours": false, "verifies": "nothing",
        "seconds": {"median": 1.0, "min": 1.0, "max": 1.0, "samples": 3}, "cpu_seconds": null, "peak_rss": null,
        "ratio_to_ours": null, "command": "dd", "note": ""}]});
    let dir = lab.path("report");
    let run = |text: &str| {
        let bench = bench().words(SMALL).words("--runs 1 --peers").arg(lab.file("peers", text.as_bytes()));
        bench.arg("--report").arg(&dir).done()
    };
    run("{}").exits(exit::USAGE).says("peers");
    assert!(!dir.exists(), "a report of nothing");
    assert_eq!(findings(&run(&peers.to_string()).ok())["peers"], peers);
    let (page, written) = report(&dir);
    assert_eq!(written["peers"], peers);
    assert!(page.contains(&escaped(name)) && !page.contains(name), "{page}");
}

/// From the moment the descriptor has been verified; an image whose old content has been made unbootable in between.
#[test]
fn the_first_byte_is_on_its_way_soon() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(83, 16 * MIB as usize), "--chunk-size 1MiB --level 1");
    let server = Server::imgstream(&image.dir);
    let (device, file) = (Target::device(&lab, 16 * MIB, ""), Target::file(&lab, 16 * MIB));
    let dir = image.dir.to_str().unwrap();
    for (source, target) in [(server.url().as_str(), &device), (dir, &device), (server.url().as_str(), &file)] {
        let once = || {
            let write = image.write(source, target.path()).words("--json --no-read-back --engine direct");
            let summary = write.done().ok().json().pop().expect("a summary");
            summary["report"]["first_write_seconds"].as_f64().expect("a first write")
        };
        // On a machine that does much else some are late; that all of them are says something.
        let mut seconds = Vec::new();
        while seconds.len() < 40 && !seconds.last().is_some_and(|last| *last <= 0.05) {
            seconds.push(once());
        }
        eprintln!("{source} to {}: {seconds:.4?} s", target.path().display());
        assert!(
            seconds.last().is_some_and(|last| *last <= 0.05),
            "from {source} to {}: {seconds:.4?} s",
            target.path().display()
        );
    }
}
