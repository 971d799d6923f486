//! Whatever way a run ends, nothing it has opened stays open.

use serde_json::json;
use vm::Signal;

use crate::stage::{
    Stage, WHOLE_HEADER, agent_with_key, failed, finished, make_key, multipath, nothing_is_left, until_writing, with,
};

#[test]
fn a_signal_closes_everything_and_destroys_the_key_slots_and_a_kill_is_cleaned_up_by_the_next_attempt() {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    make_key(&guest);
    let map = format!("/dev/mapper/{}", lun.wwid());
    let spec = with(&stage.slow_spec(&lun.wwid()), "/target/layout", json!("whole"));

    let running = agent_with_key(&guest, &spec).start();
    until_writing(&running);
    running.signal(Signal::SIGKILL);
    running.finish();
    assert!(guest.sh("dmsetup ls").contains("zprov-r-luks0"), "nobody could clean up after a kill");

    let resume = with(&spec, "/options/resume", json!(true));
    let running = agent_with_key(&guest, &resume).start();
    until_writing(&running);
    assert!(running.stdout().contains("was left by an earlier attempt and is closed"));
    running.signal(Signal::SIGTERM);
    let failure = failed(running.finish(), 8, &["cancelled"]);
    let undone = failure["torn_down"]["undone"].to_string();
    assert!(undone.contains("destroyed") && undone.contains("zprov-r-luks0 closed"), "{failure}");
    nothing_is_left(&guest, &lun.wwid());
    // Cancelled is cancelled: the key opens nothing any more.
    let dump = guest.sh(&format!("cryptsetup luksDump --dump-json-metadata {map}"));
    assert!(dump.contains("\"keyslots\": {}") || dump.contains("\"keyslots\":{}"), "{dump}");
    failed(agent_with_key(&guest, &resume).done(), 4, &["is not opened by this run's key"]);
    finished(agent_with_key(&guest, &with(&spec, "/target/wipe", json!(true))).done());
}
