//! The run spec: what is read, what is refused, and that the refusal names the key.

#![allow(clippy::unwrap_used)]

use protocol::RunSpec;
use protocol::control::NewRun;
use protocol::spec::{Engine, HandOver, KeySource, Layout, MAX_SPEC, Pbkdf, Place, Reservation, Tail};
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

/// A LUN reached through two adapters, one with NPIV and one without.
fn lun() -> Value {
    json!({
        "wwid": "36005076307ffd7d7000000000000001a",
        "fcp": [
            { "adapter": "0.0.1900" },
            { "adapter": "0.0.1940", "wwpn": "0x5005076306ffd7d7", "lun": "0x4010401a00000000" }
        ]
    })
}

/// A spec for a LUN, with one value of the LUN's put in.
fn with_lun(pointer: &str, value: Value) -> Value {
    let mut spec = smallest();
    spec["target"] = json!({ "lun": lun() });
    put_into(&mut spec["target"]["lun"], pointer, value);
    spec
}

/// A spec for an encrypted LUN, with one value of its encryption put in.
fn with_luks(pointer: &str, value: Value) -> Value {
    let mut spec = smallest();
    spec["target"] = json!({ "lun": lun(), "layout": "whole", "luks": {} });
    put_into(&mut spec["target"]["luks"], pointer, value);
    spec
}

fn put_into(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
}

#[test]
fn a_lun_has_the_defaults_of_one_that_matters() {
    let read = parse(&with_lun("/wait", json!(90))).unwrap();
    let Some(Place::Lun(lun)) = read.target.place() else { panic!("{read:?}") };
    assert_eq!((lun.min_paths, lun.wait, lun.fcp.len()), (2, 90, 2));
    assert_eq!((read.target.reservation(), read.target.wipe), (Reservation::Require, false));
    assert_eq!(read.target.name(), "LUN 36005076307ffd7d7000000000000001a");
    assert_eq!(parse(&serde_json::to_value(&read).unwrap()), Ok(read));
    let device = parse(&smallest()).unwrap();
    assert_eq!((device.target.reservation(), device.target.name()), (Reservation::Off, "/dev/loop0".into()));
}

#[test]
fn encryption_has_defaults_that_suit_a_random_key() {
    let read = parse(&with_luks("/discards", json!(true))).unwrap();
    let luks = read.target.luks.as_ref().unwrap();
    assert_eq!((read.target.layout, luks.cipher.as_str(), luks.key_size), (Layout::Whole, "aes-xts-plain64", 512));
    assert_eq!((&luks.pbkdf, luks.discards), (&Pbkdf::Pbkdf2 { iterations: 1000 }, true));
    let argon2 = json!({"type": "argon2id", "memory": 65_536, "time": 4, "parallel": 1});
    let read = parse(&with_luks("/pbkdf", argon2)).unwrap();
    assert_eq!(read.target.luks.unwrap().pbkdf, Pbkdf::Argon2id { memory: 65_536, time: 4, parallel: 1 });
}

#[test]
fn what_no_firmware_can_start_is_not_started() {
    let mut spec = with_luks("/discards", json!(false));
    spec["hand_over"] = json!("re-ipl");
    let refusal = parse(&spec).unwrap_err();
    assert!(refusal.contains("whole") && refusal.contains("split"), "{refusal}");
    spec["target"]["layout"] = json!("split");
    assert_eq!(parse(&spec).unwrap().hand_over, HandOver::ReIpl);
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let spec = parse(&smallest()).unwrap();
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        json!({
            "run": "r-1",
            "epoch": 1,
            "image": {
                "name": "debian-13",
                "architecture": "s390x",
                "sources": ["http://10.0.0.1/debian/"],
                "trust": ["/etc/z/image.pub"]
            },
            "target": { "device": "/dev/loop0", "layout": "plain", "wipe": false },
            "options": { "engine": "auto", "read_back": true, "resume": false },
            "ipsec": "required",
            "hand_over": "none"
        })
    );
    assert_eq!((spec.image.threshold(), spec.key), (1, KeySource::Agent));
}

