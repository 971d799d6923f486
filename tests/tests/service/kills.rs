//! The service is killed, at random, while hundreds of runs go on; a witness outside of it watches the targets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use e2e::witness::GotKey;
use e2e::{Lab, Service, Witness};
use serde_json::{Value, json};

/// Kills of one run of this test.
fn kills() -> u32 {
    if std::env::var_os("Z_SOAK").is_some() { 100 } else { 10 }
}

const RUNS: usize = 200;

fn lot(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() % below
}

/// Fewer servers and targets than runs: most have to wait for others.
fn order(number: usize) -> Value {
    json!({
        "server": format!("server-{}", number % 60),
        "image": {"name": "sample", "sources": ["http://127.0.0.1:1/"], "trust": ["a".repeat(64)]},
        "target": {"device": format!("/dev/fake-{}", number % 50), "layout": "whole"},
        "max_attempts": 20,
    })
}

#[test]
fn killed_at_random_it_ends_every_run_once_and_no_two_agents_hold_a_target() {
    let lab = Lab::new();
    let witness = Witness::new(lab.dir());
    let key = lab.key();
    let mut service = Service::new(
        &lab,
        json!({
            "limits": {"runs": 24, "per_source": 100, "per_fabric": {"*": 100}},
            "lease": {"seconds": 5, "renew_after": 1, "grace": 1},
            "retry": {"first_seconds": 1, "most_seconds": 2},
            "process": {
                "agent": env!("CARGO_BIN_EXE_actor"),
                "trust": [key.public],
                "args": ["--witness", witness.path()],
            },
        }),
    );
    let mut runs = Vec::new();
    for number in 0..RUNS {
        let file = lab.file("new.json", order(number).to_string().as_bytes());
        // The same request again, if its answer is lost; it is killed while runs are created, too.
        let key = format!("key-{number}");
        if number % (RUNS / 3) == RUNS / 6 {
            service.kill();
            service.go();
        }
        let create = || service.client("create --key").arg(&key).arg(&file).text().trim().to_owned();
        runs.push(create());
        if number % 50 == 0 {
            assert_eq!(create(), runs[number], "the same key, the same run");
        }
    }
    for number in 0..kills() {
        std::thread::sleep(Duration::from_millis(200 + lot(1000)));
        service.kill();
        if number % 10 == 4 {
            // Longer than a lease lasts.
            std::thread::sleep(Duration::from_secs(6));
        }
        service.go();
    }
    let began = Instant::now();
    let ended = loop {
        let all = service.list();
        assert_eq!(all.len(), RUNS, "none is lost, none is there twice");
        let open = all.iter().filter(|run| run["ended"].is_null()).count();
        if open == 0 {
            break all;
        }
        assert!(
            began.elapsed() < Duration::from_secs(240),
            "{open} runs do not end: {:#?}",
            all.iter().find(|run| run["ended"].is_null())
        );
        std::thread::sleep(Duration::from_millis(500));
    };
    witness.saw_no_two();
    let lost = no_attempt_got_a_key_twice(&service, &ended, &witness.keys());
    let mut attempts = 0;
    for run in &ended {
        let name = run["run"].as_str().unwrap();
        assert!(runs.iter().any(|known| known == name));
        assert_eq!(run["state"], "succeeded", "{run:#}");
        // Done once; or again where the service had no word of it within its lease, and then by a later attempt.
        let (made, done) = (run["attempts"].as_array().unwrap(), witness.done(name));
        let succeeded = made.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
        assert!(succeeded == 1 && done >= 1 && made.last().unwrap()["outcome"] == "succeeded", "{run:#}");
        attempts += made.len();
        let told = service_events(&service, name);
        assert_eq!(told.iter().filter(|state| *state == "succeeded").count(), 1, "{told:?}");
    }
    eprintln!(
        "{lost} keys were marked as given and did not arrive; {RUNS} runs, {} kills, {attempts} attempts, {} times a target was held",
        kills() + 3,
        witness.holds()
    );
    assert!(attempts > RUNS, "nothing went wrong, so nothing was shown");
}

/// Each attempt got one key at most, the run's own, and only where that is stored. How many were marked as given and did not arrive.
fn no_attempt_got_a_key_twice(service: &Service, ended: &[Value], got: &[GotKey]) -> usize {
    let mut given = 0;
    let mut keys: HashMap<&str, &str> = HashMap::new();
    for run in ended {
        let name = run["run"].as_str().unwrap();
        let released: Vec<u64> =
            run["key"]["released"].as_array().unwrap().iter().map(|attempt| attempt.as_u64().unwrap()).collect();
        given += released.len();
        let of_run: Vec<&GotKey> = got.iter().filter(|got| got.run == name).collect();
        for (at, one) in of_run.iter().enumerate() {
            assert!(of_run[..at].iter().all(|other| other.attempt != one.attempt), "twice: {one:?}");
            assert!(released.contains(&one.attempt), "{one:?} is not stored: {run:#}");
            assert_eq!(one.key, of_run[0].key, "a run has one key");
        }
        let key = &of_run.first().expect("a run that has ended well got its key").key;
        assert!(keys.insert(key, name).is_none(), "two runs have one key");
    }
    assert!(got.iter().all(|got| keys.contains_key(got.key.as_str())), "a key of no run");
    for file in ["runs.sqlite", "runs.sqlite-wal"] {
        let bytes = std::fs::read(service.dir().join(file)).unwrap_or_default();
        let is_there = |key: &str| bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!keys.keys().take(5).any(|key| is_there(key)), "a key stands in the clear in {file}");
    }
    given - got.len()
}

/// The states that a run went through, as its watchers are told. Only of some: each is a process.
fn service_events(service: &Service, run: &str) -> Vec<String> {
    if lot(8) != 0 {
        return vec!["succeeded".into()];
    }
    let watched = service.client("watch --json").arg(run).done().ok();
    watched.json().iter().filter_map(|event| Some(event["state"]["state"].as_str()?.to_owned())).collect()
}
