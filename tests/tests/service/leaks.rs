//! Whatever is secret is looked for wherever the service writes: its logs at their loudest, its metrics, events, answers, page and
//! database.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Lab, Run, Service};
use serde_json::{Value, json};

use super::strangers::{Agent, issued, nobody, order, shown, token};

/// How many events the agent reports.
const EVENTS: usize = 40;

/// A secret, and what it is called.
type Secret = (String, String);

/// What stands between the lines of a PEM file, line by line: a dump may have broken it elsewhere.
fn lines_of_pem(pem: &str) -> impl Iterator<Item = &str> {
    pem.lines().filter(|line| !line.starts_with("-----") && !line.starts_with("names:") && line.len() >= 40)
}

fn is_pem(name: &str) -> bool {
    name.ends_with(".pem") || (name.ends_with(".key") && !["session.key", "kek.key"].contains(&name))
}

/// All that is secret in a folder of files, as it stands there.
fn of_folder(folder: &Path, names: &[&str], secrets: &mut Vec<Secret>) {
    for name in names {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        match String::from_utf8(bytes) {
            Ok(text) if is_pem(name) => {
                secrets.extend(lines_of_pem(&text).map(|line| ((*name).to_owned(), line.to_owned())));
            }
            Ok(text) => secrets.push(((*name).to_owned(), text.trim().to_owned())),
            // In whatever form it may be written.
            Err(bytes) => {
                let bytes = bytes.as_bytes();
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                secrets.extend([((*name).to_owned(), hex), ((*name).to_owned(), STANDARD.encode(bytes))]);
            }
        }
    }
}

/// Plays a run from its order to its end, as its agent, its owner and those who look on. All that came up and is secret.
fn play(lab: &Lab, service: &Service, seen: &mut String) -> Vec<Secret> {
    let mut secrets = Vec::new();
    let mut order = order("lpar-1");
    order["target"]["layout"] = json!("whole");
    let agent = Agent::enrol_for(lab, service, "lpar-1", &order);
    let session = agent.answer["session"].as_str().unwrap().to_owned();
    let certificate = agent.answer["certificate"].as_str().unwrap().to_owned();
    let key = agent.client.post(&agent.path("key"), Some(&session), &[], "{}").unwrap().json();
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
    seen.push_str(agent.client.post(&agent.path("events"), Some(&session), &[], &report).unwrap().text());

    let (files, _) = issued(lab, service, "ada", "operator");
    seen.push_str(shown(service, &files).get("/v1/runs").unwrap().text());
    let cookie = nobody(service).post("/v1/session", Some(&token(service, "viewer.token")), &[], "").unwrap().cookie();
    seen.push_str(nobody(service).send("GET", "/v1/session", &[("cookie", &cookie)], "").unwrap().text());
    for path in ["/v1/runs", "/metrics", &format!("/v1/runs/{}", agent.run)] {
        seen.push_str(nobody(service).send("GET", path, &[("cookie", &cookie)], "").unwrap().text());
    }
    for path in ["/", "/page.js", "/page.css", "/openapi.json"] {
        seen.push_str(nobody(service).get(path).unwrap().text());
    }
    let mut watcher = service.client("watch --json").arg(&agent.run).start();
    watcher.until("the last event", |watcher| watcher.stdout().matches("a path is slow").count() == EVENTS);
    seen.push_str(&watcher.stdout());
    watcher.kill();
    service.client("revoke --attempt 1 --reason stolen").arg(&agent.run).done().ok();
    service.client("cancel --reason enough").arg(&agent.run).done().ok();

    secrets.push(("the enrolment token".into(), agent.token.clone()));
    secrets.push(("the session token".into(), session));
    secrets.push(("the nonce".into(), "n".repeat(43)));
    secrets.push(("the key".into(), owner.trim().to_owned()));
    secrets.push(("the key without hyphens".into(), owner.trim().replace('-', "")));
    secrets.push(("the cookie".into(), cookie.split_once('=').unwrap().1.to_owned()));
    secrets.extend(lines_of_pem(&certificate).map(|line| ("the agent's certificate".to_owned(), line.to_owned())));
    of_folder(lab.dir(), &["lpar-1.key", "ada.key", "ada.pem"], &mut secrets);
    secrets
}

#[test]
fn tokens_keys_and_certificates_are_found_nowhere() {
    let lab = Lab::new();
    let mut service = Service::unstarted(&lab, json!({})).env("RUST_LOG", "trace").arg("--json-logs");
    service.go();
    let mut seen = String::new();
    let mut secrets = play(&lab, &service, &mut seen);
    of_folder(
        service.dir(),
        &["operator.token", "viewer.token", "session.key", "kek.key", "ca.key", "server.key", "ticket.key"],
        &mut secrets,
    );
    assert!(secrets.len() > 20 && secrets.iter().all(|(_, secret)| secret.len() > 30), "{secrets:?}");
    seen.push_str(&service.running().stdout());
    let done = service.stop();
    seen.push_str(&done.stderr);
    assert!(done.stderr.contains("audit") && seen.contains("z_orchestrator_keys_total"), "all of it was looked at");
    for line in done.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        // Libraries, at their loudest, have no message.
        let is_ours = line["target"].as_str().is_some_and(|of| of.starts_with("orchestrator") || of == "audit");
        let keys = ["time", "level", "target", "message"].iter().take(if is_ours { 4 } else { 3 });
        assert!(keys.clone().all(|key| line[key].is_string()), "{line}");
    }
    for (name, secret) in &secrets {
        assert!(!seen.contains(secret.as_str()), "{name} was said");
    }
    // The database with all that belongs to it, and what it says when it is asked.
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(service.dir()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("runs.sqlite") {
            stored.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    let dump = "import sqlite3, sys; sys.stdout.writelines(sqlite3.connect(sys.argv[1]).iterdump())";
    let dump = Run::tool("python3").args(["-c", dump]).arg(service.dir().join("runs.sqlite")).text();
    assert!(dump.contains("a path is slow") && dump.contains("client_key"), "{dump}");
    stored.extend(dump.bytes());
    for (name, secret) in &secrets {
        let is_there = stored.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "{name} is stored");
    }
}
