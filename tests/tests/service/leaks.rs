//! Whatever is secret is looked for wherever the service writes: its logs at their loudest, its metrics, events, answers, page and
//! database, and what it tells the agents that it starts.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use e2e::hostile::Hostile;
use e2e::postgres::{PASSWORD, Postgres};
use e2e::{Lab, MIB, Run, Service, Target, sample};
use protocol::UnlockKey;
use serde_json::{Value, json};

use super::agents;
use super::strangers::{Agent, issued, nobody, order, shown, token};

/// How many events the agent reports.
const EVENTS: usize = 40;

/// A secret: what it is called, and every form in which it is looked for.
struct Secret {
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    /// Bytes, in whatever form they may be written.
    fn bytes(name: &str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{bytes:?}");
        let mut forms = vec![hex.to_uppercase(), hex, list[1..list.len() - 1].to_owned()];
        forms.extend([STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)]);
        if let Ok(bytes) = <&[u8; UnlockKey::BYTES]>::try_from(bytes) {
            let grouped = UnlockKey::of(bytes).reveal().to_owned();
            forms.extend([grouped.replace('-', ""), grouped]);
        }
        let forms = forms.into_iter().map(String::into_bytes).chain([bytes.to_owned()]).collect();
        Secret { name: name.to_owned(), forms }
    }

    /// A text, its bytes in whatever form they may be written, and those that it stands for.
    fn text(name: &str, text: &str) -> Self {
        let mut secret = Self::bytes(name, text.as_bytes());
        for decoded in [STANDARD.decode(text), URL_SAFE_NO_PAD.decode(text)].into_iter().flatten() {
            secret.forms.extend(Self::bytes(name, &decoded).forms);
        }
        secret
    }

    /// The lines of a PEM file, one by one, as a dump may have broken it elsewhere; and where it is a private key, what that is made of.
    fn pem(name: &str, pem: &str) -> Vec<Self> {
        let lines = pem.lines().filter(|line| !line.starts_with("-----") && !line.starts_with("names:"));
        let mut secrets: Vec<_> = lines.clone().map(|line| Self::text(name, line)).collect();
        if pem.contains("PRIVATE KEY") {
            let der = STANDARD.decode(lines.collect::<String>()).unwrap();
            // An octet string of 32 bytes: a seed of Ed25519, or a scalar of P-256.
            let at = der.windows(2).position(|octets| octets == [4, 32]).unwrap() + 2;
            secrets.push(Self::bytes(name, &der[at..at + 32]));
        }
        secrets.retain(|secret| secret.forms.iter().all(|form| form.len() >= 30));
        secrets
    }

    /// A disk's key, as its owner is shown it.
    fn of_disk(shown: &str) -> Self {
        let letters = shown.bytes().filter(|byte| *byte != b'-');
        let values = letters.map(|letter| if letter < b'A' { letter - b'2' + 26 } else { letter - b'A' });
        let bits: Vec<u8> = values.flat_map(|value| (0..5).rev().map(move |bit| value >> bit & 1)).collect();
        let byte = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | bit);
        let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
        let key = <&[u8; UnlockKey::BYTES]>::try_from(&bytes[..]).unwrap();
        assert_eq!(UnlockKey::of(key).reveal(), shown, "it is read as it was written");
        Self::bytes("the disk's key", key)
    }

    /// In a folder of files.
    fn of_folder(folder: &Path, names: &[&str]) -> Vec<Self> {
        let of_file = |name: &&str| {
            let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            match String::from_utf8(bytes) {
                Ok(text) if text.contains("-----BEGIN") => Self::pem(name, &text),
                Ok(text) => vec![Self::text(name, text.trim())],
                Err(bytes) => vec![Self::bytes(name, bytes.as_bytes())],
            }
        };
        names.iter().flat_map(of_file).collect()
    }
}

/// All that is secret in the data folder.
fn of_service(service: &Service) -> Vec<Secret> {
    let names = ["operator.token", "viewer.token", "session.key", "kek.key", "ca.key", "server.key", "ticket.key"];
    Secret::of_folder(service.dir(), &names)
}

/// What somebody may get to see, and where.
#[derive(Default)]
struct Places(Vec<(String, Vec<u8>)>);

