//! Keys of disks and the policy for images, with a real service, its client and a real agent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::server::Server;
use e2e::{Lab, MIB, Run, Service, Target, sample};
use serde_json::{Value, json};

use super::agents::{order, service};

/// A run of a machine that never enrols.
fn external(server: &str) -> Value {
    json!({
        "server": server, "launcher": "external",
        "image": {"name": "debian-13", "sources": ["http://127.0.0.1:1/"], "trust": ["a".repeat(64)]},
        "target": {"device": format!("/dev/{server}"), "layout": "whole"},
    })
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.split('-').count() == 13
}

/// The shown key, alone on stdout.
fn shown(service: &Service, run: &str) -> String {
    let key = service.client("key").arg(run).text();
    assert!(key.ends_with('\n') && key.lines().count() == 1 && is_key(key.trim()), "no key");
    key.trim().to_owned()
}

fn write_kek(path: &Path, byte: u8) {
    std::fs::write(path, STANDARD.encode([byte; 32])).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_key_is_shown_once_opens_under_its_kek_alone_and_is_destroyed_for_good() {
    let lab = Lab::new();
    let kek = lab.fresh("kek");
    write_kek(&kek, 1);
    let mut service = Service::new(&lab, json!({"keys": {"file": kek}}));
    let (one, other) = (service.create(&lab, &external("s1")), service.create(&lab, &external("s2")));
    let key = shown(&service, &one);
    service.client("key").arg(&one).done().exits(4).says("was shown to operator token");

    // Another KEK opens nothing, marks nothing, and both are named.
    service.stop();
    write_kek(&kek, 2);
    service.go();
    let refused = service.client("key").arg(&other).done().exits(4).says("was sealed with the key-encryption key");
    assert!(refused.stderr.contains("give the service that key back"), "{}", refused.stderr);
    assert!(!is_key(refused.stdout.trim()), "a key was made up");
    assert!(service.show(&other)["key"]["shown"].is_null());
    service.stop();
    write_kek(&kek, 1);
    service.go();
    assert_ne!(shown(&service, &other), key);

    service.client("destroy-key").arg(&one).done().exits(2).says("--yes");
    service.client("cancel").arg(&one).done().ok();
    service.client("key").arg(&one).done().exits(4).says("was destroyed");
    service.client("destroy-key --yes").arg(&other).done().exits(4).says("cancel the run");
    service.client("cancel").arg(&other).done().ok();
    service.client("retry").arg(&other).done().ok();
    assert_eq!(service.show(&other)["key"]["destroyed"], Value::Null, "a new one");
    let told = service.client("watch --json").arg(&one).done().exits(8).json();
    let actions: Vec<_> = told.iter().filter_map(|told| told["key"]["action"].as_str()).collect();
    assert_eq!(actions, ["made", "shown", "destroyed"]);

    let log = service.stop().says("audit").says("key-encryption key");
    assert!(!log.stderr.contains(&key) && !told.iter().any(|told| told.to_string().contains(&key)));
    for file in ["runs.sqlite", "runs.sqlite-wal"] {
        let bytes = std::fs::read(service.dir().join(file)).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "a key stands in {file}");
    }
}

#[test]
fn a_real_agent_is_given_its_key_before_it_touches_the_target() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(7, MIB as usize), "--chunk-size 64KiB");
    let target = Target::device(&lab, 40 * MIB, "");
    let server = Server::imgstream(&image.dir);
    let service = service(&lab, &image);
    let mut order = order(&image, "lpar-1", &server.url(), &target);
    (order["target"]["layout"], order["max_attempts"]) = (json!("whole"), json!(1));
    let run = service.create(&lab, &order);
    // Whether there is a device mapper here decides how it ends.
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!(ended["key"]["released"], json!([1]), "{ended:#}");
    let key = shown(&service, &run);
    let log = std::fs::read_to_string(service.dir().join(format!("agents/{run}.1.log"))).unwrap_or_default();
    assert!(!log.contains(&key) && !ended.to_string().contains(&key));
    if ended["state"] == "failed" {
        assert_eq!(ended["failure"]["phase"], "target", "{ended:#}");
    }
}

