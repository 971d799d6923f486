//! Values as they go over the wire, for the schemas to be compared with: each has been one of our types.

use orchestrator::identity::Who;
use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report};
use protocol::control::key::{KeyEvent, KeyState, ReleasedKey, ShownKey};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{
    Cancel, ConfirmDeath, EnrolmentToken, Fleet, Happening, NewRun, Nothing, Revoke, Run, RunPage, RunProgress,
};
use protocol::event::{Event, KINDS};
use protocol::{BusId, ClientKey, Digest, Label, Lun, RunId, ServerName, Token, UnlockKey, Wwid, Wwpn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fake::{KEY, OPERATOR, SESSION, order, progress, run};

/// Values with the names of their schemas, and whether they are valid.
pub fn instances() -> Vec<(&'static str, Value, bool)> {
    let mut all = Vec::new();
    orders(&mut all);
    runs(&mut all);
    keys(&mut all);
    events(&mut all);
    agents(&mut all);
    problems(&mut all);
    texts(&mut all);
    all
}

type Instances = Vec<(&'static str, Value, bool)>;

/// A value that our type takes, as it writes it.
fn real<T: DeserializeOwned + Serialize>(all: &mut Instances, schema: &'static str, value: Value) {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{schema}: {error}: {value}"));
    all.push((schema, value, true));
    all.push((schema, serde_json::to_value(read).unwrap(), true));
}

/// A value that our type refuses.
fn refused<T: DeserializeOwned>(all: &mut Instances, schema: &'static str, value: Value) {
    assert!(serde_json::from_value::<T>(value.clone()).is_err(), "{schema}: {value}");
    all.push((schema, value, false));
}

fn with(mut value: Value, pointer: &str, part: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[key] = part;
    value
}

fn full_order() -> Value {
    json!({
        "server": "lpar-17", "launcher": "external", "fabric": "san-a", "priority": -100, "max_attempts": 100, "deadline": 2_592_000,
        "image": {
            "name": "debian-13", "architecture": "s390x", "digest": format!("sha256:{}", "ab".repeat(32)), "min_version": 7,
            "sources": ["https://images.example/debian-13", "oci://registry.example/debian:13"],
            "trust": ["ab".repeat(32), "cd".repeat(32)], "threshold": 2,
        },
        "key": "service",
        "target": {
            "lun": {
                "wwid": "36005076303ffd3270000000000001017", "min_paths": 2, "wait": 90,
                "fcp": [
                    {"adapter": "0.0.1900"},
                    {"adapter": "0.0.1940", "wwpn": "0x5005076306ffd327", "lun": "0x4010400000000000"},
                ],
            },
            "layout": "split", "reservation": "prefer", "wipe": true, "tail": "zero",
            "luks": {
                "cipher": "aes-xts-plain64", "key_size": 512, "discards": true, "unlock": "console",
                "pbkdf": {"type": "argon2id", "memory": 65536, "time": 4, "parallel": 4},
            },
        },
        "options": {"engine": "uring", "read_back": true, "resume": true, "connections": 64, "request_size": 65536, "stall_limit": 1},
        "ipsec": "not-required", "hand_over": "re-ipl",
    })
}

fn orders(all: &mut Instances) {
    let (least, most) = (order("lpar-1"), full_order());
    for order in [&least, &most] {
        let parsed = NewRun::parse(order.to_string().as_bytes()).unwrap();
        all.push(("NewRun", serde_json::to_value(parsed).unwrap(), true));
        real::<NewRun>(all, "NewRun", order.clone());
    }
    real::<NewRun>(
        all,
        "NewRun",
        with(most.clone(), "/target/luks/pbkdf", json!({"type": "pbkdf2", "iterations": 1000})),
    );
    for (pointer, value) in [
        ("/sever", json!("x")),
        ("/server", json!("a b")),
        ("/server", json!("x".repeat(129))),
        ("/target/wipes", json!(true)),
        ("/target/layout", json!("odd")),
        ("/key", json!("nobody")),
        ("/target/lun/fcp/0/adapter", json!("0.0.XYZW")),
        ("/target/lun/fcp/1/wwpn", json!("5005076306ffd327")),
        ("/target/luks/pbkdf", json!({"type": "scrypt"})),
        ("/image/digest", json!("sha256:AB")),
        ("/image/sources", json!("one")),
        ("/options/connections", json!("many")),
        ("/deadline", json!(-1)),
        ("/launcher", json!("somebody")),
    ] {
        refused::<NewRun>(all, "NewRun", with(most.clone(), pointer, value));
    }
    // What the types take and `check` refuses is in the schema as well, where it can be.
    for (pointer, value) in [
        ("/priority", json!(101)),
        ("/max_attempts", json!(0)),
        ("/deadline", json!(2_592_001)),
        ("/options/connections", json!(65)),
        ("/image/sources", json!([])),
        ("/image/name", json!("")),
        ("/target/lun/min_paths", json!(0)),
    ] {
        let broken = with(most.clone(), pointer, value);
        assert!(NewRun::parse(broken.to_string().as_bytes()).is_err(), "{broken}");
        all.push(("NewRun", broken, false));
    }
    let mut without = least;
    without.as_object_mut().unwrap().remove("server");
    refused::<NewRun>(all, "NewRun", without);
}

fn runs(all: &mut Instances) {
    real::<Who>(all, "Who", json!({"role": "viewer", "name": "viewer token"}));
    refused::<Who>(all, "Who", json!({"role": "king", "name": "viewer token"}));
    let smallest = serde_json::to_value(run("r-1", "queued".to_owned().into())).unwrap();
    real::<Run>(all, "Run", smallest.clone());
    let mut full = smallest.clone();
    for (key, value) in [
        ("state", json!("lost")),
        ("deadline", json!("2027-01-01T01:00:00Z")),
        ("ended", json!("2027-01-01T01:00:00Z")),
        ("cancel", json!(true)),
        ("waits", json!({"for": "person", "detail": "confirm that the agent of attempt 1 is dead"})),
        (
            "attempts",
            json!([
                {"attempt": 1, "started": "2027-01-01T00:00:00Z"},
                {"attempt": 2, "started": "2027-01-01T00:10:00Z", "ended": "2027-01-01T00:20:00Z", "agent": "z-provisioner 0.1.0",
                 "handle": "1234", "outcome": "lost", "reason": "it went silent"},
            ]),
        ),
        ("silent", json!([1, 2])),
        ("phase", json!("stream")),
        ("step", json!("write")),
        ("paths", json!({"live": 3, "total": 4, "since": "2027-01-01T00:10:00Z"})),
        ("progress", serde_json::to_value(progress(10)).unwrap()),
        ("summary", summary()),
        ("failure", failure()),
        ("key", key_state()),
        ("policy", json!(format!("sha256:{}", "ab".repeat(32)))),
        ("order", full_order()),
    ] {
        full[key] = value;
    }
    real::<Run>(all, "Run", full.clone());
    // Words that were unknown when this was written, and keys.
    for (pointer, value) in [
        ("/state", json!("paused")),
        ("/waits/for", json!("moon")),
        ("/attempts/1/outcome", json!("odd")),
        ("/more", json!([1])),
    ] {
        real::<Run>(all, "Run", with(full.clone(), pointer, value));
    }
    real::<RunPage>(all, "RunPage", json!({"runs": [smallest, full.clone()], "next": "41"}));
    real::<RunPage>(all, "RunPage", json!({"runs": []}));
    refused::<Run>(all, "Run", with(full.clone(), "/run", json!("")));
    refused::<Run>(all, "Run", with(full.clone(), "/paths/live", json!(-1)));
    refused::<Run>(all, "Run", with(full, "/attempts/0/attempt", json!("one")));
    real::<Cancel>(all, "Cancel", json!({"reason": "x"}));
    real::<Cancel>(all, "Cancel", json!({}));
    refused::<Cancel>(all, "Cancel", json!({"why": "x"}));
    real::<Nothing>(all, "Nothing", json!({}));
    refused::<Nothing>(all, "Nothing", json!({"x": 1}));
    real::<ConfirmDeath>(all, "ConfirmDeath", json!({"attempt": 1}));
    refused::<ConfirmDeath>(all, "ConfirmDeath", json!({}));
    real::<Revoke>(all, "Revoke", json!({"attempt": 1}));
    real::<Revoke>(all, "Revoke", json!({"attempt": 7, "reason": "the medium was lost"}));
    refused::<Revoke>(all, "Revoke", json!({"reason": "the medium was lost"}));
    real::<EnrolmentToken>(all, "EnrolmentToken", json!({"run": "r-1", "attempt": 1, "token": OPERATOR}));
    refused::<EnrolmentToken>(all, "EnrolmentToken", json!({"run": "r-1", "attempt": 1, "token": "short"}));
}

fn key_state() -> Value {
    let deed = json!({"at": "2027-01-01T00:00:00Z", "by": "operator token", "reason": "r"});
    json!({"source": "service", "made": "2027-01-01T00:00:00Z", "released": [1, 2], "shown": deed, "destroyed": deed})
}

fn keys(all: &mut Instances) {
    let key = UnlockKey::of(&[7; UnlockKey::BYTES]);
    real::<ReleasedKey>(all, "ReleasedKey", json!({"key": key}));
    refused::<ReleasedKey>(all, "ReleasedKey", json!({"key": "AAAA"}));
    real::<ShownKey>(all, "ShownKey", json!({"run": "r-1", "key": key}));
    refused::<ShownKey>(all, "ShownKey", json!({"key": key}));
    for state in [key_state(), json!({"source": "agent"})] {
        real::<KeyState>(all, "KeyState", state);
    }
    refused::<KeyState>(all, "KeyState", json!({}));
    for event in [
        json!({"action": "released", "attempt": 1, "by": "attempt 1"}),
        json!({"action": "destroyed", "by": "x", "reason": "r"}),
        json!({"action": "lent", "by": "x"}),
    ] {
        real::<KeyEvent>(all, "KeyEvent", event.clone());
        real::<Happening>(all, "Happening", json!({"run": "r-1", "time": "2027-01-01T00:00:00Z", "key": event}));
    }
    refused::<KeyEvent>(all, "KeyEvent", json!({"by": "x"}));
}

fn summary() -> Value {
    json!({
        "image": {"name": "debian-13", "version": 7, "architecture": "s390x", "digest": format!("sha256:{}", "0".repeat(64)), "signers": ["aa"]},
        "target": {
            "device": "LUN 3600", "size": 4096, "layout": "split", "paths": {"live": 2, "total": 4},
            "reservation": {"held": {"key": "0x5a50000000000001", "preempted": ["0x01"]}},
            "containers": [{"region": "root", "uuid": "u", "cipher": "aes-xts-plain64", "sector_size": 4096, "kept": false}],
            "wiped": ["a GPT"],
        },
        "raw_bytes": 4096, "data_bytes": 3072, "zero_bytes": 1024, "fetched_bytes": 900, "kept_bytes": 0,
        "tail": {"bytes": 10, "how": "zeroed-by-device", "proven_bytes": 10}, "gpt": "moved", "partitions": "shown",
        "proof": {"read-back": {"bytes": 4096}}, "ipsec": "required", "engine": "io_uring (O_DIRECT)", "fallback": "x",
        "limited_by": "write", "retries": 1, "phases": [{"phase": "spec", "seconds": 0.001}],
        "write_seconds": 1.5, "read_back_seconds": 0.5, "total_seconds": 2.25,
        "torn_down": {"undone": ["a"], "left": ["b"]}, "ipl": {"record": "zIPL", "from": "0.0.1900"},
    })
}

fn failure() -> Value {
    json!({
        "phase": "target", "error": "target", "exit_code": 4, "message": "m", "hint": "h", "causes": ["c"], "retryable": false,
        "target": "untouched", "torn_down": {"undone": ["a"]},
    })
}

fn tagged(kind: &str, mut body: Value) -> Value {
    body["kind"] = kind.into();
    body
}

/// A body of each kind.
fn bodies() -> Vec<Value> {
    let bodies = vec![
        tagged("run-started", json!({"agent": "z-provisioner 0.1.0", "image": "debian-13", "target": "/dev/loop0"})),
        tagged("phase-started", json!({"phase": "spec"})),
        tagged("step-started", json!({"phase": "target", "step": "paths"})),
        tagged("progress", serde_json::to_value(progress(3)).unwrap()),
        tagged("retry", json!({"source": "http://a", "message": "m"})),
        tagged("warning", json!({"message": "m"})),
        tagged("path-changed", json!({"path": "sda", "way": "0.0.1900", "state": "down", "live": 1, "total": 2})),
        tagged("phase-finished", json!({"phase": "spec", "seconds": 1, "detail": "d"})),
        tagged("run-finished", summary()),
        tagged("run-failed", failure()),
    ];
    assert!(bodies.iter().map(|body| &body["kind"]).eq(KINDS.iter()), "a kind is missing");
    bodies
}

fn event(body: Value) -> Value {
    json!({"run": "r-1", "attempt": 1, "index": 3, "at": 0.5, "time": "2027-01-01T00:00:00Z", "event": body})
}

fn events(all: &mut Instances) {
    let mut known = bodies();
    // A reader must take what it does not know: kinds, words, forms.
    known.push(json!({"kind": "tea-made", "phase": 7}));
    known.push(tagged("phase-started", json!({"phase": "a-new-one", "more": 1})));
    known.push(with(tagged("run-finished", summary()), "/proof", json!({"by-oath": {}})));
    known.push(with(tagged("run-finished", summary()), "/proof", json!({"not-proven": {"reason": "r"}})));
    known.push(with(tagged("run-finished", summary()), "/target/reservation", json!("unsupported")));
    known.push(with(tagged("run-finished", summary()), "/target/reservation", json!(["odd"])));
    for body in &known {
        real::<Event>(all, "Event", event(body.clone()));
        let told = json!({"run": "r-1", "time": "2027-01-01T00:00:00Z", "agent": event(body.clone())});
        real::<Happening>(all, "Happening", told);
    }
    real::<Report>(all, "Report", json!({"events": known.into_iter().map(event).collect::<Vec<_>>()}));
    for body in bodies() {
        // Of a known kind, every field must be there and be what it is.
        for key in body.as_object().unwrap().keys() {
            let optional = [
                "limited_by",
                "eta_seconds",
                "kept_bytes",
                "tail",
                "gpt",
                "partitions",
                "ipsec",
                "fallback",
                "torn_down",
                "ipl",
                "hint",
                "causes",
            ];
            if key == "kind" || optional.contains(&key.as_str()) {
                continue;
            }
            let mut lacking = body.clone();
            lacking.as_object_mut().unwrap().remove(key);
            refused::<Event>(all, "Event", event(lacking));
        }
    }
    refused::<Event>(all, "Event", event(json!({"message": "without a kind"})));
    refused::<Event>(all, "Event", event(json!({"kind": 7})));
    refused::<Report>(all, "Report", json!({"events": [], "more": 1}));
    let state = json!({"state": "running", "attempt": 1, "reason": "its agent has enrolled"});
    real::<Happening>(all, "Happening", json!({"run": "r-1", "time": "2027-01-01T00:00:00Z", "state": state}));
    refused::<Happening>(all, "Happening", json!({"run": "r-1", "time": "2027-01-01T00:00:00Z"}));
    real::<RunProgress>(all, "RunProgress", json!({"run": "r-1", "progress": progress(1)}));
    let glance = json!({"run": "r-1", "phase": "stream", "step": "read-back", "bytes": 1, "total_bytes": 2, "rate": 3});
    let full = with(with(glance.clone(), "/limited_by", "source".into()), "/eta_seconds", 4.into());
    real::<Fleet>(all, "Fleet", json!({"runs": [glance, full]}));
    refused::<Fleet>(all, "Fleet", json!({"runs": [{"run": "r-1"}]}));
}

fn agents(all: &mut Instances) {
    let enrol =
        json!({"run": "r-1", "nonce": SESSION, "client_key": KEY, "agent": "z-provisioner 0.1.0", "server": "lpar-1"});
    real::<Enrol>(all, "Enrol", enrol.clone());
    real::<Enrol>(all, "Enrol", json!({"nonce": SESSION, "client_key": KEY, "agent": "z"}));
    refused::<Enrol>(all, "Enrol", json!({"nonce": SESSION, "agent": "z"}));
    refused::<Enrol>(all, "Enrol", with(enrol.clone(), "/nonce", json!("short")));
    refused::<Enrol>(all, "Enrol", with(enrol, "/key", json!("x")));
    let terms = json!({"seconds": 60, "renew_after": 20});
    let enrolled = json!({"run": "r-1", "attempt": 1, "session": SESSION, "lease": terms, "spec": "{}", "ticket": "{}", "certificate": ""});
    real::<Enrolled>(all, "Enrolled", enrolled.clone());
    refused::<Enrolled>(all, "Enrolled", with(enrolled, "/lease/seconds", json!(-1)));
    real::<Orders>(all, "Orders", json!({"next": 12}));
    real::<Orders>(all, "Orders", json!({"next": u64::MAX, "cancel": true, "progress_every": 1000}));
    real::<Lease>(
        all,
        "Lease",
        json!({"lease": terms, "orders": {"next": 0, "cancel": false}, "certificate": "-----BEGIN CERTIFICATE-----\n"}),
    );
}

fn problems(all: &mut Instances) {
    for code in ["bad-request", "not-yet", "attempt-over", "a-new-one"] {
        let problem = Problem::new(Code::from(code.to_owned()), "what was wrong");
        all.push(("Problem", serde_json::to_value(&problem).unwrap(), true));
        let more = problem.with_hint("what to do").retry_after(3);
        all.push(("Problem", serde_json::to_value(more).unwrap(), true));
    }
    all.push(("Problem", json!({"title": "x"}), false));
}

/// Texts at the edges of their rules: what a type takes is valid, and nothing else is.
fn texts(all: &mut Instances) {
    fn of<T: TryFrom<String>>(all: &mut Instances, schema: &'static str, good: &str) {
        let mut texts = vec![good.to_owned()];
        for odd in ["", "-", ".", "_", " ", "/", "é", "A", "a", "0", "g", "0x", "sha256:"] {
            texts.extend([odd.to_owned(), format!("{odd}{good}"), format!("{good}{odd}")]);
        }
        texts.extend([1, 43, 63, 64, 65, 127, 128, 129].map(|length| "a".repeat(length)));
        texts.extend(
            ["0.0.1900", "00.0.1900", "000.0.1900", "0.00.1900", "0.0.19000", "0.0.190G", "0-0-1900"]
                .map(str::to_owned),
        );
        for text in texts {
            let takes = T::try_from(text.clone()).is_ok();
            assert!(takes || text != good, "{schema}: {text}");
            all.push((schema, text.into(), takes));
        }
    }
    of::<RunId>(all, "RunId", "r-7f3k2m");
    of::<Digest>(all, "Digest", &format!("sha256:{}", "ab".repeat(32)));
    of::<Wwid>(all, "Wwid", "36005076303ffd3270000000000001017");
    of::<BusId>(all, "BusId", "0.0.1900");
    of::<Wwpn>(all, "Wwpn", "0x5005076306ffd327");
    of::<Lun>(all, "Lun", "0x4010400000000000");
    of::<ServerName>(all, "ServerName", "lpar-17");
    of::<Label>(all, "Label", "san-a");
    of::<Token>(all, "Token", SESSION);
    of::<ClientKey>(all, "ClientKey", KEY);
    of::<UnlockKey>(all, "UnlockKey", UnlockKey::of(&[7; UnlockKey::BYTES]).reveal());
}
