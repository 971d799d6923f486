//! Layouts: what was written is what the image is, and a kernel that has never seen it finds its partitions and files.

use e2e::Lab;
use e2e::encrypted::FileSystem;
use serde_json::json;
use vm::{Disk, Guest, MIB};

use crate::stage::{
    MULTIPATH_CONF, Stage, Whole, agent, agent_with_key, digest_of, digest_of_file, failed, finished, make_key,
    multipath, next_attempt, nothing_is_left, with,
};

/// Mounts the first partition of a device, and returns how many files it has.
fn files_of_first_partition(guest: &Guest, device: &str, kind: &str) -> u32 {
    let kernel_name = guest.sh(&format!("basename $(readlink -f {device})"));
    guest.sh(&format!("kpartx -a -s {device}; modprobe {kind}; mkdir -p /mnt/p"));
    let part = guest.sh(&format!("ls /sys/block/{kernel_name}/holders | head -1"));
    guest.sh(&format!("mount -t {kind} -o ro /dev/{part} /mnt/p"));
    let files = guest.sh("find /mnt/p -type f | wc -l").parse().unwrap();
    guest.sh(&format!("umount /mnt/p; kpartx -d -s {device}"));
    files
}

#[test]
fn a_plain_image_is_on_the_lun_byte_for_byte() {
    let stage = Stage::new();
    let lun = stage.lun(0);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let summary = finished(agent(&guest, &stage.spec(&lun.wwid())).done());
    assert_eq!(summary["target"]["layout"], "plain");
    assert_eq!(summary["target"]["paths"], json!({"live": 2, "total": 2}));
    // QEMU's SCSI disks know no reservations, and that was said.
    assert_eq!(summary["target"]["reservation"], "unsupported");
    nothing_is_left(&guest, &lun.wwid());
    guest.power_off();
    e2e::lab::cmp(&stage.raw, lun.path(), stage.size).ok();
}

#[test]
fn a_whole_image_is_inside_luks_and_nowhere_else() {
    let Whole { stage, lun, guest, key, spec } = Whole::new();
    let summary = finished(agent_with_key(&guest, &spec).done());
    let container = &summary["target"]["containers"][0];
    assert_eq!(
        (&container["region"], &container["kept"], &container["sector_size"]),
        (&json!("disk"), &json!(false), &json!(512))
    );
    nothing_is_left(&guest, &lun.wwid());

    // The key is typed, not given as a file: so it is at a console.
    let map = format!("/dev/mapper/{}", lun.wwid());
    guest.run(&format!("cryptsetup open --type luks2 {map} content")).stdin(format!("{key}\n")).limit(120).done().ok();
    assert_eq!(digest_of(&guest, "/dev/mapper/content", stage.size), digest_of_file(&stage.raw));
    assert!(files_of_first_partition(&guest, "/dev/mapper/content", "ext4") > 20);
    let clear = std::fs::read(lun.path()).unwrap();
    let raw = std::fs::read(&stage.raw).unwrap();
    // From the middle of the partition that does not compress.
    let piece = &raw[(18 * MIB) as usize..][..64];
    assert!(!clear.windows(64).any(|window| window == piece), "a piece of the image lies in the clear");
}

#[test]
fn a_larger_lun_has_the_backup_of_the_gpt_at_its_end_and_no_old_data() {
    let stage = Stage::new();
    let lun = stage.lun(8 * MIB);
    std::fs::write(lun.path(), e2e::sample::noise(7, (stage.size + 8 * MIB) as usize)).unwrap();
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let summary = finished(agent(&guest, &stage.spec(&lun.wwid())).done());
    assert_eq!(summary["gpt"], "moved");
    assert_eq!(summary["tail"]["bytes"].as_u64(), Some(8 * MIB - 33 * 512));
    let map = format!("/dev/mapper/{}", lun.wwid());
    assert!(guest.sh(&format!("sfdisk --verify {map} 2>&1")).contains("No errors detected."));
    assert!(files_of_first_partition(&guest, &map, "ext4") > 20);
    let disk = std::fs::read(lun.path()).unwrap();
    let beyond = &disk[stage.size as usize..disk.len() - 33 * 512];
    assert!(beyond.iter().all(|byte| *byte == 0), "old data lie beyond the image");
}

/// A root partition of so many bytes with a file system that leaves 2 MiB of it, which an image's packer wants inside LUKS.
fn split(kind: FileSystem, partition: u64) -> (Stage, e2e::encrypted::Disk) {
    let lab = Lab::new();
    let disk = e2e::encrypted::Disk::new(&lab, kind, partition, partition - 2 * MIB);
    let options = format!("--chunk-size 512KiB --encrypt-region root=2 --luks-header 2MiB --luks-uuid root={UUID}");
    (Stage::packed(lab, disk.raw.clone(), &options), disk)
}

const UUID: &str = "7a707276-0000-4000-8000-000000000004";

/// Maps the partitions of a LUN, opens the second one with the key, and mounts what is inside.
fn mount_root(guest: &Guest, map: &str, key: &str, kind: &str) {
    guest.sh(&format!("modprobe {kind}; kpartx -a -s -p -part {map}; mkdir -p /mnt/root"));
    guest.sh(&format!("[ $(cryptsetup luksUUID {map}-part2) = {UUID} ]"));
    guest
        .run(&format!("cryptsetup open --type luks2 {map}-part2 root"))
        .stdin(format!("{key}\n"))
        .limit(120)
        .done()
        .ok();
    guest.sh(&format!("mount -t {kind} /dev/mapper/root /mnt/root"));
}

