//! What the harness offers of disks: paths that come and go, reservations, machines that share a disk, disks that fail.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use vm::multipath::Paths;
use vm::{Disk, Guest, Link, MIB};

/// One sector written past every cache; fails on a reservation of somebody else.
fn write(guest: &Guest, device: &str) -> vm::Done {
    guest.run(&format!("dd if=/dev/zero of={device} bs=4096 count=1 oflag=direct")).done()
}

#[test]
fn an_unplugged_path_of_two_gives_no_error() {
    let disk = Disk::new(64 * MIB).paths(2);
    let guest = Guest::builder().disk(&disk).boot();
    let multipath = guest.start_multipath();
    let map = multipath.map(&disk.wwid(), 2);
    let line = format!("for i in 1 2 3 4; do dd if=/dev/urandom of={map} bs=1M count=64 oflag=direct || exit 1; done");
    let writing = guest.run(&line).limit(120).start();
    guest.unplug(&disk, 1);
    multipath.wait_for(&disk.wwid(), Paths { active: 1, failed: 0 });
    guest.plug(&disk, 1);
    multipath.map(&disk.wwid(), 2);
    assert_eq!(writing.ended(), None, "the paths came and went while it wrote");
    writing.finish().ok();
}

#[test]
fn an_offline_path_fails_and_comes_back() {
    let disk = Disk::new(16 * MIB).paths(2);
    let guest = Guest::builder().disk(&disk).boot();
    let multipath = guest.start_multipath();
    let map = multipath.map(&disk.wwid(), 2);
    let path = guest.path(&disk, 0);
    path.offline();
    write(&guest, &map).ok();
    multipath.wait_for(&disk.wwid(), Paths { active: 1, failed: 1 });
    path.online();
    multipath.map(&disk.wwid(), 2);
    path.delete();
    multipath.wait_for(&disk.wwid(), Paths { active: 1, failed: 0 });
    path.scan();
    multipath.map(&disk.wwid(), 2);
}

#[test]
fn reservations_conflict_between_two_initiators_of_one_lun() {
    let guest = Guest::builder().boot();
    let lun = guest.lun_in_memory(32);
    let loopbacks = [(); 4].map(|()| lun.loopback());
    loopbacks[2..].iter().for_each(|loopback| loopback.on_node("b"));
    let multipath = guest.start_multipath();
    let (one, other) = (multipath.map(lun.wwid(), 2), multipath.map(&format!("b-{}", lun.wwid()), 2));
    write(&guest, &other).ok();
    guest.sh(&format!("mpathpersist --out --register --param-sark=0xaaa {one}"));
    guest.sh(&format!("mpathpersist --out --reserve --param-rk=0xaaa --prout-type=5 {one}"));
    write(&guest, &one).ok();
    write(&guest, &other).fails();
    guest.run(&format!("sg_persist -n -i -k {}", loopbacks[3].path().device())).done().ok().says("0xaaa");
    guest.sh(&format!("mpathpersist --out --register --param-sark=0xbbb {other}"));
    guest.sh(&format!("mpathpersist --out --preempt --param-rk=0xbbb --param-sark=0xaaa --prout-type=5 {other}"));
    write(&guest, &one).fails();
    write(&guest, &other).ok();
}

#[test]
#[ignore = "soak"]
fn two_machines_share_a_disk_over_iscsi() {
    let (left, right) = (Link::new(), Link::new());
    let at = |end| {
        Guest::builder().link(&left, end, &format!("10.9.0.{}/24", end + 1)).link(
            &right,
            end,
            &format!("10.9.1.{}/24", end + 1),
        )
    };
    let disk = Disk::new(16 * MIB).virtio_blk();
    let target = at(0).named("target").disk(&disk).boot();
    let initiator = at(1).named("initiator").boot();
    let lun = target.lun_on("/dev/vda");
    let (iqn, me) = ("iqn.2026-01.example:lun", "iqn.2026-01.example:initiator");
    let portals = ["10.9.0.1", "10.9.1.1"];
    lun.offer(iqn, me, &portals);
    let loopback = lun.loopback();
    let here = loopback.path().device();
    initiator.iscsi_login(me, iqn, &portals);
    let multipath = initiator.start_multipath();
    let there = multipath.map(lun.wwid(), 2);
    initiator.sh(&format!("echo shared | dd of={there} bs=4096 count=1 conv=sync oflag=direct"));
    target.run(&format!("dd if={here} bs=4096 count=1 iflag=direct")).done().ok().says("shared");
    initiator.sh(&format!("mpathpersist --out --register --param-sark=0xaaa {there}"));
    initiator.sh(&format!("mpathpersist --out --reserve --param-rk=0xaaa --prout-type=5 {there}"));
    write(&target, &here).fails();
    write(&initiator, &there).ok();
    initiator.set_link(&right, false);
    write(&initiator, &there).ok();
    multipath.wait_for(lun.wwid(), Paths { active: 1, failed: 1 });
    initiator.set_link(&right, true);
    multipath.map(lun.wwid(), 2);
    write(&target, &here).fails();
}

#[test]
fn a_path_may_come_back_with_another_disk_behind_it() {
    let (disk, other) = (Disk::new(8 * MIB).paths(2), Disk::new(8 * MIB).blocks(4096, 4096).paths(0));
    let guest = Guest::builder().disk(&disk).disk(&other).boot();
    let facts = |path| {
        let name = guest.path(&disk, path).name();
        guest.sh(&format!("cat /sys/block/{name}/device/wwid /sys/block/{name}/queue/logical_block_size"))
    };
    assert_eq!(facts(0), format!("naa.{}\n512", &disk.wwid()[1..]));
    guest.unplug(&disk, 0);
    guest.plug_instead(&disk, 0, &other);
    assert_eq!(facts(0), format!("naa.{}\n4096", &other.wwid()[1..]));
    assert_eq!(facts(1), format!("naa.{}\n512", &disk.wwid()[1..]), "the other path is as it was");
}

#[test]
fn a_mapped_device_fails_where_and_when_it_is_told_to() {
    let disk = Disk::new(16 * MIB).virtio_blk();
    let guest = Guest::builder().disk(&disk).boot();
    let mapped = guest.map("odd", "/dev/vda");
    let at = |sector: u64| {
        guest.run(&format!("dd if=/dev/zero of={} bs=512 seek={sector} count=1 oflag=direct", mapped.device())).done()
    };
    at(8192).ok();
    mapped.fail_at(8192, 8);
    at(8191).ok();
    at(8192).fails();
    at(8200).ok();
    mapped.heal();
    at(8192).ok();
    mapped.delay(1500);
    let slow = at(0).ok();
    assert!(slow.took.as_millis() >= 1500, "{:?}", slow.took);
    mapped.flake(1, 60);
    guest.until(
        "its first failure",
        20,
        &format!("! dd if=/dev/zero of={} bs=512 count=1 oflag=direct", mapped.device()),
    );
}
