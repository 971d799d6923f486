//! Real agents, which the service starts, on real block devices.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Service, Target, sample};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SIZE: u64 = 6 * MIB;

/// A service with short leases, whose agents trust the image's key.
pub fn service(lab: &Lab, image: &Image) -> Service {
    Service::new(lab, config(image))
}

fn config(image: &Image) -> Value {
    json!({
        "lease": {"seconds": 6, "renew_after": 1, "grace": 2},
        "retry": {"first_seconds": 1, "most_seconds": 2},
        "process": {"agent": e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN"), "trust": [image.key.public]},
    })
}

pub fn order(image: &Image, server: &str, source: &str, target: &Target) -> Value {
    json!({
        "server": server,
        "image": {"name": "sample", "sources": [source], "trust": [image.key.id()]},
        "target": {"device": target.path()},
        "options": {"connections": 1, "request_size": 64 * KIB},
    })
}

fn image(lab: &Lab) -> (Vec<u8>, Image) {
    let raw = sample::noise(71, SIZE as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
    (raw, image)
}

/// The process of a run's current attempt.
pub(super) fn agent(service: &Service, run: &str) -> i32 {
    let shown = service.show(run);
    let attempts = shown["attempts"].as_array().unwrap();
    let handle = attempts.last().unwrap()["handle"].as_str().unwrap();
    handle.split(':').next().unwrap().parse().unwrap()
}

/// Waits until an agent has begun to write.
pub(super) fn until_it_writes(service: &Service, run: &str) {
    let began = Instant::now();
    while service.show(run)["progress"]["bytes"].as_u64().unwrap_or(0) < 256 * KIB {
        assert!(began.elapsed() < Duration::from_secs(30), "{:#}", service.show(run));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_queue_of_servers_is_provisioned_and_every_byte_is_right() {
    let lab = Lab::new();
    let raw = sample::disk(512);
    let image = lab.pack(&raw, "");
    let server = Server::nginx(&lab, &image.dir, None);
    // All defaults, and the builder's key where it is looked for.
    let service =
        Service::new(&lab, json!({"process": {"agent": e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN")}}));
    std::fs::copy(&image.key.public, service.dir().join("trust/builder.pub")).unwrap();
    let targets: Vec<Target> = (0..3).map(|_| Target::device(&lab, sample::DISK_SIZE, "")).collect();
    let create = |(number, target): (usize, &Target)| {
        service.create(&lab, &order(&image, &format!("server-{number}"), &server.url(), target))
    };
    let runs: Vec<String> = targets.iter().enumerate().map(create).collect();
    for (run, target) in runs.iter().zip(&targets) {
        let ended = service.until(run, &["succeeded", "failed"], 60);
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        assert_eq!(ended["summary"]["proof"]["read-back"]["bytes"], sample::DISK_SIZE);
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
        e2e::lab::cmp(&raw, target.path(), sample::DISK_SIZE).ok();
    }
    // What agents said is not kept where all is well.
    let logs = std::fs::read_dir(service.dir().join("agents")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(logs.count() <= 3);
    let watched = service.client("watch --json").arg(&runs[0]).done().ok();
    let events = watched.json();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["state"]["state"].as_str()).collect();
    assert_eq!(kinds, ["queued", "launching", "running", "succeeded"]);
}

#[test]
fn what_is_refused_is_not_tried_again_and_says_why() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let before = target.now();
    let mut new = order(&image, "s1", image.dir.to_str().unwrap(), &target);
    new["image"]["name"] = json!("another");
    let run = service.create(&lab, &new);
    let failed = service.until(&run, &["failed", "succeeded"], 30);
    assert_eq!((&failed["state"], &failed["failure"]["exit_code"]), (&json!("failed"), &json!(3)), "{failed:#}");
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 1);
    // A key that the agent does not have is nobody's.
    let mut new = order(&image, "s1", image.dir.to_str().unwrap(), &target);
    new["image"]["trust"] = json!(["ab".repeat(32)]);
    let run = service.create(&lab, &new);
    let failed = service.until(&run, &["failed", "succeeded"], 30);
    assert_eq!(failed["failure"]["exit_code"], 2, "{failed:#}");
    assert!(target.now() == before, "the target was touched");
    service.client("watch").arg(&run).done().exits(2);
    let mut new = order(&image, "s1", image.dir.to_str().unwrap(), &target);
    new["target"]["surprise"] = json!(true);
    let file = lab.file("new.json", new.to_string().as_bytes());
    service.client("create").arg(file).done().exits(2).says("surprise");
}

#[test]
fn an_agent_that_is_killed_is_followed_by_one_that_goes_on() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("1m"));
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let run = service.create(&lab, &order(&image, "s1", &server.url(), &target));
    until_it_writes(&service, &run);
    kill(Pid::from_raw(agent(&service, &run)), Signal::SIGKILL).unwrap();
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let outcomes: Vec<&str> =
        ended["attempts"].as_array().unwrap().iter().map(|of| of["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["lost", "succeeded"]);
    assert!(ended["summary"]["kept_bytes"].as_u64().unwrap() > 0, "{:#}", ended["summary"]);
    assert!(target.now()[..raw.len()] == raw[..]);
}

#[test]
fn a_frozen_agent_is_dead_before_its_successor_begins() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("1m"));
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let run = service.create(&lab, &order(&image, "s1", &server.url(), &target));
    until_it_writes(&service, &run);
    let frozen = agent(&service, &run);
    kill(Pid::from_raw(frozen), Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    while service.show(&run)["attempts"].as_array().unwrap().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:#}", service.show(&run));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() > Duration::from_secs(5), "it was given its lease");
    assert!(kill(Pid::from_raw(frozen), Signal::SIGCONT).is_err(), "it is there no longer");
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert!(target.now()[..raw.len()] == raw[..]);
}

#[test]
fn a_run_is_called_off_while_it_writes() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("500k"));
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let run = service.create(&lab, &order(&image, "s1", &server.url(), &target));
    until_it_writes(&service, &run);
    service.client("cancel --reason").arg("the wrong image").arg(&run).done().ok();
    let ended = service.until(&run, &["cancelled", "failed", "succeeded"], 20);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    assert_eq!(ended["failure"]["target"], "not-bootable");
    assert!(target.now()[..4096].iter().all(|byte| *byte == 0), "it would boot");
    service.client("watch").arg(&run).done().exits(8);
    service.client("cancel").arg(&run).done().exits(4);
}

#[test]
fn without_its_service_an_agent_goes_on_for_its_lease_and_no_longer() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("300k"));
    let mut service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let run = service.create(&lab, &order(&image, "s1", &server.url(), &target));
    until_it_writes(&service, &run);
    // For less than a lease: nothing happens to it.
    service.kill();
    std::thread::sleep(Duration::from_secs(2));
    service.go();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(service.show(&run)["attempts"].as_array().unwrap().len(), 1);
    // For longer: it stops before its lease ends, and writes nothing more.
    service.kill();
    std::thread::sleep(Duration::from_secs(6));
    let then = target.loop_device().sectors_written();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(target.loop_device().sectors_written(), then, "it writes although its lease is over");
    service.go();
    let ended = service.until(&run, &["succeeded", "failed"], 90);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let first = &ended["attempts"][0];
    assert!(first["reason"].as_str().unwrap().contains("lease"), "{first:#}");
    assert!(target.now()[..raw.len()] == raw[..]);
}

#[test]
fn an_attempt_may_last_longer_than_its_certificate() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    // The agent needs longer for it than its first certificate is good.
    let server = Server::nginx(&lab, &image.dir, Some("220k"));
    let mut config = config(&image);
    config["lease"] = json!({"seconds": 5, "renew_after": 1, "grace": 2, "certificate": 10});
    let service = Service::new(&lab, config);
    let target = Target::device(&lab, SIZE, "");
    let began = Instant::now();
    let run = service.create(&lab, &order(&image, "s1", &server.url(), &target));
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert!(began.elapsed() > Duration::from_secs(11), "it was over before its certificate was");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{ended:#}");
    assert!(target.now()[..raw.len()] == raw[..]);
}

/// `z-provisioner run --orchestrator` as somebody else than the service starts it.
pub(super) fn enrol(service: &Service, image: &Image, token: &Path) -> e2e::Run {
    e2e::Run::provisioner()
        .arg("run")
        .args(["--orchestrator", service.url(), "--orchestrator-ca"])
        .arg(service.dir().join("ca.pem"))
        .arg("--ticket-key")
        .arg(service.dir().join("ticket.pub"))
        .arg("--trust")
        .arg(&image.key.public)
        .arg("--token")
        .arg(token)
}

#[test]
fn an_agent_that_wakes_after_its_successor_began_writes_nothing() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, Some("500k"));
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let mut new = order(&image, "s1", &server.url(), &target);
    new["launcher"] = json!("external");
    let run = service.create(&lab, &new);
    let token = |name: &str| {
        let file = lab.path(name);
        service.client("token --out").arg(&file).arg(&run).done().ok();
        file
    };
    let mut first = enrol(&service, &image, &token("first")).limit(120).start();
    until_it_writes(&service, &run);
    first.signal(Signal::SIGSTOP);
    let lost = service.until(&run, &["lost"], 30);
    assert_eq!(lost["waits"]["for"], "person", "{lost:#}");
    service.client("confirm-death --attempt 2 --yes").arg(&run).done().exits(4);
    // Somebody vouches for what is not so.
    service.client("confirm-death --attempt 1 --yes").arg(&run).done().ok();
    service.until(&run, &["launching"], 30);
    // The kernel knows better: the device is still the first one's.
    enrol(&service, &image, &token("second")).done().exits(4).says("use");
    let written = target.loop_device().sectors_written();
    first.signal(Signal::SIGCONT);
    first.finish().exits(4).says("lease");
    assert_eq!(target.loop_device().sectors_written(), written, "it wrote when it woke");
    let shown = service.show(&run);
    assert_eq!(shown["attempts"][0]["outcome"], "lost", "{shown:#}");
}

#[test]
fn nobody_enrols_with_a_token_that_was_used() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let service = service(&lab, &image);
    let target = Target::device(&lab, SIZE, "");
    let mut new = order(&image, "s1", image.dir.to_str().unwrap(), &target);
    new["launcher"] = json!("external");
    let run = service.create(&lab, &new);
    let token = lab.path("token");
    service.client("token --out").arg(&token).arg(&run).done().ok();
    let enrol = || enrol(&service, &image, &token);
    // Meant for another server.
    enrol().args(["--server", "s2"]).done().exits(5).says("server");
    enrol().args(["--server", "s1"]).done().ok();
    assert!(target.now()[..raw.len()] == raw[..]);
    let written = target.loop_device().sectors_written();
    enrol().done().exits(5).says("token");
    assert_eq!(target.loop_device().sectors_written(), written);
    assert_eq!(service.show(&run)["state"], "succeeded");
}