#[test]
fn a_policy_bounds_what_is_ordered_and_is_pinned() {
    let lab = Lab::new();
    let mut service = Service::new(&lab, json!({}));
    let policy = service.dir().join("policy.json");
    let write = |text: &str| std::fs::write(&policy, text).unwrap();
    write(&json!({"images": {"debian-13": {"trust": ["a".repeat(64), "b".repeat(64)], "threshold": 2, "min_version": 7}}}).to_string());
    let mut wanted = external("s1");
    wanted["image"].as_object_mut().unwrap().remove("trust");
    let file = lab.file("wanted.json", wanted.to_string().as_bytes());
    let create = || service.client("create --key k").arg(&file);
    let run = create().text().trim().to_owned();
    let created = service.show(&run);
    assert_eq!(
        (&created["order"]["image"]["threshold"], &created["order"]["image"]["min_version"]),
        (&json!(2), &json!(7))
    );
    let digest = created["policy"].as_str().unwrap().to_owned();
    let narrow = lab.file("narrow.json", external("s2").to_string().as_bytes());
    service.client("create").arg(&narrow).done().exits(4).says("`image.threshold` is 2, with 1 trusted keys");

    // Whatever it says by now, the same request gets the same run, and the run is what it was.
    write("{");
    assert_eq!(create().text().trim(), run);
    service.client("create").arg(&file).done().exits(4).says("the policy for images cannot be used");
    write(r#"{"images": {}}"#);
    assert_eq!(create().text().trim(), run);
    service.client("create").arg(&file).done().exits(4).says("the policy has no rule for it");
    assert_eq!(
        (service.show(&run)["policy"].as_str(), &service.show(&run)["order"]),
        (Some(&*digest), &created["order"])
    );
    service.stop();
}

/// Passes on what agent and service say to each other; what the service says comes late, and not at all once it is to be lost.
struct SlowWay {
    port: u16,
    loses: Arc<AtomicBool>,
}

impl SlowWay {
    const DELAY: Duration = Duration::from_millis(250);

    fn to(service: &Service) -> Self {
        let upstream = service.url().trim_start_matches("https://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = SlowWay { port: listener.local_addr().unwrap().port(), loses: Arc::default() };
        let loses = Arc::clone(&way.loses);
        std::thread::spawn(move || {
            for agent in listener.incoming().map_while(Result::ok) {
                let Ok(service) = TcpStream::connect(&upstream) else { continue };
                let (agent_too, service_too) = (agent.try_clone().unwrap(), service.try_clone().unwrap());
                let loses = Arc::clone(&loses);
                std::thread::spawn(move || pass_on(&agent, &service, || true));
                std::thread::spawn(move || {
                    pass_on(&service_too, &agent_too, || {
                        std::thread::sleep(SlowWay::DELAY);
                        !loses.load(Ordering::SeqCst)
                    });
                });
            }
        });
        way
    }
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, arrives: impl Fn() -> bool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !arrives() || to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    // Whoever has closed it already has.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_service_killed_between_its_decision_and_its_answer_gives_the_key_to_the_next_attempt() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(7, MIB as usize), "--chunk-size 64KiB");
    let target = Target::device(&lab, 40 * MIB, "");
    let server = Server::imgstream(&image.dir);
    let mut service = service(&lab, &image);
    let way = SlowWay::to(&service);
    let mut order = order(&image, "lpar-1", &server.url(), &target);
    (order["target"]["layout"], order["launcher"]) = (json!("whole"), json!("external"));
    let run = service.create(&lab, &order);
    let agent = |service: &Service| {
        let token = lab.fresh("token");
        service.client("token").arg(&run).arg("--out").arg(&token).done().ok();
        let file = |name: &str| service.dir().join(name);
        let agent = Run::provisioner().words("run --report-within 30 --orchestrator");
        let agent = agent.arg(format!("https://127.0.0.1:{}", way.port)).arg("--orchestrator-ca").arg(file("ca.pem"));
        let agent = agent.arg("--ticket-key").arg(file("ticket.pub")).arg("--trust").arg(&image.key.public);
        agent.arg("--token").arg(token).start()
    };
    service.until(&run, &["launching"], 10);
    let first = agent(&service);
    service.running().until("a key that is given", |service| service.stderr().contains("action=released"));
    way.loses.store(true, Ordering::SeqCst);
    service.kill();
    // What was on its way is lost by now.
    std::thread::sleep(SlowWay::DELAY * 2);
    way.loses.store(false, Ordering::SeqCst);
    service.go();
    first.finish().exits(5).says("whether the key was given is not known");
    target.is_untouched();

    service.until(&run, &["launching"], 30);
    let ended = agent(&service).finish();
    let shown = service.show(&run);
    assert_eq!(shown["key"]["released"], json!([1, 2]), "{shown:#}\n{}", ended.stderr);
    assert!(!ended.stderr.contains("the key was"), "{}", ended.stderr);
}

#[test]
fn a_service_that_has_lost_its_kek_does_not_start_with_another_and_no_attempt_is_burnt() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(7, MIB as usize), "--chunk-size 64KiB");
    let target = Target::device(&lab, 40 * MIB, "");
    let mut service = service(&lab, &image);
    let mut order = order(&image, "lpar-1", image.dir.to_str().unwrap(), &target);
    (order["target"]["layout"], order["launcher"]) = (json!("whole"), json!("external"));
    let run = service.create(&lab, &order);
    service.stop();
    let kek = service.dir().join("kek.key");
    std::fs::remove_file(&kek).unwrap();
    service.serve().done().exits(4).says("is lost, and the key of run").says("restore it from a backup");
    assert!(!kek.exists(), "none was made");

    // Somebody says that it is lost for good: its run fails once, with what to do.
    write_kek(&kek, 9);
    service.go();
    let token = lab.fresh("token");
    service.client("token").arg(&run).arg("--out").arg(&token).done().ok();
    let file = |name: &str| service.dir().join(name);
    let agent = Run::provisioner().arg("run").arg("--orchestrator").arg(service.url());
    let agent = agent.arg("--orchestrator-ca").arg(file("ca.pem")).arg("--ticket-key").arg(file("ticket.pub"));
    let ended = agent.arg("--trust").arg(&image.key.public).arg("--token").arg(token).done().exits(5);
    let ended = ended.says("the key was not given").says("key-shut");
    assert!(ended.stderr.contains("give the service that key back"), "{}", ended.stderr);
    target.is_untouched();
    let failed = service.until(&run, &["failed", "launching"], 30);
    assert_eq!((&failed["state"], &failed["key"]["released"]), (&json!("failed"), &Value::Null), "{failed:#}");
    service.client("destroy-key --yes").arg(&run).done().ok();
    service.client("retry").arg(&run).done().ok();
    shown(&service, &run);
}