impl Places {
    fn add(&mut self, place: impl Into<String>, seen: impl Into<Vec<u8>>) {
        self.0.push((place.into(), seen.into()));
    }

    fn has(&self, text: &str) -> bool {
        self.0.iter().any(|(_, seen)| String::from_utf8_lossy(seen).contains(text))
    }

    #[track_caller]
    fn hold_none_of(&self, secrets: &[Secret]) {
        // One character for each byte: searching texts is quick, and what is no text is found as well.
        let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
        for (place, seen) in &self.0 {
            let seen = latin(seen);
            for Secret { name, forms } in secrets {
                let found = forms.iter().find_map(|form| seen.find(&latin(form)));
                let before = found.and_then(|at| seen[..at].rsplit('\n').next());
                assert!(before.is_none(), "{name} stands in {place}, after: {}", before.unwrap_or_default());
            }
        }
    }
}

/// Asks by HTTP/2, with a token and perhaps a certificate; what is answered.
fn by_http2(service: &Service, path: &str, token: &str, shown: &[PathBuf], body: Option<&str>) -> String {
    let curl = Run::tool("curl")
        .words("--http2 --silent --show-error --max-time 20")
        .args(["--write-out", "\n%{http_version}"]);
    let curl = curl.arg("--cacert").arg(service.dir().join("ca.pem"));
    let curl = ["--cert", "--key"].iter().zip(shown).fold(curl, |curl, (option, file)| curl.arg(option).arg(file));
    let curl = curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    let curl = body.iter().fold(curl, |curl, body| curl.args(["--json", body]));
    let said = curl.arg(format!("{}{path}", service.url())).text();
    said.strip_suffix("\n2").unwrap_or_else(|| panic!("not by HTTP/2: {said}")).to_owned()
}

/// Reads what everybody who may read is told of all runs, until the service ends.
fn listen(service: &Service) -> JoinHandle<Vec<u8>> {
    let viewer = format!("Bearer {}", token(service, "viewer.token"));
    let mut stream = nobody(service).begin("GET", "/v1/events", &[("authorization", &viewer)], "").unwrap();
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        // However it ends.
        let _ = stream.read_to_end(&mut heard);
        heard
    })
}

