//! Containers: kept by whoever has their key, refused when they are not what they must be.

use serde_json::{Value, json};

use crate::stage::{Whole, agent_with_key, failed, finished, make_key, next_attempt, nothing_is_left, with};
use crate::tampering;

#[test]
fn resuming_under_the_same_key_keeps_what_is_there_and_another_key_is_refused() {
    let Whole { stage, lun, guest, spec, .. } = Whole::new();
    finished(agent_with_key(&guest, &spec).done());

    // Without --resume it is somebody's, and not touched.
    failed(agent_with_key(&guest, &spec).done(), 4, &["is not empty", "crypto_LUKS", "wipe"]);
    nothing_is_left(&guest, &lun.wwid());

    let resume = with(&spec, "/options/resume", json!(true));
    let again = finished(agent_with_key(&guest, &resume).done());
    assert_eq!((&again["target"]["containers"][0]["kept"], &again["kept_bytes"]), (&json!(true), &json!(stage.size)));

    let before = std::fs::read(lun.path()).unwrap();
    guest.sh("mv /run/luks-key /run/first-key");
    make_key(&guest);
    failed(agent_with_key(&guest, &resume).done(), 4, &["is not opened by this run's key", "wipe"]);
    assert!(before == std::fs::read(lun.path()).unwrap(), "a wrong key changes nothing");
    nothing_is_left(&guest, &lun.wwid());

    // With leave to wipe it is made anew, under the new key, and nobody's old key opens it.
    let wipe = with(&resume, "/target/wipe", json!(true));
    let anew = finished(agent_with_key(&guest, &wipe).done());
    assert_eq!(anew["target"]["containers"][0]["kept"], false);
    let map = format!("/dev/mapper/{}", lun.wwid());
    guest.run(&format!("cryptsetup open --test-passphrase --key-file /run/first-key {map}")).limit(60).done().exits(2);
}

#[test]
#[ignore = "soak"]
fn discards_and_argon2id_are_as_they_were_asked_for_and_finished_after_a_power_cut() {
    let Whole { stage, lun, guest, mut spec, .. } = Whole::new();
    spec["target"]["luks"] =
        json!({"discards": true, "pbkdf": {"type": "argon2id", "memory": 32768, "time": 4, "parallel": 1}});
    finished(agent_with_key(&guest, &spec).done());
    let map = format!("/dev/mapper/{}", lun.wwid());
    let metadata = || -> Value {
        let dump = guest.run(&format!("cryptsetup luksDump --dump-json-metadata {map}")).text();
        serde_json::from_str(&dump).unwrap()
    };
    let found = metadata();
    let kdf = &found["keyslots"]["0"]["kdf"];
    assert_eq!((&kdf["type"], &kdf["memory"], &kdf["time"]), (&json!("argon2id"), &json!(32768), &json!(4)), "{found}");
    assert_eq!(found["config"]["flags"], json!(["allow-discards"]));

    // As when the power goes between making the container and telling it to pass discards on.
    tampering::edit(&lun, &|metadata| {
        metadata["config"].as_object_mut().unwrap().remove("flags");
    });
    tampering::forget_what_was_read(&guest, &lun);
    assert_eq!(metadata()["config"]["flags"], Value::Null);
    let again = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!((&again["target"]["containers"][0]["kept"], &again["kept_bytes"]), (&json!(true), &json!(stage.size)));
    assert_eq!(metadata()["config"]["flags"], json!(["allow-discards"]));

    // Another run's wishes are another container.
    let other = with(&next_attempt(&spec), "/target/luks/pbkdf", json!({"type": "pbkdf2", "iterations": 1000}));
    failed(agent_with_key(&guest, &other).done(), 4, &["the LUKS2 header", "kdf"]);
    let other = with(&next_attempt(&spec), "/target/luks/discards", json!(false));
    failed(agent_with_key(&guest, &other).done(), 4, &["the LUKS2 header", "allow-discards"]);
}
