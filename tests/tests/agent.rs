//! `z-provisioner run --spec FILE`: what a platform starts, reads, and decides by.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::layout::flip;
use e2e::server::{Server, push, registry_auth};
use e2e::token::TokenServer;
use e2e::{Done, GIB, Image, KIB, Lab, Layout, MIB, Run, Target, exit, sample};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CHUNK: u64 = 64 * KIB;
const SIZE: u64 = 2 * MIB + 512;

fn image(lab: &Lab) -> (Vec<u8>, Image) {
    let raw = sample::noise(61, SIZE as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
    (raw, image)
}

fn spec(image: &Image, source: &str, target: &Path) -> Value {
    json!({
        "run": "e2e-1",
        "image": {"name": "sample", "sources": [source], "trust": [image.key.public]},
        "target": {"device": target},
    })
}

fn run(lab: &Lab, spec: &Value) -> Run {
    Run::provisioner().args(["run", "--spec"]).arg(lab.file("spec.json", spec.to_string().as_bytes()))
}

/// The events, checked for what every reader may rely on; returns them without their envelope.
#[track_caller]
fn events(done: &Done) -> Vec<Value> {
    let events = done.json();
    assert!(events.len() > 1, "{done:?}");
    let mut at = 0.0;
    for (number, event) in events.iter().enumerate() {
        assert_eq!((&event["run"], &event["attempt"]), (&json!("e2e-1"), &json!(1)));
        assert!(event["event"]["kind"].is_string() && event["time"].is_string(), "{event}");
        let now = event["at"].as_f64().expect("a time");
        assert!(now >= at, "time goes back: {event}");
        at = now;
        if let Some(before) = number.checked_sub(1).map(|before| &events[before]) {
            assert!(event["index"].as_u64() > before["index"].as_u64(), "{before} then {event}");
        }
    }
    assert_eq!(events[0]["index"], 0);
    let bodies: Vec<Value> = events.into_iter().map(|mut event| event["event"].take()).collect();
    assert_eq!(bodies[0]["kind"], "run-started");
    let terminal = |body: &&Value| ["run-finished", "run-failed"].iter().any(|kind| body["kind"] == *kind);
    assert_eq!(bodies.iter().filter(terminal).count(), 1, "one terminal event");
    assert!(bodies.last().as_ref().is_some_and(terminal), "the terminal event is the last");
    bodies
}

/// Runs with `--json`, demands a failure of this kind and code in this phase; returns the terminal event.
#[track_caller]
fn fails(lab: &Lab, spec: &Value, code: i32, kind: &str, phase: &str) -> Value {
    let done = run(lab, spec).arg("--json").done().exits(code);
    let last = events(&done).pop().expect("a terminal event");
    assert_eq!(last["kind"], "run-failed", "{last}");
    let said = (&last["exit_code"], &last["error"], &last["phase"]);
    assert_eq!(said, (&json!(code), &json!(kind), &json!(phase)), "{last}");
    assert!(last["message"].as_str().is_some_and(|message| !message.is_empty()), "{last}");
    last
}

#[test]
fn a_run_puts_the_image_onto_a_device_and_proves_it() {
    let lab = Lab::new();
    let raw = sample::disk(512);
    let image = lab.pack(&raw, "");
    let server = Server::nginx(&lab, &image.dir, None);
    for engine in ["auto", "uring", "direct", "buffered"] {
        let target = Target::device(&lab, sample::DISK_SIZE, "");
        let mut spec = spec(&image, &server.url(), target.path());
        spec["options"] = json!({"engine": engine});
        let done = run(&lab, &spec).arg("--json").done().ok();
        let events = events(&done);
        let last = events.last().unwrap();
        assert_eq!(last["raw_bytes"], sample::DISK_SIZE, "{last}");
        assert_eq!(last["proof"]["read-back"]["bytes"], sample::DISK_SIZE, "{last}");
        assert_eq!(last["target"]["device"], target.path().to_str().unwrap());
        assert_eq!(last["image"]["name"], "sample");
        e2e::lab::cmp(&raw, target.path(), sample::DISK_SIZE).ok();
    }
}

#[test]
fn a_larger_device_is_cleared_beyond_the_image_and_a_second_run_finds_nothing_to_do() {
    let lab = Lab::new();
    let image = lab.pack(&sample::disk(512), "--chunk-size 256KiB");
    let target = Target::device(&lab, sample::DISK_SIZE + 9 * MIB + 512, "");
    let mut spec = spec(&image, image.dir.to_str().unwrap(), target.path());
    spec["options"] = json!({"resume": true});
    let first = events(&run(&lab, &spec).arg("--json").done().ok()).pop().unwrap();
    let tail = &first["tail"];
    assert_eq!((&first["gpt"], &tail["how"]), (&json!("moved"), &json!("zeroed-by-device")), "{first}");
    assert_eq!(first["tail"]["bytes"], 9 * MIB + 512 - 33 * 512);
    let written = (target.loop_device().sectors_written(), target.now());
    let again = run(&lab, &spec).arg("--json").done().ok().says("were there already").says("zero already");
    let again = events(&again);
    let steps: Vec<_> =
        again.iter().filter(|event| event["kind"] == "step-started").map(|event| &event["step"]).collect();
    assert_eq!(steps, ["check", "compare", "clear-tail", "flush"]);
    assert_eq!(again.last().unwrap()["kept_bytes"], sample::DISK_SIZE);
    assert_eq!((target.loop_device().sectors_written(), target.now()), written);
}

#[test]
fn phases_and_steps_come_in_their_order() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let done = run(&lab, &spec(&image, image.dir.to_str().unwrap(), target.path())).arg("--json").done().ok();
    let events = events(&done);
    let named = |kind: &str, key: &str| -> Vec<String> {
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| event[key].as_str().unwrap().to_owned()).collect()
    };
    let phases = ["spec", "image", "target", "stream", "hand-over"];
    assert_eq!(named("phase-started", "phase"), phases);
    assert_eq!(named("phase-finished", "phase"), phases);
    let steps = ["check", "invalidate", "write", "flush", "read-back", "commit"];
    assert_eq!(named("step-started", "step"), steps);
}