/// A metric without labels, as an operator would read it.
pub fn gauge(service: &Service, name: &str) -> Option<i64> {
    let token = std::fs::read_to_string(service.dir().join("viewer.token")).unwrap();
    let text = Run::tool("curl").words("-sS --max-time 5 --cacert").arg(service.dir().join("ca.pem"));
    let text = text.arg("-H").arg(format!("Authorization: Bearer {}", token.trim()));
    let text = text.arg(format!("{}/metrics", service.url())).text();
    text.lines().find_map(|line| line.strip_prefix(&format!("z_orchestrator_{name} "))?.parse().ok())
}

/// As `docs/operating.md` says, with the data folder's own KEK; killed on the way.
#[test]
fn the_kek_is_changed_and_the_one_of_before_is_not_needed_any_more() {
    let lab = Lab::new();
    let previous = lab.path("kek.old");
    let mut service = Service::new(&lab, json!({}));
    let (one, two) = (service.create(&lab, &external("s1")), service.create(&lab, &external("s2")));
    let key = shown(&service, &one);
    service.stop();
    let kek = service.dir().join("kek.key");
    std::fs::rename(&kek, &previous).unwrap();

    // Without it, or with a wrong one, nothing is made in its place.
    service.serve().done().exits(4).says("is lost, and the key of run");
    write_kek(&lab.path("wrong"), 5);
    service.configure("keys", json!({"previous": [lab.path("wrong")]}));
    service.serve().done().exits(4).says("was sealed with none of `keys.previous`");
    service.configure("keys", json!({"previous": [lab.path("none")]}));
    service.serve().done().exits(6).says("`keys.previous`").says("take it out");
    assert!(!kek.exists(), "none was made");

    service.configure("keys", json!({"previous": [previous]}));
    service.go();
    service.kill();
    service.go();
    let began = std::time::Instant::now();
    while gauge(&service, "keys_to_reseal") != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", gauge(&service, "keys_to_reseal"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = service.stop().says("nothing is sealed any more with the previous key-encryption key").stderr;
    assert!(!log.contains(&key), "a key stands in the log");
    let (old, new) = (std::fs::read_to_string(&previous).unwrap(), std::fs::read_to_string(&kek).unwrap());
    assert!(old != new && !log.contains(old.trim()) && !log.contains(new.trim()));

    service.configure("keys", json!({}));
    std::fs::remove_file(&previous).unwrap();
    service.go();
    assert_ne!(shown(&service, &two), key);
    service.client("key").arg(&one).done().exits(4).says("was shown to operator token");
    let keys = service.show(&two)["key"].clone();
    assert!(keys["destroyed"].is_null() && !keys["shown"].is_null(), "{keys:#}");
}
