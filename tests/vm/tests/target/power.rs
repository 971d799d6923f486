//! Power cuts: the guest is killed at any moment, boots again, and the next attempt goes on under the same key.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stage::{
    Stage, WHOLE_HEADER, Whole, agent_with_key, digest_of, digest_of_file, finished, make_key, multipath, next_attempt,
    nothing_is_left, until_writing, with,
};

/// At least 0, less than 1.
fn random() -> f64 {
    let number = RandomState::new().build_hasher().finish() >> 32;
    number as f64 / 2_f64.powi(32)
}

fn power_cuts(count: u32) {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let mut guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let key = make_key(&guest);
    let mut spec = with(&stage.slow_spec(&lun.wwid()), "/target/layout", json!("whole"));
    for cut in 0..count {
        // At random, and all the same spread over all that an attempt does: making the container, writing, and so on.
        let after = Duration::from_secs(24).mul_f64((f64::from(cut) + random()) / f64::from(count));
        let running = agent_with_key(&guest, &spec).start();
        running.until("the target's phase", |out, _| out.contains(r#""phase":"target""#));
        let since = Instant::now();
        while since.elapsed() < after && running.ended().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_done = running.ended().is_some();
        println!("cut {cut}: {after:?} after the target's phase began, done: {is_done}");
        drop(running);
        guest = guest.power_cut().boot();
        multipath(&guest, &lun);
        guest.put("/run/luks-key", 0o600, format!("{key}\n"));
        spec = next_attempt(&spec);
        // So that the next cut hits something again, what was finished before it begins anew.
        spec["options"]["resume"] = json!(!is_done);
        spec["target"]["wipe"] = json!(is_done);
    }
    let mut spec = with(&spec, "/image/sources", stage.spec("x")["image"]["sources"].clone());
    (spec["options"]["resume"], spec["target"]["wipe"]) = (json!(true), json!(false));
    let summary = finished(agent_with_key(&guest, &spec).done());
    println!("kept at the end: {}", summary["kept_bytes"]);
    nothing_is_left(&guest, &lun.wwid());
    let map = format!("/dev/mapper/{}", lun.wwid());
    guest.run(&format!("cryptsetup open --key-file - {map} content")).stdin(key).limit(120).done().ok();
    assert_eq!(digest_of(&guest, "/dev/mapper/content", stage.size), digest_of_file(&stage.raw));
}

#[test]
fn after_three_power_cuts_the_run_is_finished_under_the_same_key() {
    power_cuts(3);
}

#[test]
#[ignore = "soak"]
fn after_twenty_power_cuts_the_run_is_finished_under_the_same_key() {
    power_cuts(20);
}

#[test]
#[ignore = "soak"]
fn what_was_written_before_a_power_cut_is_kept() {
    let Whole { stage, lun, guest, key, spec } = Whole::slow();
    let running = agent_with_key(&guest, &spec).start();
    until_writing(&running);
    running.until("a third of it", |out, _| {
        let done =
            out.lines().filter_map(|line| line.split(r#""bytes":"#).nth(1)).filter_map(|rest| rest.split(',').next());
        done.filter_map(|bytes| bytes.parse::<u64>().ok()).any(|bytes| bytes > stage.size / 3)
    });
    drop(running);
    let guest = guest.power_cut().boot();
    multipath(&guest, &lun);
    guest.put("/run/luks-key", 0o600, format!("{key}\n"));
    let summary = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!(summary["target"]["containers"][0]["kept"], true);
    assert!(summary["kept_bytes"].as_u64().unwrap() > 0, "{summary}");
}
