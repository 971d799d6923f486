//! Layouts: what was written is what the image is, and a kernel that has never seen it finds its partitions and files.

use serde_json::json;
use vm::{Guest, MIB};

use crate::stage::{
    Stage, WHOLE_HEADER, agent, agent_with_key, digest_of, digest_of_file, finished, make_key, multipath,
    nothing_is_left, with,
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
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let key = make_key(&guest);
    let spec = with(&stage.spec(&lun.wwid()), "/target/layout", json!("whole"));
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