/// Plays a run from its order to its end, as its agent, its owner and those who look on. All that came up and is secret.
fn play(lab: &Lab, service: &Service, places: &mut Places) -> Vec<Secret> {
    let mut order = order("lpar-1");
    order["target"]["layout"] = json!("whole");
    let agent = Agent::enrol_for(lab, service, "lpar-1", &order);
    let session = agent.answer["session"].as_str().unwrap().to_owned();
    let certificate = agent.answer["certificate"].as_str().unwrap().to_owned();
    let pair = ["lpar-1.pem", "lpar-1.key"].map(|name| lab.path(name));
    let key: Value = serde_json::from_str(&by_http2(service, &agent.path("key"), &session, &pair, Some("{}"))).unwrap();
    let again = agent.client.post(&agent.path("key"), Some(&session), &[], "{}").unwrap();
    assert_eq!(again.json()["code"], "key-released");
    let owner = service.client("key").arg(&agent.run).text();
    assert_eq!(Some(owner.trim()), key["key"].as_str(), "the owner is shown what the agent was given");
    let events: Vec<Value> = (0..EVENTS)
        .map(|index| {
            json!({"run": agent.run, "attempt": 1, "index": index, "at": 1.0, "time": "2026-01-01T00:00:00Z",
                "event": {"kind": "warning", "message": "a path is slow"}})
        })
        .collect();
    let report = json!({ "events": events }).to_string();
    places.add(
        "an agent's answers",
        agent.client.post(&agent.path("events"), Some(&session), &[], &report).unwrap().text(),
    );
    for what in ["events", "lease"] {
        let body = if what == "lease" { "{}" } else { r#"{"events": []}"# };
        places.add("an agent's answers", by_http2(service, &agent.path(what), &session, &pair, Some(body)));
    }

    let cookie = look_on(lab, service, &agent.run, places);
    service.client("revoke --attempt 1 --reason stolen").arg(&agent.run).done().ok();
    service.client("cancel --reason enough").arg(&agent.run).done().ok();

    let mut secrets = vec![
        Secret::text("the enrolment token", &agent.token),
        Secret::text("the session token", &session),
        Secret::text("the nonce", &"n".repeat(43)),
        Secret::text("the cookie", &cookie),
        Secret::of_disk(owner.trim()),
    ];
    secrets.extend(Secret::pem("the agent's certificate", &certificate));
    secrets.extend(Secret::of_folder(lab.dir(), &["lpar-1.key", "ada.key", "ada.pem"]));
    secrets
}

/// Sees what there is to see of a run, as people do, by certificate, token and cookie: that, which is secret.
fn look_on(lab: &Lab, service: &Service, run: &str, places: &mut Places) -> String {
    let (files, _) = issued(lab, service, "ada", "operator");
    places.add("a person's answers", shown(service, &files).get("/v1/runs").unwrap().text());
    let viewer = token(service, "viewer.token");
    let cookie = nobody(service).post("/v1/session", Some(&viewer), &[], "").unwrap().cookie();
    for path in ["/v1/runs", "/v1/session", "/metrics", &format!("/v1/runs/{run}")] {
        let said = nobody(service).send("GET", path, &[("cookie", &cookie)], "").unwrap();
        places.add(path, said.text());
        places.add(path, by_http2(service, path, &viewer, &[], None));
    }
    by_http2(service, "/v1/session", &token(service, "operator.token"), &[], Some("{}"));
    for path in ["/", "/page.js", "/page.css", "/openapi.json"] {
        places.add(path, nobody(service).get(path).unwrap().text());
    }
    let mut watcher = service.client("watch --json").arg(run).start();
    watcher.until("the last event", |watcher| watcher.stdout().matches("a path is slow").count() == EVENTS);
    places.add("the run's events", watcher.stdout());
    watcher.kill();
    cookie.split_once('=').unwrap().1.to_owned()
}

/// What the service says by itself, from its start to its end.
fn end(service: &mut Service, events: JoinHandle<Vec<u8>>, places: &mut Places) -> String {
    places.add("its output", service.running().stdout());
    let done = service.stop();
    places.add("its log", done.stderr.clone());
    places.add("the events of all", events.join().unwrap());
    for expected in ["audit", "z_orchestrator_keys_total", "event: state", "a path is slow", "HEADERS", "<html"] {
        assert!(places.has(expected), "it was not looked at: {expected}");
    }
    done.stderr
}

#[test]
fn tokens_keys_and_certificates_are_found_nowhere() {
    let lab = Lab::new();
    let mut service = Service::unstarted(&lab, json!({})).env("RUST_LOG", "trace").arg("--json-logs");
    service.go();
    let mut places = Places::default();
    let events = listen(&service);
    let mut secrets = play(&lab, &service, &mut places);
    secrets.extend(of_service(&service));
    assert!(secrets.len() > 20 && secrets.iter().all(|secret| secret.forms.iter().all(|form| form.len() > 20)));
    for line in end(&mut service, events, &mut places).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        // Libraries, at their loudest, have no message.
        let is_ours = line["target"].as_str().is_some_and(|of| of.starts_with("orchestrator") || of == "audit");
        let keys = ["time", "level", "target", "message"].iter().take(if is_ours { 4 } else { 3 });
        assert!(keys.clone().all(|key| line[key].is_string()), "{line}");
    }
    // The database with all that belongs to it, and what it says when it is asked.
    for entry in std::fs::read_dir(service.dir()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("runs.sqlite") {
            places.add(entry.path().display().to_string(), std::fs::read(entry.path()).unwrap());
        }
    }
    let dump = "import sqlite3, sys; sys.stdout.writelines(sqlite3.connect(sys.argv[1]).iterdump())";
    let dump = Run::tool("python3").args(["-c", dump]).arg(service.dir().join("runs.sqlite")).text();
    assert!(dump.contains("a path is slow") && dump.contains("client_key"), "{dump}");
    places.add("the dump", dump);
    places.hold_none_of(&secrets);
}

