//! Containers: kept by whoever has their key, refused when they are not what they must be.

use serde_json::json;

use crate::stage::{Stage, WHOLE_HEADER, agent_with_key, failed, finished, make_key, multipath, nothing_is_left, with};

#[test]
fn resuming_under_the_same_key_keeps_what_is_there_and_another_key_is_refused() {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    make_key(&guest);
    let spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("whole"));
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
