//! `imgstream pack --encrypt-region`: real file systems that leave room for the LUKS header, and ones that do not.

use e2e::encrypted::{Disk, FileSystem};
use e2e::lab::{cmp, pack};
use e2e::{Done, Image, KIB, Lab, MIB, Run, Target, exit, sample};
use serde_json::{Value, json};

const HEADER: u64 = MIB;

/// The smallest that each can be, and a `root` that it leaves exactly the header's room of.
const CASES: [(FileSystem, u64, &str); 4] = [
    (FileSystem::Ext2, 8 * MIB, "ext2/3/4"),
    (FileSystem::Ext4, 8 * MIB, "ext2/3/4"),
    (FileSystem::Xfs, 304 * MIB, "XFS"),
    (FileSystem::Btrfs, 16 * MIB, "btrfs"),
];

fn try_pack(lab: &Lab, disk: &Disk, options: &str) -> Done {
    pack(&disk.raw, &lab.fresh("image"), &lab.key(), options).done()
}

#[track_caller]
fn refused(done: Done, code: i32, words: &[&str]) {
    words.iter().fold(done.exits(code), |done, word| done.says(word));
}

fn region<'a>(descriptor: &'a Value, name: &str) -> &'a Value {
    let regions = descriptor["regions"].as_array().unwrap();
    regions.iter().find(|region| region["name"] == name).unwrap_or_else(|| panic!("no region {name}: {regions:?}"))
}

#[test]
fn a_file_system_that_leaves_room_becomes_an_encrypted_region() {
    for (kind, bytes, _) in CASES {
        let lab = Lab::new();
        let disk = Disk::new(&lab, kind, bytes + HEADER, bytes);
        let image = lab.pack(&disk.raw, "--encrypt-region cryptroot=root --luks-header 1MiB --chunk-size 256KiB");
        let descriptor = image.layout().descriptor();
        let luks = json!({"uuid": "8fbef0ff-2f37-86d7-beeb-e0d868f1c81a", "header_bytes": HEADER});
        let expected = json!({
            "name": "cryptroot", "offset": disk.root.start, "length": bytes + HEADER, "encrypt": true, "luks": luks,
        });
        assert_eq!(region(&descriptor, "cryptroot"), &expected, "{kind:?}");
        assert_eq!(region(&descriptor, "boot")["encrypt"], false);
        assert_eq!(descriptor["critical"], json!([]));
        image.verify().done().ok().says("is whole");
        // What is not split is written as it is.
        let target = Target::file(&lab, disk.size);
        image.write(&image.dir, target.path()).done().ok();
        cmp(&disk.raw, target.path(), disk.size).ok();
    }
}

#[test]
fn a_file_system_that_reaches_into_the_headers_room_is_refused() {
    for (kind, bytes, name) in CASES {
        let lab = Lab::new();
        // Enough by all but one block of it; ext and btrfs take what they are given, XFS whole blocks of 4096.
        let disk = Disk::new(&lab, kind, bytes + HEADER - 4096, bytes);
        let done = try_pack(&lab, &disk, "--encrypt-region root=2 --luks-header 1MiB");
        let remedy = match kind {
            FileSystem::Ext2 | FileSystem::Ext4 => "resize2fs PARTITION 8188K",
            FileSystem::Xfs => "mkfs.xfs -d size=318763008",
            FileSystem::Btrfs => "btrfs filesystem resize 16773120",
        };
        let words =
            ["partition 2 (root) cannot be encrypted", name, "must leave the last 1 MiB", "4 KiB too many", remedy];
        refused(done, exit::IMAGE, &[&words[..], &["4 KiB larger"]].concat());
    }
}

#[test]
fn the_default_header_is_what_luks2_takes() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 24 * MIB, 8 * MIB);
    let image = lab.pack(&disk.raw, "--encrypt-region root=root");
    assert_eq!(region(&image.layout().descriptor(), "root")["luks"]["header_bytes"], 16 * MIB);
    let small = Disk::new(&lab, FileSystem::Ext4, 16 * MIB, 8 * MIB);
    let words = ["no more than its LUKS header takes (16 MiB)", "make the partition larger"];
    refused(try_pack(&lab, &small, "--encrypt-region root=root"), exit::IMAGE, &words);
}

