//! The run spec: what is read, what is refused, and that the refusal names the key.

#![allow(clippy::unwrap_used)]

use protocol::RunSpec;
use protocol::spec::{Engine, MAX_SPEC, Tail};
use serde_json::{Value, json};

fn smallest() -> Value {
    json!({
        "run": "r-1",
        "image": { "name": "debian-13", "sources": ["http://10.0.0.1/debian/"], "trust": ["/etc/z/image.pub"] },
        "target": { "device": "/dev/loop0" }
    })
}

fn parse(value: &Value) -> Result<RunSpec, String> {
    RunSpec::parse(value.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// The smallest spec with the value at `pointer` put in, or taken out.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut spec = smallest();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    if spec.pointer(parent).is_none() {
        spec[&parent[1..]] = json!({});
    }
    let parent = spec.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => drop(parent.insert(key.to_owned(), value)),
        None => drop(parent.shift_remove(key)),
    }
    spec
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let spec = parse(&smallest()).unwrap();
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        json!({
            "run": "r-1",
            "image": {
                "name": "debian-13",
                "architecture": "s390x",
                "sources": ["http://10.0.0.1/debian/"],
                "trust": ["/etc/z/image.pub"],
                "threshold": 1
            },
            "target": { "device": "/dev/loop0", "tail": "zero" },
            "options": { "engine": "auto", "read_back": true, "resume": false }
        })
    );
}

#[test]
fn every_field_is_read() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let mut spec = smallest();
    spec["image"]["digest"] = json!(digest);
    spec["image"]["min_version"] = json!(7);
    spec["image"]["trust"] = json!(["a", "b"]);
    spec["image"]["threshold"] = json!(2);
    spec["target"]["tail"] = json!("discard");
    spec["options"] = json!({
        "engine": "uring", "read_back": false, "resume": true,
        "connections": 8, "request_size": 33_554_432, "stall_limit": 60
    });
    let read = parse(&spec).unwrap();
    assert_eq!(read.image.digest.as_ref().unwrap().as_str(), digest);
    assert_eq!((read.image.min_version, read.image.threshold), (Some(7), 2));
    assert_eq!(read.target.tail, Tail::Discard);
    assert_eq!((read.options.engine, read.options.read_back, read.options.resume), (Engine::Uring, false, true));
    assert_eq!((read.options.connections, read.options.request_size), (Some(8), Some(32 << 20)));
    assert_eq!(read.options.stall_limit, Some(60));
    assert_eq!(parse(&serde_json::to_value(&read).unwrap()), Ok(read));
}

#[test]
fn a_refusal_names_the_key() {
    let put = |pointer, value| with(pointer, Some(value));
    let cases = [
        (put("/wipe", json!(true)), "wipe"),
        (put("/image/sorces", json!([])), "sorces"),
        (put("/target/lun", json!("0x1")), "lun"),
        (put("/target/tail", json!("wipe")), "wipe"),
        (put("/options/readback", json!(false)), "readback"),
        (put("/options/engine", json!("fast")), "fast"),
        (put("/run", json!("../x")), "run id"),
        (put("/run", json!("")), "run id"),
        (put("/run", json!("-x")), "run id"),
        (put("/run", json!("x".repeat(65))), "run id"),
        (put("/image/digest", json!("sha256:AB")), "digest"),
        (put("/image/sources", json!([])), "image.sources"),
        (put("/image/sources", json!(vec!["x"; 17])), "image.sources"),
        (put("/image/trust", json!([])), "image.trust"),
        (put("/image/threshold", json!(0)), "image.threshold"),
        (put("/image/threshold", json!(2)), "image.threshold"),
        (put("/image/name", json!("")), "image.name"),
        (put("/image/architecture", json!("")), "image.architecture"),
        (put("/target/device", json!("")), "target.device"),
        (put("/options/connections", json!(0)), "options.connections"),
        (put("/options/connections", json!(65)), "options.connections"),
        (put("/options/request_size", json!(1)), "options.request_size"),
        (put("/options/stall_limit", json!(0)), "options.stall_limit"),
        (put("/options/stall_limit", json!(86_401)), "options.stall_limit"),
        (with("/run", None), "run"),
        (with("/image/name", None), "name"),
        (with("/image/trust", None), "trust"),
        (with("/target/device", None), "device"),
    ];
    for (spec, named) in cases {
        let refusal = parse(&spec).expect_err(&spec.to_string());
        assert!(refusal.contains(named), "{refusal:?} does not name {named}");
    }
}

#[test]
fn doubled_keys_trailing_bytes_and_sizes_are_refused() {
    let text = smallest().to_string();
    let doubled = text.replacen("\"run\":\"r-1\"", "\"run\":\"r-1\",\"run\":\"r-2\"", 1);
    let refusal = RunSpec::parse(doubled.as_bytes()).unwrap_err().to_string();
    assert!(refusal.contains("duplicate field `run`"), "{refusal}");
    let doubled = text.replacen("\"device\"", "\"device\":\"/dev/sda\",\"device\"", 1);
    assert!(RunSpec::parse(doubled.as_bytes()).unwrap_err().to_string().contains("duplicate field `device`"));
    assert!(RunSpec::parse(format!("{text} x").as_bytes()).is_err());
    assert!(RunSpec::parse(b"").is_err());
    let padded = format!("{text}{}", " ".repeat(MAX_SPEC));
    assert!(RunSpec::parse(padded.as_bytes()).unwrap_err().to_string().contains("at most"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let _ = RunSpec::parse(&bytes);
    }
}
