//! Reservations: LIO's, which are real. One writer at a time, whatever becomes of agents and paths.

use serde_json::json;
use vm::lio::Lun;
use vm::{Disk, End, Guest, Link, MIB, Signal};

use crate::stage::{
    IQN, MULTIPATH_CONF, PORTALS, SERVER, Stage, WHOLE_HEADER, agent, agent_with_key, failed, finished, make_key,
    next_attempt, nothing_is_left, storage_and_server, until_writing, with,
};

/// What READ KEYS says through a device.
fn keys(guest: &Guest, device: &str) -> Vec<String> {
    // The first command after somebody else's change is answered with the news of it.
    let read = format!("sg_persist --no-inquiry --in --read-keys {device}");
    let said = guest.sh(&format!("{read} 2>/dev/null || {read}"));
    said.split_whitespace().filter(|word| word.starts_with("0x") && word.len() > 10).map(str::to_owned).collect()
}

/// A guest with a LUN of its own target on a disk of this machine, two loopback paths to it, and multipathd.
fn reserved_guest(stage: &Stage) -> (Guest, Disk) {
    let disk = Disk::new(stage.size).virtio_blk();
    (stage.guests().disk(&disk).boot(), disk)
}

/// Offers the LUN to the server, which makes a map of two paths of it.
fn log_in(server: &Guest, lun: &Lun) -> String {
    lun.offer(IQN, SERVER, &PORTALS);
    connect(server, lun.wwid())
}

fn connect(server: &Guest, wwid: &str) -> String {
    server.iscsi_login(SERVER, IQN, &PORTALS);
    server.start_multipath_with(MULTIPATH_CONF).map(wwid, 2)
}

#[test]
fn a_run_reserves_the_lun_and_gives_it_back() {
    let stage = Stage::new();
    let (guest, disk) = reserved_guest(&stage);
    let lun = guest.lun_on("/dev/vda");
    let _loopbacks = [(); 2].map(|()| lun.loopback());
    let multipath = guest.start_multipath_with(MULTIPATH_CONF);
    let map = multipath.map(lun.wwid(), 2);
    let spec = with(&stage.slow_spec(lun.wwid()), "/target/reservation", json!("require"));
    let running = agent(&guest, &spec).start();
    until_writing(&running);
    let held = keys(&guest, &map);
    assert_eq!(held.len(), 2, "{held:?}: one registration per path");
    guest.run(&format!("sg_persist --no-inquiry --in --read-reservation {map}")).done().ok().says("registrants only");
    let summary = finished(running.finish());
    assert_eq!(summary["target"]["reservation"]["held"]["key"], json!(held[0]));
    assert_eq!(keys(&guest, &map), Vec::<String>::new());
    nothing_is_left(&guest, lun.wwid());
    guest.power_off();
    e2e::lab::cmp(&stage.raw, disk.path(), stage.size).ok();
}

#[test]
fn a_newer_epoch_on_another_machine_takes_the_lun_and_the_first_writes_nothing_more() {
    let stage = Stage::new();
    let disk = Disk::new(stage.size).virtio_blk();
    let (left, right) = (Link::new(), Link::new());
    let at = |end: u8| {
        let end_of = |link, net| (link, end, format!("10.9.{net}.{}/24", end + 1));
        let (one, two) = (end_of(&left, 0), end_of(&right, 1));
        stage.guests().link(one.0, one.1, &one.2).link(two.0, two.1, &two.2)
    };
    let first = at(0).named("first").disk(&disk).boot();
    let second = at(1).named("second").boot();
    let lun = first.lun_on("/dev/vda");
    let _loopbacks = [(); 2].map(|()| lun.loopback());
    let (iqn, me, portals) = ("iqn.2026-01.example:lun", "iqn.2026-01.example:second", ["10.9.0.1", "10.9.1.1"]);
    lun.offer(iqn, me, &portals);
    second.iscsi_login(me, iqn, &portals);
    first.start_multipath_with(MULTIPATH_CONF).map(lun.wwid(), 2);
    let map = second.start_multipath_with(MULTIPATH_CONF).map(lun.wwid(), 2);

    let spec = with(&stage.slow_spec(lun.wwid()), "/target/reservation", json!("require"));
    let running = agent(&first, &spec).start();
    until_writing(&running);
    let old = keys(&second, &map)[0].clone();
    let taking = agent(&second, &next_attempt(&spec)).start();
    let failure = failed(running.finish(), 4, &["reservation", "is lost"]);
    assert_eq!(failure["retryable"], false, "{failure}");
    let left = failure["torn_down"]["left"].to_string();
    assert!(left.contains("reservation"), "{failure}");
    // Nor can it come back while the other one writes, whatever it is allowed to wipe.
    failed(agent(&first, &with(&spec, "/target/wipe", json!(true))).done(), 4, &["later attempt", "epoch 2"]);
    assert_eq!(taking.ended(), None, "the second still writes");
    let summary = finished(taking.finish());
    assert_eq!(summary["target"]["reservation"]["held"]["preempted"], json!([old]));
    second.power_off();
    first.power_off();
    e2e::lab::cmp(&stage.raw, disk.path(), stage.size).ok();
}

