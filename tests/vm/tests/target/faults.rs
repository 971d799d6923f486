//! Devices that fail: an error that names the place, a target that does not boot, and nothing left open.

use serde_json::json;
use vm::{Disk, Guest, MIB};

use crate::stage::{
    IQN, MULTIPATH_CONF, PORTALS, SERVER, Stage, WHOLE_HEADER, agent, agent_with_key, digest_of, digest_of_file,
    failed, finished, make_key, multipath, next_attempt, nothing_is_left, storage_and_server, until_writing, with,
};

/// A spec for a device that is no LUN.
fn device_spec(stage: &Stage, device: &str) -> serde_json::Value {
    let mut spec = stage.spec("x");
    spec["target"] = json!({ "device": device });
    spec
}

fn starts_with_zeros(guest: &Guest, device: &str, len: u64) -> bool {
    guest.sh(&format!("head -c {len} {device} | tr -d '\\000' | wc -c")) == "0"
}

#[test]
fn a_device_that_fails_at_an_offset_is_named_and_does_not_boot_and_can_be_finished() {
    let stage = Stage::new();
    let disk = Disk::new(stage.size).virtio_blk();
    let guest = stage.guests().disk(&disk).boot();
    guest.start_udev();
    let odd = guest.map("odd", "/dev/vda");
    let spec = device_spec(&stage, &odd.device());
    odd.fail_at(18 * MIB / 512, 8);
    let failure = failed(agent(&guest, &spec).done(), 6, &["odd", "Input/output error"]);
    assert_eq!(failure["target"], "not-bootable", "{failure}");
    assert!(starts_with_zeros(&guest, "/dev/vda", 512 * 1024));
    odd.heal();
    finished(agent(&guest, &with(&spec, "/options/resume", json!(true))).done());
    guest.power_off();
    e2e::lab::cmp(&stage.raw, disk.path(), stage.size).ok();
}

#[test]
fn a_device_that_fails_below_luks_leaves_nothing_open_and_one_that_flakes_is_an_error_too() {
    let stage = Stage::new();
    let disk = Disk::new(stage.size + WHOLE_HEADER).virtio_blk();
    let guest = stage.guests().disk(&disk).boot();
    guest.start_udev();
    make_key(&guest);
    let odd = guest.map("odd", "/dev/vda");
    let spec = with(&device_spec(&stage, &odd.device()), "/target/layout", json!("whole"));
    odd.fail_at((WHOLE_HEADER + 10 * MIB) / 512, 8);
    let failure = failed(agent_with_key(&guest, &spec).done(), 6, &["zprov-r-luks0", "Input/output error"]);
    assert_eq!(failure["target"], "not-bootable", "{failure}");
    assert!(!guest.sh("dmsetup ls").contains("zprov"), "{failure}");

    odd.flake(2, 600);
    let spec = with(&spec, "/target/wipe", json!(true));
    // Whose request it hits depends on the moment: the agent's own, or cryptsetup's, which does not say why.
    failed(agent_with_key(&guest, &spec).done(), 6, &["kernel log for this device"]);
    odd.heal();
    finished(agent_with_key(&guest, &spec).done());
}

#[test]
fn when_all_paths_are_lost_for_longer_than_allowed_the_run_ends_and_can_be_resumed() {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let guest = stage.guest(&lun);
    // Three looks, a second apart, instead of twelve that are five apart.
    let quick = MULTIPATH_CONF
        .replace("no_path_retry       12", "no_path_retry 3")
        .replace("polling_interval    5", "polling_interval 1");
    let maps = guest.start_multipath_with(&quick);
    maps.map(&lun.wwid(), 2);
    make_key(&guest);
    let spec = with(&stage.slow_spec(&lun.wwid()), "/target/layout", json!("whole"));
    let running = agent_with_key(&guest, &spec).start();
    until_writing(&running);
    let paths = [0, 1].map(|path| guest.path(&lun, path));
    paths.iter().for_each(vm::scsi::Path::offline);
    let lost = std::time::Instant::now();
    let done = running.finish();
    assert!(lost.elapsed().as_secs() < 120, "{:?}", lost.elapsed());
    let failure = failed(done, 6, &["no path to LUN", "resume"]);
    assert_eq!((&failure["retryable"], &failure["target"]), (&json!(true), &json!("not-bootable")), "{failure}");
    paths.iter().for_each(vm::scsi::Path::online);
    maps.map(&lun.wwid(), 2);
    nothing_is_left(&guest, &lun.wwid());
    let again = next_attempt(&with(&spec, "/image/sources", stage.spec("x")["image"]["sources"].clone()));
    let summary = finished(agent_with_key(&guest, &again).done());
    assert_eq!(summary["target"]["containers"][0]["kept"], true, "what may be resumed keeps its key slots");
}