#[test]
fn people_read_lines_on_standard_error_and_nothing_on_standard_output() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let done = run(&lab, &spec(&image, image.dir.to_str().unwrap(), target.path())).done().ok();
    assert_eq!(done.stdout, "");
    assert!(!done.stderr.contains('\x1b') && !done.stderr.contains('\r'), "{:?}", done.stderr);
    done.says("sample").says(target.path().to_str().unwrap());
    assert!(target.now() == raw);
}

#[test]
fn without_read_back_the_summary_says_not_proven() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let mut spec = spec(&image, image.dir.to_str().unwrap(), target.path());
    spec["options"] = json!({"read_back": false});
    let done = run(&lab, &spec).arg("--json").done().ok();
    let last = events(&done).pop().unwrap();
    assert!(last["proof"]["not-proven"]["reason"].is_string(), "{last}");
}

#[test]
fn a_registry_with_tokens_is_a_source() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let tokens = TokenServer::start(&lab, "e2e", "correct horse");
    let registry = Server::registry(&lab, &tokens.registry_config());
    let reference = format!("{}/sample:7", registry.authority());
    let auth = registry_auth(&lab, &registry.authority(), "e2e", "correct horse");
    push(&image.dir, &reference, &format!("--dest-authfile {}", auth.display()));
    let target = Target::device(&lab, SIZE, "");
    let spec = spec(&image, &format!("oci+http://{reference}"), target.path());
    run(&lab, &spec).arg("--registry-auth").arg(&auth).done().ok();
    assert!(target.now() == raw);
}

#[test]
fn a_refused_image_is_3_and_the_target_untouched() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let fine = spec(&image, image.dir.to_str().unwrap(), target.path());
    let other = lab.key();
    let changes: [(&str, Value); 6] = [
        ("name", json!("debian-13")),
        ("architecture", json!("x86_64")),
        ("digest", json!(format!("sha256:{}", "5".repeat(64)))),
        ("min_version", json!(8)),
        ("trust", json!([other.public])),
        ("threshold", json!(2)),
    ];
    for (key, value) in changes {
        let mut spec = fine.clone();
        spec["image"][key] = value;
        if key == "threshold" {
            spec["image"]["trust"] = json!([image.key.public, other.public]);
        }
        let failure = fails(&lab, &spec, exit::IMAGE, "image", "image");
        assert_eq!((&failure["target"], &failure["retryable"]), (&json!("untouched"), &json!(false)), "{key}");
        target.is_untouched();
    }
}