#[test]
fn what_has_no_place_must_be_zeros() {
    for at in [1, HEADER] {
        let lab = Lab::new();
        let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
        disk.put(disk.root.end - at, &[1]);
        let done = try_pack(&lab, &disk, "--encrypt-region root=root --luks-header 1MiB");
        let byte = format!("byte {} is not", disk.root.end - at);
        refused(done, exit::IMAGE, &["its last 1 MiB must be zeros", &byte, "blkdiscard -z"]);
        // Just before, it is anybody's.
        disk.put(disk.root.end - at, &[0]);
        disk.put(disk.root.end - HEADER - 1, &[1]);
        try_pack(&lab, &disk, "--encrypt-region root=root --luks-header 1MiB").ok();
    }
}

#[test]
fn what_does_not_say_how_far_it_reaches_is_refused() {
    let lab = Lab::new();
    let (empty, noise, swap) =
        (Disk::empty(&lab, 512, 8 * MIB), Disk::empty(&lab, 512, 8 * MIB), Disk::empty(&lab, 512, 8 * MIB));
    noise.put(noise.root.start, &sample::noise(5, MIB as usize));
    let area = lab.fresh("swap");
    sample::sparse(&area, 4 * MIB);
    Run::tool("mkswap").arg("-q").arg(&area).done().ok();
    swap.put(swap.root.start, &std::fs::read(&area).unwrap());
    for disk in [empty, noise, swap] {
        let done = try_pack(&lab, &disk, "--encrypt-region root=root --luks-header 1MiB");
        refused(done, exit::IMAGE, &["does not say how far it reaches", "ext2, ext3, ext4, XFS and btrfs"]);
    }
}

#[test]
fn an_earlier_file_systems_superblock_beside_the_new_one_is_refused() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    disk.put(disk.root.start, b"XFSB\0\0\x10\0\0\0\0\0\0\0\x01\0");
    let done = try_pack(&lab, &disk, "--encrypt-region root=root --luks-header 1MiB");
    refused(done, exit::IMAGE, &["a superblock of XFS and one of ext2/3/4"]);
}

/// What firmware reads must not be inside LUKS.
#[test]
fn boot_map_and_partition_table_stay_in_the_clear() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    let options = "--encrypt-region root=root --luks-header 1MiB";
    // The first block of an ext4 is nobody's.
    let block = disk.root.start / 512;
    disk.put(disk.root.start, b"zIPL");
    disk.put(0, &[&b"zIPL"[..], &[0; 12], &block.to_be_bytes(), &[2, 0]].concat());
    let at = format!("the boot map lies in it (at byte {})", disk.root.start);
    refused(try_pack(&lab, &disk, options), exit::IMAGE, &[&at, "put /boot on a partition of its own"]);
    let boot = (MIB / 512).to_be_bytes();
    disk.put(MIB, b"zIPL");
    disk.put(16, &boot);
    try_pack(&lab, &disk, options).ok();

    // `root` begins where the table has its last entries: 128 of 128 bytes from sector 2 on.
    let entry_of_root = 1024 + 128;
    let overlapping = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    let boot_begins_later = (4 * MIB / 512).to_le_bytes();
    overlapping.put(1024 + 32, &[boot_begins_later, (5 * MIB / 512).to_le_bytes()].concat());
    overlapping.put(entry_of_root + 32, &[33u64.to_le_bytes(), (3 * MIB / 512).to_le_bytes()].concat());
    refused(try_pack(&lab, &overlapping, options), exit::IMAGE, &["the partition table lies in it"]);
    let at_the_end = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    at_the_end.put(entry_of_root + 40, &(at_the_end.size / 512 - 1).to_le_bytes());
    refused(try_pack(&lab, &at_the_end, options), exit::IMAGE, &["the partition table lies in it"]);
}