#[test]
fn a_lun_exchanged_for_another_of_the_same_size_is_noticed_before_it_is_written() {
    let stage = Stage::new();
    let (storage, guest, _links) = storage_and_server(&stage);
    let [lun, other] = [(); 2].map(|()| storage.lun_in_memory((stage.size + WHOLE_HEADER).div_ceil(MIB)));
    lun.offer(IQN, SERVER, &PORTALS);
    guest.iscsi_login(SERVER, IQN, &PORTALS);
    let maps = guest.start_multipath_with(MULTIPATH_CONF);
    make_key(&guest);
    let spec = with(&stage.spec(lun.wwid()), "/target/layout", json!("whole"));
    let spec = with(&spec, "/target/reservation", json!("require"));
    // Whether before the first write or between two of them: what the paths lead to is asked again each time.
    for step in ["check", "unlock"] {
        // A session that was disturbed by the exchange has a path less for a moment.
        maps.map(lun.wwid(), 2);
        let running =
            agent_with_key(&guest, &with(&spec, "/epoch", json!(if step == "check" { 1 } else { 2 }))).start();
        running.until(step, |out, _| out.contains(&format!(r#""step":"{step}""#)));
        running.signal(vm::Signal::SIGSTOP);
        other.offer_instead(IQN, SERVER);
        running.signal(vm::Signal::SIGCONT);
        let failure = failed(running.finish(), 4, &[lun.wwid(), other.wwid(), "another LUN"]);
        assert_eq!(failure["target"], "untouched", "{failure}");
        let written = storage.sh(&format!("tr -d '\\000' <{} | wc -c", other.file()));
        assert_eq!(written, "0", "the other LUN was written");
        lun.offer_instead(IQN, SERVER);
        guest.run(&format!("z-provisioner release-reservation {} --all", lun.wwid())).limit(120).done();
    }
    maps.map(lun.wwid(), 2);
    finished(agent_with_key(&guest, &with(&with(&spec, "/target/wipe", json!(true)), "/epoch", json!(3))).done());
}

#[test]
#[ignore = "soak"]
fn a_lun_with_sectors_of_4096_takes_images_built_for_them_and_no_others() {
    let (small, large) = (Stage::new(), Stage::of(e2e::sample::disk(4096), "--chunk-size 512KiB"));
    let size = (large.size + WHOLE_HEADER).next_multiple_of(4096);
    let lun = Disk::new(size).paths(2).blocks(4096, 4096);
    let guest = large.guests().disk(&lun).boot();
    multipath(&guest, &lun);
    make_key(&guest);
    guest.put("/etc/other.pub", 0o644, small.public_key());
    let wrong = with(&small.spec(&lun.wwid()), "/image/trust", json!(["/etc/other.pub"]));
    failed(agent(&guest, &wrong).done(), 4, &["sectors of 4096 bytes", "built for 512"]);
    let whole = with(&wrong, "/target/layout", json!("whole"));
    failed(agent_with_key(&guest, &whole).done(), 4, &["sectors of 4096 bytes", "built for 512"]);
    finished(agent(&guest, &large.spec(&lun.wwid())).done());
    let whole = with(&large.spec(&lun.wwid()), "/target/layout", json!("whole"));
    let summary = finished(agent_with_key(&guest, &with(&whole, "/target/wipe", json!(true))).done());
    assert_eq!(summary["target"]["containers"][0]["sector_size"], 4096);
    let map = format!("/dev/mapper/{}", lun.wwid());
    guest.sh(&format!("cryptsetup open --key-file - {map} content < /run/luks-key || head -c 64 /run/luks-key | cryptsetup open --key-file - {map} content"));
    assert_eq!(digest_of(&guest, "/dev/mapper/content", large.size), digest_of_file(&large.raw));
}