#[test]
fn an_expired_and_an_unsigned_image_are_3() {
    let lab = Lab::new();
    let target = Target::device(&lab, SIZE, "");
    let expired =
        lab.pack_bytes(&sample::noise(1, 65536), "--created 2020-01-01T00:00:00Z --expires 2020-02-01T00:00:00Z");
    fails(&lab, &spec(&expired, expired.dir.to_str().unwrap(), target.path()), exit::IMAGE, "image", "image");
    let (_, unsigned) = image(&lab);
    let mut envelope = unsigned.layout().envelope();
    envelope["signatures"] = json!([]);
    unsigned.layout().put_envelope(envelope.to_string().as_bytes());
    fails(&lab, &spec(&unsigned, unsigned.dir.to_str().unwrap(), target.path()), exit::IMAGE, "image", "image");
    target.is_untouched();
}

#[test]
fn a_refused_target_is_4_and_untouched() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let refused = |path: &Path| {
        let spec = spec(&image, image.dir.to_str().unwrap(), path);
        let failure = fails(&lab, &spec, exit::TARGET, "target", "target");
        assert_eq!(failure["target"], "untouched");
    };
    let small = Target::device(&lab, SIZE - 512, "");
    refused(small.path());
    small.is_untouched();
    let read_only = Target::device(&lab, SIZE, "--read-only");
    refused(read_only.path());
    read_only.is_untouched();
    let sectors = Target::device(&lab, 4 * MIB, "--sector-size 4096");
    refused(sectors.path());
    sectors.is_untouched();
    let busy = Target::device(&lab, SIZE, "");
    let claim = busy.loop_device().claim().unwrap();
    refused(busy.path());
    drop(claim);
    busy.is_untouched();
    for path in [Path::new("/dev/null"), lab.dir(), Path::new("/dev/z-provisioner-e2e-nothing"), &lab.path("missing")] {
        let existed = path.exists();
        refused(path);
        assert_eq!(path.exists(), existed, "an agent never makes its target");
    }
}

#[test]
fn corruption_is_5_and_leaves_nothing_that_boots() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let copy = lab.copy(&image.dir);
    let blob = Layout::new(&copy).data_blobs()[0].clone();
    flip(&blob, SIZE / 2);
    let target = Target::device(&lab, SIZE, "");
    let server = Server::nginx(&lab, &copy, None);
    let failure = fails(&lab, &spec(&image, &server.url(), target.path()), exit::SOURCE, "source", "stream");
    assert_eq!(failure["target"], "not-bootable");
    target.is_unbootable_and_never_wrong(&raw, CHUNK);
    // The next run, with a good source, mends it.
    run(&lab, &spec(&image, image.dir.to_str().unwrap(), target.path())).done().ok();
    assert!(target.now() == raw);
}

#[test]
fn a_source_that_is_not_there_is_5() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let nobody = format!("http://127.0.0.1:{}/", e2e::server::free_port());
    let failure = fails(&lab, &spec(&image, &nobody, target.path()), exit::SOURCE, "source", "image");
    assert_eq!((&failure["target"], &failure["retryable"]), (&json!("untouched"), &json!(true)));
    target.is_untouched();
}

