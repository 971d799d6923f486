//! What agents and those who order runs say: as long as what real ones say, and made without a library, for it is said ten thousand
//! times a second.

use serde_json::json;

/// The image that all runs write, in bytes.
const IMAGE: u64 = 8 << 30;

/// A request for the run of this number. No two have a server or a target in common.
pub fn order(number: usize) -> String {
    json!({
        "server": format!("lpar-{number}"),
        "launcher": "external",
        "image": {"name": "debian-13", "sources": ["https://images.example/debian-13"], "trust": ["ab".repeat(32)]},
        "target": {"lun": {"wwid": format!("3600507630{number:023}"), "min_paths": 2}},
    })
    .to_string()
}

/// What an agent enrols with.
pub fn enrol(run: &str, number: usize) -> String {
    let nonce = format!("{number:0>43}");
    json!({"run": run, "nonce": nonce, "agent": "z-provisioner 0.1.0", "server": format!("lpar-{number}")}).to_string()
}

/// An event in its envelope.
pub fn event(run: &str, index: u64, at: f64, body: &str) -> String {
    format!(
        r#"{{"run":"{run}","attempt":1,"index":{index},"at":{at:.3},"time":"2027-03-01T09:00:09.123456Z","event":{body}}}"#
    )
}

/// A report of events.
pub fn report(events: &[String]) -> String {
    format!(r#"{{"events":[{}]}}"#, events.join(","))
}

/// How far a stream is that will take `whole` seconds, after `at` of them.
pub fn progress(at: f64, whole: f64) -> String {
    let bytes = (IMAGE as f64 * (at / whole).min(1.0)) as u64;
    let (rate, left) = ((IMAGE as f64 / whole) as u64, (whole - at).max(0.0) as u64);
    format!(
        r#"{{"kind":"progress","phase":"stream","step":"write","bytes":{bytes},"total_bytes":{IMAGE},"chunks":{},"total_chunks":{},"rates":{{"source":{},"decode":{rate},"write":{rate},"read_back":0}},"limited_by":"source","eta_seconds":{left}}}"#,
        bytes >> 22,
        IMAGE >> 22,
        rate / 3,
    )
}

/// What comes before the stream.
pub fn beginning() -> Vec<String> {
    [
        json!({"kind": "run-started", "agent": "z-provisioner 0.1.0", "image": "debian-13", "target": "LUN 36005076303ffd327"}),
        json!({"kind": "phase-started", "phase": "target"}),
        json!({"kind": "step-started", "phase": "target", "step": "paths"}),
        json!({"kind": "phase-finished", "phase": "target", "seconds": 3.25, "detail": "LUN 36005076303ffd327, 4 of 4 paths"}),
        json!({"kind": "phase-started", "phase": "stream"}),
        json!({"kind": "step-started", "phase": "stream", "step": "write"}),
    ]
    .iter()
    .map(ToString::to_string)
    .collect()
}

/// What comes now and then while it streams.
pub fn now_and_then(number: u64) -> String {
    match number % 3 {
        0 => json!({"kind": "warning", "message": "the source answers slowly: 4.2 MiB/s over the last 10 s"}),
        1 => json!({"kind": "path-changed", "path": "sdb", "way": "0.0.1940 0x5005076306ffd327 0x4010400000000000", "state": "down", "live": 3, "total": 4}),
        _ => json!({"kind": "retry", "source": "https://images.example/debian-13", "message": "the connection was closed; asking again"}),
    }
    .to_string()
}

/// What comes last.
pub fn end() -> Vec<String> {
    let summary = json!({
        "kind": "run-finished",
        "image": {"name": "debian-13", "version": 7, "architecture": "s390x", "digest": format!("sha256:{}", "0".repeat(64)), "signers": ["ab".repeat(32)]},
        "target": {"device": "LUN 36005076303ffd327", "size": IMAGE, "layout": "plain", "paths": {"live": 4, "total": 4}},
        "raw_bytes": IMAGE, "data_bytes": IMAGE, "zero_bytes": 0, "fetched_bytes": IMAGE / 3,
        "proof": {"read-back": {"bytes": IMAGE}}, "engine": "io_uring (O_DIRECT)", "retries": 1,
        "phases": [{"phase": "target", "seconds": 3.25}, {"phase": "stream", "seconds": 60.5}],
        "write_seconds": 40.5, "read_back_seconds": 20.0, "total_seconds": 64.0,
    });
    let finished =
        json!({"kind": "phase-finished", "phase": "stream", "seconds": 60.5, "detail": "8 GiB written and read back"});
    vec![finished.to_string(), summary.to_string()]
}