#[test]
fn a_machine_that_lost_its_power_is_shut_out_by_the_next_attempt_which_goes_on() {
    let stage = Stage::new();
    let (storage, server, _links) = storage_and_server(&stage);
    let lun = storage.lun_in_memory((stage.size + WHOLE_HEADER).div_ceil(MIB));
    log_in(&server, &lun);
    let key = make_key(&server);
    let spec = with(&stage.slow_spec(lun.wwid()), "/target/layout", json!("whole"));
    let spec = with(&spec, "/target/reservation", json!("require"));
    let running = agent_with_key(&server, &spec).start();
    until_writing(&running);
    running.until("some of it", |out, _| out.contains(r#""kind":"progress""#));
    drop(running);
    let server = server.power_cut().boot();
    let map = connect(&server, lun.wwid());
    let left = keys(&server, &map);
    assert!(!left.is_empty(), "the storage has kept what was registered");
    server.put("/run/luks-key", 0o600, format!("{key}\n"));
    let fast = with(&spec, "/image/sources", stage.spec("x")["image"]["sources"].clone());
    let summary = finished(agent_with_key(&server, &next_attempt(&fast)).done());
    assert_eq!(summary["target"]["reservation"]["held"]["preempted"], json!([left[0]]));
    assert_eq!(summary["target"]["containers"][0]["kept"], true, "{summary}");
    assert_eq!(keys(&server, &map), Vec::<String>::new());
}

#[test]
fn with_leave_to_wipe_a_reservation_that_keeps_everybody_from_reading_is_cleared() {
    let stage = Stage::new();
    let (storage, server, _links) = storage_and_server(&stage);
    let lun = storage.lun_in_memory(stage.size.div_ceil(MIB));
    let loopback = lun.loopback();
    let other = loopback.path().device();
    let map = log_in(&server, &lun);
    // To remove another's key, this machine would have to give up one of its own.
    let register = format!("sg_persist --no-inquiry --out --register-ignore --param-sark=0xabcabcabca {other}");
    storage.sh(&format!("{register} || {register}"));
    server.sh(&format!("mpathpersist --out --register --param-sark=0x1111111111 {map}"));
    let release = format!("z-provisioner release-reservation {}", lun.wwid());
    let refused = server.run(&format!("{release} --key 0xabcabcabca")).done().exits(4);
    assert!(refused.stderr.contains("this machine itself is registered"), "{}", refused.stderr);
    server.run(&format!("{release} --all")).limit(180).done().ok();
    assert_eq!(keys(&server, &map), Vec::<String>::new());

    // Exclusive access: nobody else reads either.
    storage.sh(&format!("{register} || {register}"));
    storage.sh(&format!("sg_persist --no-inquiry --out --reserve --param-rk=0xabcabcabca --prout-type=3 {other}"));
    let spec = with(&stage.spec(lun.wwid()), "/target/reservation", json!("require"));
    let refused = agent(&server, &spec).done();
    assert_eq!(refused.end, End::Exit(4), "{refused:?}");
    assert_eq!(keys(&server, &map), ["0xabcabcabca"], "who may not wipe has not registered");
    let summary = finished(agent(&server, &with(&spec, "/target/wipe", json!(true))).done());
    assert_eq!(summary["target"]["reservation"]["held"]["preempted"], json!(["0x000000abcabcabca"]));
    assert_eq!(keys(&server, &map), Vec::<String>::new());
}

#[test]
fn a_fenced_agent_stays_fenced_when_its_path_flaps() {
    let stage = Stage::new();
    let (guest, _disk) = reserved_guest(&stage);
    let lun = guest.lun_on("/dev/vda");
    let loopbacks = [(); 4].map(|()| lun.loopback());
    loopbacks[2..].iter().for_each(|loopback| loopback.on_node("b"));
    let multipath = guest.start_multipath_with(&MULTIPATH_CONF.replace("polling_interval    5", "polling_interval 1"));
    let (map, other) = (multipath.map(lun.wwid(), 2), multipath.map(&format!("b-{}", lun.wwid()), 2));
    let running = agent(&guest, &with(&stage.slow_spec(lun.wwid()), "/target/reservation", json!("require"))).start();
    until_writing(&running);
    let key = keys(&guest, &other)[0].clone();
    // It cannot notice, nor tell multipathd, while the storage forgets it and a path of its comes and goes.
    running.signal(Signal::SIGSTOP);
    guest.sh(&format!("mpathpersist --out --register --param-sark=0xbbbbbbbbbb {other}"));
    guest
        .sh(&format!("mpathpersist --out --preempt --param-rk=0xbbbbbbbbbb --param-sark={key} --prout-type=5 {other}"));
    let path = loopbacks[0].path();
    path.offline();
    multipath.wait_for(lun.wwid(), vm::multipath::Paths { active: 1, failed: 1 });
    path.online();
    multipath.map(lun.wwid(), 2);
    let registered = keys(&guest, &other);
    assert!(registered.iter().all(|key| key == "0xbbbbbbbbbb"), "{registered:?}");
    guest.run(&format!("dd if=/dev/zero of={map} bs=4096 count=1 oflag=direct")).done().fails();
    running.signal(Signal::SIGCONT);
    failed(running.finish(), 4, &["is lost", "0x000000bbbbbbbbbb"]);
    // multipathd has forgotten the key, so that it offers it to nobody.
    guest.run(&format!("multipathd getprkey map {}", lun.wwid())).done().says("none");
}

#[test]
fn a_path_that_returns_is_registered_before_it_is_used() {
    let stage = Stage::new();
    let (guest, disk) = reserved_guest(&stage);
    let lun = guest.lun_on("/dev/vda");
    let loopbacks = [(); 2].map(|()| lun.loopback());
    let multipath = guest.start_multipath_with(&MULTIPATH_CONF.replace("polling_interval    5", "polling_interval 1"));
    let map = multipath.map(lun.wwid(), 2);
    loopbacks[1].path().delete();
    multipath.wait_for(lun.wwid(), vm::multipath::Paths { active: 1, failed: 0 });
    let spec = with(&stage.slow_spec(lun.wwid()), "/target/reservation", json!("require"));
    let running = agent(&guest, &with(&spec, "/target/lun/min_paths", json!(1))).start();
    until_writing(&running);
    assert_eq!(keys(&guest, &map).len(), 1);
    loopbacks[1].path().scan();
    running.until("the path's return", |out, _| out.contains(r#""kind":"path-changed""#));
    assert_eq!(keys(&guest, &map).len(), 2);
    finished(running.finish());
    assert_eq!(keys(&guest, &map), Vec::<String>::new(), "also the registration of a path that came later is gone");
    guest.power_off();
    e2e::lab::cmp(&stage.raw, disk.path(), stage.size).ok();
}

#[test]
fn what_a_killed_agent_left_is_shown_released_or_shut_out_by_the_next_epoch() {
    let stage = Stage::new();
    let (guest, _disk) = reserved_guest(&stage);
    let lun = guest.lun_on("/dev/vda");
    let _loopbacks = [(); 2].map(|()| lun.loopback());
    let map = guest.start_multipath_with(MULTIPATH_CONF).map(lun.wwid(), 2);
    let slow = with(&stage.slow_spec(lun.wwid()), "/target/reservation", json!("require"));
    let killed = |spec: &serde_json::Value| {
        let running = agent(&guest, spec).start();
        until_writing(&running);
        running.signal(Signal::SIGKILL);
        assert_eq!(running.finish().end, End::Signal(9));
    };
    killed(&slow);
    let key = keys(&guest, &map)[0].clone();

    // An epoch is used once, and another run is another's.
    failed(agent(&guest, &slow).done(), 4, &["with this epoch", "one higher"]);
    let mut other = with(&slow, "/target/wipe", json!(false));
    other["run"] = json!("other");
    failed(
        agent(&guest, &other).done(),
        4,
        &["registered by others", &key, "other runs of z-provisioner", "release-reservation"],
    );

    let look = guest.run(&format!("z-provisioner release-reservation {}", lun.wwid())).done().ok();
    assert!(look.stderr.contains(&key) && look.stderr.contains("removed    nothing"), "{look:?}");
    guest.run(&format!("z-provisioner release-reservation {} --key 0x1", lun.wwid())).done().exits(4);
    assert_eq!(keys(&guest, &map).len(), 2);
    let released = guest.run(&format!("z-provisioner release-reservation {} --run r --json", lun.wwid())).done().ok();
    assert!(released.stdout.contains(&format!("\"removed\":[\"{key}\"]")), "{released:?}");
    assert_eq!(keys(&guest, &map), Vec::<String>::new());

    // The next epoch shuts the earlier one out by itself.
    let second = next_attempt(&slow);
    killed(&second);
    let third = next_attempt(&second);
    let summary = finished(agent(&guest, &third).done());
    assert_eq!(summary["target"]["reservation"]["held"]["preempted"].as_array().unwrap().len(), 1);
    // An epoch that is behind is refused while the newer one holds the LUN, and what others hold goes only with leave.
    guest.sh(&format!("mpathpersist --out --register --param-sark=0xabcabcabca {map}"));
    guest.sh(&format!("mpathpersist --out --reserve --param-rk=0xabcabcabca --prout-type=5 {map}"));
    let fourth = next_attempt(&third);
    failed(agent(&guest, &fourth).done(), 4, &["0x000000abcabcabca", "wipe"]);
    let summary = finished(agent(&guest, &with(&fourth, "/target/wipe", json!(true))).done());
    assert_eq!(summary["target"]["reservation"]["held"]["preempted"], json!(["0x000000abcabcabca"]));
    assert_eq!(keys(&guest, &map), Vec::<String>::new());
}