#[test]
fn a_server_that_dies_midway_is_5_in_bounded_time() {
    let lab = Lab::new();
    let raw = sample::noise(62, 16 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB --level 1");
    let server = Server::nginx(&lab, &image.dir, Some("1m"));
    let target = Target::device(&lab, 16 * MIB, "");
    let mut spec = spec(&image, &server.url(), target.path());
    spec["options"] = json!({"connections": 2, "request_size": 8 * MIB});
    let mut running = run(&lab, &spec).arg("--json").start();
    running.until("writing", |_| target.starts_with_zeros(256 * KIB) && target.right_chunks(&raw, 256 * KIB) > 0);
    drop(server);
    let gone = Instant::now();
    let done = running.finish().exits(exit::SOURCE);
    assert!(gone.elapsed() < Duration::from_secs(30), "{:?}", gone.elapsed());
    let events = events(&done);
    assert!(events.iter().any(|event| event["kind"] == "retry"), "retries are events");
    assert_eq!(events.last().unwrap()["target"], "not-bootable");
    target.is_unbootable_and_never_wrong(&raw, 256 * KIB);
}

#[test]
fn signals_cancel_with_8_and_leave_nothing_that_boots() {
    let lab = Lab::new();
    let raw = sample::noise(63, 16 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB --level 1");
    let server = Server::nginx(&lab, &image.dir, Some("1m"));
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let target = Target::device(&lab, 16 * MIB, "");
        let mut spec = spec(&image, &server.url(), target.path());
        spec["options"] = json!({"connections": 2, "request_size": 8 * MIB});
        let mut running = run(&lab, &spec).arg("--json").start();
        running.until("writing", |_| target.starts_with_zeros(256 * KIB) && target.right_chunks(&raw, 256 * KIB) > 0);
        running.signal(signal);
        let told = Instant::now();
        let done = running.finish().exits(exit::CANCELLED);
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        let last = events(&done).pop().unwrap();
        assert_eq!((&last["kind"], &last["error"]), (&json!("run-failed"), &json!("cancelled")));
        target.is_unbootable_and_never_wrong(&raw, 256 * KIB);
        drop(target.loop_device().claim().expect("the device must be free again"));
    }
}

#[test]
fn a_signal_cancels_while_a_server_is_silent_from_the_start() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let mut server = Server::nginx(&lab, &image.dir, None);
    server.signal(Signal::SIGSTOP);
    let target = Target::device(&lab, SIZE, "");
    let mut running = run(&lab, &spec(&image, &server.url(), target.path())).arg("--json").start();
    running.until("the image's phase", |running| running.stdout().contains("\"image\""));
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::SIGTERM);
    let told = Instant::now();
    running.finish().exits(exit::CANCELLED);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    target.is_untouched();
}

#[test]
fn a_spec_that_makes_no_sense_is_2() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let fine = spec(&image, image.dir.to_str().unwrap(), target.path());
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 7] = [
        ("unknown key", |spec| spec["colour"] = json!("red")),
        ("misspelt option", |spec| spec["options"] = json!({"readback": false})),
        ("no sources", |spec| spec["image"]["sources"] = json!([])),
        ("no trust", |spec| spec["image"]["trust"] = json!([])),
        ("threshold", |spec| spec["image"]["threshold"] = json!(2)),
        ("no target", |spec| drop(spec.as_object_mut().unwrap().remove("target"))),
        ("engine", |spec| spec["options"] = json!({"engine": "diesel"})),
    ];
    for (what, change) in changes {
        let mut spec = fine.clone();
        change(&mut spec);
        let done = run(&lab, &spec).done();
        assert_eq!(done.status.code(), Some(exit::USAGE), "{what}: {done:?}");
        assert!(!done.stderr.is_empty(), "{what}");
        target.is_untouched();
    }
    Run::provisioner().args(["run", "--spec", "/nonexistent"]).done().exits(exit::USAGE);
    let doubled = fine.to_string().replacen('{', r#"{"run":"other","#, 1);
    let done = Run::provisioner().args(["run", "--spec"]).arg(lab.file("twice", doubled.as_bytes())).done();
    done.exits(exit::USAGE);
    target.is_untouched();
}

#[test]
fn memory_stays_within_256_mib_for_a_terabyte() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    drop(sample::sparse(&raw, 1024 * GIB));
    let image = lab.pack(&raw, "");
    let target = lab.path("target");
    drop(sample::sparse(&target, 1024 * GIB));
    let done = run(&lab, &spec(&image, image.dir.to_str().unwrap(), &target)).measured().done().ok();
    assert!(done.peak > MIB && done.peak <= 256 * MIB, "{} MiB", done.peak / MIB);
}
