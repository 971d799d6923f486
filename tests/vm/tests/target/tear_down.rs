//! Whatever way a run ends, nothing it has opened stays open.

use serde_json::json;
use vm::Signal;

use crate::stage::{
    Stage, WHOLE_HEADER, Whole, agent_with_key, failed, finished, make_key, multipath, next_attempt, nothing_is_left,
    until_writing, with,
};

#[test]
fn a_signal_closes_everything_and_destroys_the_key_slots_and_a_kill_is_cleaned_up_by_the_next_attempt() {
    let Whole { stage, lun, guest, spec, .. } = Whole::slow();
    let map = format!("/dev/mapper/{}", lun.wwid());

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
    // Nothing can be lost of what nobody can open: an attempt that goes on makes it anew.
    let fast = with(&resume, "/image/sources", stage.spec("x")["image"]["sources"].clone());
    let summary = finished(agent_with_key(&guest, &fast).done());
    let kept = (&summary["target"]["containers"][0]["kept"], &summary["kept_bytes"]);
    assert_eq!(kept, (&json!(false), &json!(0)), "{summary}");

    // Until something is written, what a finished attempt has made is not this one's to destroy.
    let running = agent_with_key(&guest, &next_attempt(&fast)).start();
    running.until("comparing", |out, _| out.contains(r#""step":"compare""#));
    running.signal(Signal::SIGHUP);
    let failure = failed(running.finish(), 8, &["cancelled"]);
    assert_eq!(failure["target"], "untouched", "{failure}");
    assert!(!failure["torn_down"].to_string().contains("key slots"), "{failure}");
    assert_eq!(finished(agent_with_key(&guest, &next_attempt(&fast)).done())["kept_bytes"], json!(stage.size));
}

#[test]
fn after_a_signal_nothing_more_is_changed() {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    e2e::Run::tool("mke2fs").words("-q -F -t ext4 -L payroll").arg(lun.path()).done().ok();
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    make_key(&guest);
    let mut spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("whole"));
    spec["target"]["wipe"] = json!(true);
    let before = std::fs::read(lun.path()).unwrap();
    // Each tool that looks waits until the signal has come.
    for (tool, step) in [("wipefs", "check"), ("cryptsetup", "unlock")] {
        guest.sh(&format!("mv /usr/sbin/{tool} /usr/sbin/{tool}.real; rm -f /run/looking /run/go-on"));
        let script = format!(
            "#!/bin/sh\ntouch /run/looking\nuntil [ -e /run/go-on ]; do usleep 100000; done\nexec /usr/sbin/{tool}.real \"$@\"\n"
        );
        guest.put(&format!("/usr/sbin/{tool}"), 0o755, script);
        if step == "unlock" {
            spec["target"]["wipe"] = json!(false);
            guest.sh(&format!("wipefs -q -a /dev/mapper/{}", lun.wwid()));
        }
        let before = if step == "unlock" { std::fs::read(lun.path()).unwrap() } else { before.clone() };
        let running = agent_with_key(&guest, &spec).start();
        guest.until("a look", 60, "[ -e /run/looking ]");
        assert!(running.stdout().contains(&format!(r#""step":"{step}""#)));
        running.signal(Signal::SIGTERM);
        running.until("the signal's being heard", |out, _| out.contains("SIGTERM"));
        guest.sh("touch /run/go-on");
        let failure = failed(running.finish(), 8, &["cancelled"]);
        assert_eq!(failure["target"], "untouched", "{failure}");
        assert!(before == std::fs::read(lun.path()).unwrap(), "{step}: something was changed after the signal");
        nothing_is_left(&guest, &lun.wwid());
        guest.sh(&format!("mv /usr/sbin/{tool}.real /usr/sbin/{tool}"));
    }
}
