//! What stands against writing a LUN, each with its own words.

use serde_json::json;
use vm::Disk;

use crate::stage::{
    Stage, WHOLE_HEADER, agent, agent_with_key, failed, finished, make_key, multipath, nothing_is_left, with,
};

#[test]
fn a_lun_that_is_used_or_not_empty_is_refused_and_untouched() {
    let stage = Stage::new();
    let lun = stage.lun(0);
    e2e::Run::tool("mke2fs").words("-q -F -t ext4 -L payroll").arg(lun.path()).done().ok();
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let map = format!("/dev/mapper/{}", lun.wwid());
    let spec = stage.spec(&lun.wwid());

    guest.sh(&format!("modprobe ext4 && mkdir -p /mnt/used && mount -t ext4 {map} /mnt/used && echo x >/mnt/used/x"));
    failed(agent(&guest, &spec).done(), 4, &["is mounted", "/mnt/used", "umount"]);
    guest.sh("umount /mnt/used");
    let before = std::fs::read(lun.path()).unwrap();

    let failure = failed(agent(&guest, &spec).done(), 4, &["is not empty", "ext4 \"payroll\"", "wipe: true"]);
    assert_eq!(failure["target"], "untouched");
    // To resume is to go on with what is this image's; nothing here is.
    let resume = with(&spec, "/options/resume", json!(true));
    failed(agent(&guest, &resume).done(), 4, &["nothing of this image", "payroll"]);
    assert!(before == std::fs::read(lun.path()).unwrap(), "a refused run writes nothing");

    guest.sh(&format!("dmsetup create held --table \"0 2048 linear {map} 0\""));
    failed(agent(&guest, &spec).done(), 4, &["is held by"]);
    guest.sh("dmsetup remove --retry held");

    guest.sh(&format!("blockdev --setro {map}"));
    failed(agent(&guest, &spec).done(), 4, &["read-only"]);
    guest.sh(&format!("blockdev --setrw {map}"));

    nothing_is_left(&guest, &lun.wwid());
    let summary = finished(agent(&guest, &with(&spec, "/target/wipe", json!(true))).done());
    assert!(summary["target"]["wiped"][0].as_str().unwrap().contains("payroll"), "{summary}");
}

#[test]
fn a_lun_that_is_too_small_by_one_sector_is_refused() {
    let stage = Stage::new();
    let (plain, whole) = (Disk::new(stage.size - 512).paths(2), Disk::new(stage.size + WHOLE_HEADER - 512).paths(2));
    let guest = stage.guests().disk(&plain).disk(&whole).boot();
    let maps = guest.start_multipath_with(crate::stage::MULTIPATH_CONF);
    maps.map(&plain.wwid(), 2);
    maps.map(&whole.wwid(), 2);
    failed(agent(&guest, &stage.spec(&plain.wwid())).done(), 4, &["512 B are missing", "larger"]);
    make_key(&guest);
    let spec = with(&stage.spec(&whole.wwid()), "/target/layout", json!("whole"));
    failed(agent_with_key(&guest, &spec).done(), 4, &["inside a LUKS container", "512 B are missing"]);
    nothing_is_left(&guest, &whole.wwid());
    for disk in [&plain, &whole] {
        assert!(std::fs::read(disk.path()).unwrap().iter().all(|byte| *byte == 0), "a refused run writes nothing");
    }
}
