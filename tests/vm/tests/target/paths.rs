//! Paths lost and back while the agent writes.

use serde_json::json;

use crate::stage::{MULTIPATH_CONF, Stage, agent, events, failed, finished, multipath, until_writing, with};

#[test]
fn one_path_lost_and_back_is_no_error_and_each_change_is_an_event() {
    let stage = Stage::new();
    let lun = stage.lun(0);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let running = agent(&guest, &stage.slow_spec(&lun.wwid())).start();
    until_writing(&running);
    guest.unplug(&lun, 1);
    running.until("the loss of a path", |out, _| out.contains(r#""kind":"path-changed""#));
    guest.plug(&lun, 1);
    running.until("its return", |out, _| out.contains(r#""state":"up""#));
    let done = running.finish();
    let changes: Vec<_> = events(&done.stdout).into_iter().filter(|event| event["kind"] == "path-changed").collect();
    finished(done);
    assert!(changes.iter().any(|change| change["live"] == 1), "{changes:?}");
    let last = changes.last().unwrap();
    assert_eq!((&last["state"], &last["live"]), (&json!("up"), &json!(2)), "{changes:?}");
    guest.power_off();
    e2e::lab::cmp(&stage.raw, lun.path(), stage.size).ok();
}

#[test]
fn a_single_path_is_refused_where_two_are_demanded() {
    let stage = Stage::new();
    let lun = stage.lun(0);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    guest.unplug(&lun, 0);
    let spec = with(&stage.spec(&lun.wwid()), "/target/lun/wait", json!(3));
    let failure = failed(agent(&guest, &spec).done(), 4, &["1 of 2 live paths", "min_paths"]);
    assert_eq!((&failure["target"], &failure["retryable"]), (&json!("untouched"), &json!(true)));
    // Nor is a map that would wait for ever when it has no path left.
    guest.put("/etc/multipath.conf", 0o644, MULTIPATH_CONF.replace("no_path_retry       12", "no_path_retry queue"));
    guest.sh("multipathd reconfigure");
    let one = with(&spec, "/target/lun/min_paths", json!(1));
    failed(agent(&guest, &one).done(), 4, &["waits for ever", "no_path_retry"]);
    guest.put("/etc/multipath.conf", 0o644, MULTIPATH_CONF);
    guest.sh("multipathd reconfigure");
    // Demanded is what the spec says, and one is enough then.
    finished(agent(&guest, &one).done());
}