/// What is seen on this machine of a process: its command line, which everybody sees, and its environment, as far as it is not our own.
fn seen_of(process: i32) -> Vec<String> {
    let read = |process: &str, what| text(std::fs::read(format!("/proc/{process}/{what}")).unwrap());
    let own = read("self", "environ");
    let own: BTreeSet<&str> = own.split('\0').collect();
    let (line, environment) = (read(&process.to_string(), "cmdline"), read(&process.to_string(), "environ"));
    let others = environment.split('\0').filter(|variable| !own.contains(variable)).map(str::to_owned);
    others.chain([line]).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where in a text words stand that could be tokens: as long, of their letters, and with more kinds of them than names have.
fn tokens(text: &str) -> Vec<&str> {
    let is_of_tokens = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = text.split(|c: char| !is_of_tokens(c)).filter(|word| {
        let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
        word.len() == protocol::Token::LEN
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
    });
    words
        .map(|word| {
            let end = word.as_ptr().addr() - text.as_ptr().addr() + word.len();
            &text[text[..end].rfind('\n').map_or(0, |at| at + 1)..end]
        })
        .collect()
}

/// A dump without the keys that are sealed in it, whose letters by chance are those of a token.
fn without_sealed(dump: &str) -> String {
    let mut parts = dump.split(r#""sealed":"#);
    let first = parts.next().unwrap().to_owned();
    let rest: Vec<_> = parts.map(|part| part.split_once('}').unwrap().1).collect();
    assert!(!rest.is_empty(), "no key is sealed");
    first + &rest.concat()
}

#[test]
fn nor_are_they_in_postgresql_or_about_an_agent_that_the_service_starts() {
    let lab = Lab::new();
    let postgres = Postgres::new();
    let image = lab.pack_bytes(&sample::noise(7, MIB as usize), "--chunk-size 64KiB");
    let target = Target::device(&lab, 40 * MIB, "");
    let agent = e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN");
    let config = json!({"store": postgres.url(), "process": {"agent": agent, "trust": [image.key.public]}});
    // The agent is as loud.
    let mut service = Service::unstarted(&lab, config).env("RUST_LOG", "trace");
    service.go();
    let (mut places, events) = (Places::default(), listen(&service));
    let mut secrets = play(&lab, &service, &mut places);

    // It is given its image once it was looked at.
    let looked_at = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&looked_at);
    let server = Hostile::start(
        &image.dir,
        Arc::new(move |_, honest| {
            while !waits.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            honest.into()
        }),
    );
    let mut order = agents::order(&image, "lpar-2", &server.url(), &target);
    (order["target"]["layout"], order["max_attempts"]) = (json!("whole"), json!(1));
    let run = service.create(&lab, &order);
    service.running().until("an agent that asks for its image", |_| !server.asked().is_empty());
    let mut of_agent = seen_of(agents::agent(&service, &run));
    let log = std::fs::File::open(service.dir().join(format!("agents/{run}.1.log"))).unwrap();
    looked_at.store(true, Ordering::SeqCst);
    // Whether there is a device mapper here decides how it ends.
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!(ended["key"]["released"], json!([1]), "{ended:#}");
    secrets.push(Secret::of_disk(service.client("key").arg(&run).text().trim()));
    // Where all is well it has no name any more.
    of_agent.push(std::io::read_to_string(log).unwrap());
    for expected in ["enrolled: attempt 1", "--server\0lpar-2\0--token\0/dev/stdin", "RUST_LOG=trace"] {
        assert!(of_agent.iter().any(|seen| seen.contains(expected)), "it was not looked at: {expected}");
    }
    for seen in of_agent {
        // What nobody but these two processes knows is in no form that it could have.
        assert_eq!(tokens(&seen), [""; 0]);
        places.add("what is seen of an agent", seen);
    }

    secrets.extend(of_service(&service));
    secrets.push(Secret { name: "the database's password".into(), forms: vec![PASSWORD.into()] });
    assert_eq!(tokens(&end(&mut service, events, &mut places)), [""; 0]);
    let dump = postgres.dump();
    assert!(dump.contains("a path is slow") && dump.contains("client_key"), "{dump}");
    assert_eq!(tokens(&without_sealed(&dump)), [""; 0]);
    places.add("the dump", dump);
    places.hold_none_of(&secrets);
}