#[test]
fn a_split_image_is_clear_where_it_must_be_and_encrypted_where_it_says() {
    let (stage, disk) = split(FileSystem::Ext4, 20 * MIB);
    // Larger than the image: the backup of its GPT moves, and what is beyond is cleared.
    let lun = stage.lun(4 * MIB);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let key = make_key(&guest);
    let spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("split"));
    let summary = finished(agent_with_key(&guest, &spec).done());
    let container = &summary["target"]["containers"][0];
    assert_eq!((&container["region"], &container["uuid"]), (&json!("root"), &json!(UUID)));
    assert_eq!((&summary["gpt"], &summary["tail"]["how"]), (&json!("moved"), &json!("zeroed-by-device")), "{summary}");
    nothing_is_left(&guest, &lun.wwid());

    let (written, raw) = (std::fs::read(lun.path()).unwrap(), std::fs::read(&stage.raw).unwrap());
    let boot = (MIB as usize)..(disk.root.start as usize);
    assert!(written[boot.clone()] == raw[boot], "/boot is in the clear");
    let root = (disk.root.start as usize)..(disk.root.end as usize);
    assert!(!written[root].windows(26).any(|window| window == b"what is to be found again\n"), "the root is not");
    let map = format!("/dev/mapper/{}", lun.wwid());
    mount_root(&guest, &map, &key, "ext4");
    assert_eq!(guest.sh("sort -u /mnt/root/text"), "what is to be found again");
    assert_eq!(guest.get("/mnt/root/noise"), e2e::sample::noise(31, 300 << 10));
    guest.sh(&format!("umount /mnt/root; cryptsetup close root; kpartx -d -s -p -part {map}"));

    // Mounting has written to it. The next attempt puts back what differs, and that alone.
    let again = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!(again["target"]["containers"][0]["kept"], true);
    let (kept, all) = (again["kept_bytes"].as_u64().unwrap(), again["raw_bytes"].as_u64().unwrap());
    assert!(kept > all / 2 && kept < all, "{again}");
    let third = finished(agent_with_key(&guest, &next_attempt(&next_attempt(&spec))).done());
    assert_eq!((&third["kept_bytes"], &third["data_bytes"]), (&json!(all), &json!(0)));
}

#[test]
#[ignore = "soak"]
fn a_split_image_with_xfs_is_mounted() {
    let (stage, _disk) = split(FileSystem::Xfs, 306 * MIB);
    let lun = stage.lun(0);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let key = make_key(&guest);
    let spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("split"));
    finished(agent_with_key(&guest, &spec).done());
    let map = format!("/dev/mapper/{}", lun.wwid());
    mount_root(&guest, &map, &key, "xfs");
    guest.sh("echo works >/mnt/root/file && umount /mnt/root && mount -t xfs /dev/mapper/root /mnt/root && grep -q works /mnt/root/file");
}

#[test]
#[ignore = "soak"]
fn a_split_image_needs_sectors_of_its_own_size_and_is_refused_before_anything_is_changed() {
    let lab = Lab::new();
    let disk = e2e::encrypted::Disk::of_sectors(&lab, 4096, FileSystem::Ext4, 20 * MIB, 18 * MIB);
    let stage = Stage::packed(lab, disk.raw, "--chunk-size 512KiB --encrypt-region root=2 --luks-header 2MiB");
    let size = stage.size.next_multiple_of(MIB);
    let (small, fitting) = (Disk::new(size).paths(2), Disk::new(size).paths(2).blocks(4096, 4096));
    let guest = stage.guests().disk(&small).disk(&fitting).boot();
    let maps = guest.start_multipath_with(MULTIPATH_CONF);
    maps.map(&small.wwid(), 2);
    maps.map(&fitting.wwid(), 2);
    make_key(&guest);
    let split = |lun: &Disk| with(&stage.spec(&lun.wwid()), "/target/layout", json!("split"));
    guest.sh(&format!("mke2fs -q -F /dev/mapper/{}", small.wwid()));
    guest.sh("sync");
    let before = std::fs::read(small.path()).unwrap();
    let allowed = with(&split(&small), "/target/wipe", json!(true));
    let failure = failed(agent_with_key(&guest, &allowed).done(), 4, &["sectors of 512 bytes", "built for 4096"]);
    assert_eq!(failure["target"], "untouched", "{failure}");
    assert!(before == std::fs::read(small.path()).unwrap(), "a refused run changes nothing, whatever it may wipe");
    let summary = finished(agent_with_key(&guest, &split(&fitting)).done());
    assert_eq!(summary["target"]["containers"][0]["sector_size"], 4096);
}

#[test]
fn an_image_that_encrypts_nothing_cannot_be_split() {
    let stage = Stage::new();
    let lun = stage.lun(0);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    make_key(&guest);
    let spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("split"));
    let failure = failed(agent_with_key(&guest, &spec).done(), 2, &["--encrypt-region"]);
    assert_eq!(failure["target"], "untouched");
    nothing_is_left(&guest, &lun.wwid());
    // A key that nothing would be done with is a mistake, and so is none where one is needed.
    failed(agent_with_key(&guest, &stage.spec(&lun.wwid())).done(), 2, &["--luks-key", "plain"]);
    failed(agent(&guest, &spec).done(), 2, &["there is no key", "keygen"]);
}