#[test]
fn a_key_of_the_service_needs_something_to_encrypt() {
    let plain = with("/key", Some(json!("service")));
    assert!(parse(&plain).unwrap_err().contains("nothing would be encrypted"));
    let mut spec = with_luks("/discards", json!(false));
    spec["key"] = json!("service");
    let read = parse(&spec).unwrap();
    assert_eq!((read.key, parse(&serde_json::to_value(&read).unwrap())), (KeySource::Service, Ok(read.clone())));
    spec["key"] = json!("someone");
    assert!(parse(&spec).unwrap_err().contains("someone"));

    let mut new = spec;
    ["run", "epoch", "key"].iter().for_each(|key| drop(new.as_object_mut().unwrap().remove(*key)));
    new["server"] = json!("lpar-7");
    new["image"]["trust"] = json!(["ab".repeat(32)]);
    let read = |new: &Value| NewRun::parse(new.to_string().as_bytes());
    assert_eq!(read(&new).unwrap().key_source(), Some(KeySource::Service), "unless it says otherwise");
    new["key"] = json!("agent");
    assert_eq!(read(&new).unwrap().key_source(), Some(KeySource::Agent));
    new["target"] = json!({ "device": "/dev/loop0" });
    assert!(read(&new).unwrap_err().to_string().contains("nothing would be encrypted"));
    new.as_object_mut().unwrap().remove("key");
    assert_eq!(read(&new).unwrap().key_source(), None);
}

#[test]
fn whom_to_trust_may_be_left_to_a_policy() {
    let mut new = smallest();
    new.as_object_mut().unwrap().remove("run");
    new["server"] = json!("lpar-7");
    new["image"].as_object_mut().unwrap().remove("trust");
    new["image"]["threshold"] = json!(2);
    let read = |new: &Value| NewRun::parse(new.to_string().as_bytes());
    let order = read(&new).unwrap();
    assert!(order.check_whole().unwrap_err().to_string().contains("`image.trust` names 0 keys"));
    new["image"]["threshold"] = json!(0);
    assert!(read(&new).unwrap_err().to_string().contains("`image.threshold`"));
    new["image"]["threshold"] = json!(2);
    new["image"]["trust"] = json!(["ab".repeat(32)]);
    assert!(read(&new).unwrap_err().to_string().contains("`image.threshold` is 2, with 1 trusted keys"));
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
    assert_eq!((read.image.min_version, read.image.threshold()), (Some(7), 2));
    assert_eq!(read.target.tail, Some(Tail::Discard));
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
        (put("/target/lunn", json!("0x1")), "lunn"),
        (put("/epoch", json!(0)), "epoch"),
        (put("/epoch", json!(65_536)), "epoch"),
        (put("/target/lun", lun()), "2 targets"),
        (put("/target/luks", json!({})), "target.luks"),
        (put("/target/reservation", json!("require")), "target.reservation"),
        (put("/target/reservation", json!("prefer")), "target.reservation"),
        (put("/target/tail", json!("wipe")), "wipe"),
        (put("/target", json!({"device": "/dev/sda", "layout": "whole", "tail": "discard"})), "target.luks.discards"),
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
        (with_lun("/wwid", json!("/dev/sda")), "WWID"),
        (with_lun("/wwid", json!("")), "WWID"),
        (with_lun("/min_paths", json!(0)), "target.lun.min_paths"),
        (with_lun("/wait", json!(0)), "target.lun.wait"),
        (with_lun("/wait", json!(3601)), "target.lun.wait"),
        (with_lun("/fcp/0/adapter", json!("1900")), "bus id"),
        (with_lun("/fcp/0/adapter", json!("0.0.19xx")), "bus id"),
        (with_lun("/fcp/0/wwpn", json!("0x5005076306ffd7d7")), "without the other"),
        (with_lun("/fcp/1/lun", Value::Null), "without the other"),
        (with_lun("/fcp/1/wwpn", json!("5005076306ffd7d7")), "WWPN"),
        (with_lun("/fcp/1/lun", json!("0x1")), "LUN"),
        (with_lun("/fcp/1", json!({"adapter": "0.0.1900"})), "twice"),
        (with_luks("/cipher", json!("cipher_null-ecb")), "must encrypt"),
        (with_luks("/cipher", json!("aes xts")), "target.luks.cipher"),
        (with_luks("/key_size", json!(500)), "target.luks.key_size"),
        (with_luks("/pbkdf", json!({"type": "pbkdf2", "iterations": 999})), "target.luks.pbkdf.iterations"),
        (with_luks("/pbkdf", json!({"type": "pbkdf2", "iterations": 1000, "memory": 1})), "memory"),
        (
            with_luks("/pbkdf", json!({"type": "argon2id", "memory": 31, "time": 4, "parallel": 1})),
            "target.luks.pbkdf.memory",
        ),
        (with_luks("/pbkdf", json!({"type": "scrypt"})), "scrypt"),
        (with_luks("/unlock", json!("tang")), "tang"),
        (with_luks("/key", json!("secret")), "key"),
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