#[test]
fn options_that_name_nothing_or_the_same_twice_are_refused() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    let uuid = "6a7e1e3c-0001-4000-8000-000000000001";
    let cases = [
        ("--encrypt-region root=9", "there is no partition \"9\": there are 1 (boot), 2 (root)"),
        ("--encrypt-region root=Root", "there is no partition \"Root\""),
        ("--encrypt-region root", "is not NAME=VALUE"),
        ("--encrypt-region =2", "is not NAME=VALUE"),
        ("--encrypt-region Root=2", "\"Root\" is not made of"),
        ("--encrypt-region end=2", "a region cannot be called \"end\""),
        (
            "--luks-header 1MiB --encrypt-region root=2 --encrypt-region home=root",
            "partition 2 would be two encrypted regions",
        ),
        ("--encrypt-region root=1 --encrypt-region root=2", "two encrypted regions are called \"root\""),
        ("--encrypt-region root=2 --luks-header 512KiB", "at least 1MiB and a multiple of 4096"),
        ("--encrypt-region root=2 --luks-header 1048577", "at least 1MiB and a multiple of 4096"),
        ("--encrypt-region root=2 --luks-uuid root=x", "\"x\" is no UUID"),
        ("--encrypt-region root=2 --luks-uuid home=x", "no --encrypt-region is called \"home\""),
        ("--luks-uuid root=x", "--encrypt-region"),
    ];
    for (options, words) in cases {
        refused(try_pack(&lab, &disk, options), exit::USAGE, &[words]);
    }
    let twice = format!("--encrypt-region root=2 --luks-uuid root={uuid} --luks-uuid root={uuid}");
    refused(try_pack(&lab, &disk, &twice), exit::USAGE, &["names \"root\" twice"]);
    let raw = lab.file("raw", &sample::noise(6, 256 * KIB as usize));
    let no_table = pack(&raw, &lab.fresh("image"), &lab.key(), "--encrypt-region root=1").done();
    refused(no_table, exit::USAGE, &["the image has no partition table"]);
}

#[test]
fn a_uuid_that_is_given_is_taken_and_one_that_is_not_is_printed() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    let options = "--encrypt-region root=root --luks-header 1MiB";
    let given = "6A7E1E3C-0001-4000-8000-00000000000A";
    let image = lab.pack(&disk.raw, &format!("{options} --luks-uuid root={given}"));
    assert_eq!(region(&image.layout().descriptor(), "root")["luks"]["uuid"], given.to_lowercase());

    // printf sample/root | sha256sum, with version 8 and the variant of RFC 9562.
    let derived = "affa5a87-a04d-8308-b248-406939935254";
    try_pack(&lab, &disk, options).ok().says(&format!("root as LUKS {derived}, its header 1 MiB"));
    let json = try_pack(&lab, &disk, &format!("{options} --json")).ok().json();
    assert_eq!(region(json.last().unwrap(), "root")["luks"]["uuid"], derived);
}

#[test]
fn inspect_shows_what_is_to_be_encrypted() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    let image: Image = lab.pack(&disk.raw, "--encrypt-region root=root --luks-header 1MiB");
    let inspect = || Run::imgstream().arg("inspect").arg(&image.dir).arg("--trust").arg(&image.key.public);
    let said = inspect().done().ok();
    let row = said.stdout.lines().find(|line| line.contains("root")).expect("the region's row");
    assert!(row.contains("to be encrypted: LUKS affa5a87-") && row.contains("header 1 MiB"), "{row}");
    let json = inspect().arg("--json").done().ok().json();
    assert_eq!(region(&json[0]["descriptor"], "root")["luks"]["header_bytes"], HEADER);
}

/// An image that somebody signed without having looked: whoever verifies it finds that out.
#[test]
fn verify_refuses_an_image_with_something_in_the_headers_room() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 8 * MIB + HEADER, 8 * MIB);
    disk.put(disk.root.end - 5, &[7]);
    let image = lab.pack(&disk.raw, "--chunk-size 64KiB");
    image.verify().done().ok();
    let root = disk.root.clone();
    image.layout().sign_changed(&[&image.key], |descriptor| {
        let regions = descriptor["regions"].as_array_mut().unwrap();
        let found = regions.iter_mut().find(|region| region["offset"] == root.start).unwrap();
        found["encrypt"] = true.into();
        found["luks"] = json!({"uuid": "6a7e1e3c-0001-4000-8000-000000000001", "header_bytes": HEADER});
    });
    let byte = format!("byte {} of the image is not zero", disk.root.end - 5);
    let region = format!("region at raw offset {}", disk.root.start);
    refused(image.verify().done(), exit::IMAGE, &[&byte, &region, "LUKS header lies there"]);
    // Whoever does not split it may have it.
    let target = Target::file(&lab, disk.size);
    image.write(&image.dir, target.path()).done().ok();
    cmp(&disk.raw, target.path(), disk.size).ok();
}
