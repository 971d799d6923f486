//! Seeds of what agents send.

use serde_json::{Value, json};

use super::Seeds;

const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li_hp_m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q";

/// Adds them.
pub fn add(seeds: &mut Seeds) {
    enrolments(seeds);
    reports(seeds);
    leases(seeds);
}

fn enrolments(seeds: &mut Seeds) {
    let mut add = |name: &str, value: Value| seeds.add("enrol", name, value.to_string());
    let nonce = "n".repeat(43);
    let whole = json!({"run": "r-fuzz", "nonce": nonce, "client_key": KEY, "agent": "z-provisioner 0.1.0", "server": "lpar-17"});
    add("whole.json", whole.clone());
    add("least.json", json!({"nonce": nonce, "client_key": KEY, "agent": "a"}));
    let mut with = |name: &str, key: &str, value: Value| {
        let mut changed = whole.clone();
        changed[key] = value;
        add(name, changed);
    };
    with("another-server.json", "server", json!("lpar-18"));
    with("another-run.json", "run", json!("r-other"));
    with("no-name.json", "server", json!("../../etc/passwd"));
    with("long-agent.json", "agent", json!("x".repeat(300)));
    with("controls.json", "agent", json!("\u{1b}[2J\u{0}"));
    with("short-nonce.json", "nonce", json!("short"));
    with("no-key.json", "client_key", json!(KEY.replace("MFkw", "MFkx")));
    with("unknown-key.json", "surprise", json!(true));
    with("null.json", "nonce", Value::Null);
    with("no-text.json", "agent", json!(["a"]));
}

fn event(index: u64, body: &Value) -> Value {
    json!({"run": "r-fuzz", "attempt": 2, "index": index, "at": 1.5, "time": "2026-01-02T03:04:05.678Z", "event": body})
}

fn reports(seeds: &mut Seeds) {
    let mut add = |name: &str, value: Value| seeds.add("report", name, value.to_string());
    let failed = json!({"kind": "run-failed", "phase": "stream", "error": "source", "exit_code": 5, "message": "gone",
        "retryable": true, "target": "not-bootable"});
    let finished = json!({
        "kind": "run-finished",
        "image": {"name": "debian-13", "version": 7, "architecture": "s390x", "digest": format!("sha256:{}", "0".repeat(64)), "signers": []},
        "target": {"device": "LUN 36005076", "size": 1 << 30},
        "raw_bytes": 1, "data_bytes": 1, "zero_bytes": 0, "fetched_bytes": 1, "proof": {"read-back": {"bytes": 1}},
        "engine": "io_uring", "retries": 0, "phases": [], "write_seconds": 1.0, "read_back_seconds": 1.0, "total_seconds": 2.0,
    });
    let progress = json!({"kind": "progress", "phase": "stream", "step": "write", "bytes": 1, "total_bytes": 2, "chunks": 1,
        "total_chunks": 2, "rates": {"source": 1, "decode": 1, "write": 1, "read_back": 0}});
    let of = |events: &[Value]| json!({"events": events});
    let started = |phase: &str| json!({"kind": "phase-started", "phase": phase});
    add("nothing.json", of(&[]));
    add("progress.json", of(&[event(3, &progress)]));
    add(
        "finished.json",
        of(&[
            event(3, &json!({"kind": "phase-finished", "phase": "target", "seconds": 1.0, "detail": "ours"})),
            event(4, &finished),
        ]),
    );
    add("failed.json", of(&[event(3, &started("stream")), event(9, &failed)]));
    add(
        "cancelled.json",
        of(&[event(
            3,
            &json!({"kind": "run-failed", "phase": "target", "error": "cancelled", "exit_code": 8,
        "message": "stopped", "retryable": false, "target": "untouched"}),
        )]),
    );
    add("after-the-end.json", of(&[event(3, &failed), event(4, &finished)]));
    add("replayed.json", of(&[event(0, &started("spec")), event(1, &started("image"))]));
    add("out-of-order.json", of(&[event(5, &started("spec")), event(4, &started("image"))]));
    add("far.json", of(&[event(u64::MAX, &started("spec"))]));
    add("unknown.json", of(&[event(3, &json!({"kind": "teleported", "to": {"x": [1, 2]}}))]));
    add("steps.json", of(&[event(3, &json!({"kind": "step-started", "phase": "dreaming", "step": "flying"}))]));
    add("long.json", of(&[event(3, &json!({"kind": "warning", "message": "w".repeat(4000)}))]));
    let mut other = event(3, &started("spec"));
    other["run"] = json!("r-other");
    add("of-another-run.json", of(&[other]));
    let mut other = event(4, &failed);
    other["attempt"] = json!(1);
    add("of-another-attempt.json", of(&[other]));
    add("no-list.json", json!({"events": {}}));
}

fn leases(seeds: &mut Seeds) {
    let mut add = |name: &str, text: &str| seeds.add("lease", name, text);
    for (name, text) in [
        ("empty.json", "{}"),
        ("nothing", ""),
        ("spaces.json", " { } "),
        ("unknown.json", "{\"seconds\":1000000}"),
        ("list.json", "[]"),
        ("null.json", "null"),
        ("number.json", "1"),
        ("text.json", "\"{}\""),
        ("open.json", "{"),
        ("twice.json", "{}{}"),
        ("deep.json", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
    ] {
        add(name, text);
    }
}
