//! Claims about what is found, and what is refused.

use imgstream::error::Kind;
use proptest::prelude::*;

use super::disk::{BOOT, Disk, END, PARAMETERS, Plan};
use super::*;

const UUID: &str = "7a707276-0000-4000-8000-000000000003";
const OTHER: &str = "7a707276-0000-4000-8000-00000000000f";

/// The partition table, in two parts, and the boot partition.
const CLEAR: [Range<u64>; 3] = [512..BOOT, BOOT..END, 0..512];

fn checked(disk: &Disk, block_size: u32) -> Result<Boot> {
    check(&disk.bytes, block_size, &CLEAR, &[OTHER.into(), UUID.into()])
}

/// What is said of a disk after `change`.
fn refused(plan: &Plan, change: impl FnOnce(&mut Disk)) -> String {
    let mut disk = plan.build();
    change(&mut disk);
    let error = checked(&disk, plan.block_size).unwrap_err();
    assert!(
        error.kind() == Kind::Image
            && error.hint().is_some_and(|hint| hint.contains("pack the image anew") || hint.contains("use an image")),
        "{error:?}"
    );
    error.to_string()
}

fn plan() -> Plan {
    Plan::default()
}

#[test]
fn a_disk_that_zipl_wrote_can_be_started() {
    for block_size in [512, 4096] {
        let found = checked(&Plan { block_size, ..plan() }.build(), block_size).unwrap();
        let expected = Boot { kernel: 70_001, initramfs: Some(40_006), parameters: PARAMETERS.into(), programs: 1 };
        assert_eq!(found, expected);
        let said = format!("kernel of 68.4 KiB, initramfs of 39.1 KiB, parameters {PARAMETERS:?}");
        assert_eq!(found.to_string(), said);
    }
}

#[test]
fn menus_signatures_and_kernels_cut_by_an_older_zipl_are_known() {
    let boot = checked(&Plan { menu: 3, signed: true, ..plan() }.build(), 512).unwrap();
    assert!(boot.programs == 3 && boot.to_string().contains("the default of 3 programs"), "{boot}");
    let kernel = plan().kernel.split_off(0x10000);
    assert_eq!(checked(&Plan { kernel, ..plan() }.build(), 512).unwrap().kernel, 70_001 - 0x10000);
}

#[test]
fn a_plain_disk_needs_neither_initramfs_nor_parameters() {
    let disk = Plan { initramfs: None, parameters: None, ..plan() }.build();
    let boot = check(&disk.bytes, 512, &CLEAR, &[]).unwrap();
    assert_eq!((boot.initramfs, boot.parameters.as_str()), (None, ""));
    assert_eq!(boot.to_string(), "kernel of 68.4 KiB, no initramfs, parameters \"\"");
}

#[test]
fn a_record_or_table_that_is_none_is_named() {
    let said = refused(&plan(), |disk| disk.put(0, b"xIPL"));
    assert_eq!(said, "block 0 holds no boot record: it does not begin with \"zIPL\"");
    let said = refused(&plan(), |disk| disk.put(7, &[2]));
    assert_eq!(said, "the boot record is of version 2, and only version 1 is known");
    let said = refused(&plan(), |disk| disk.put(disk.program_table, b"ZIPL"));
    assert!(said.starts_with("the boot record's program table, at block ") && said.ends_with("\"zIPL\""), "{said}");
    let said = refused(&plan(), |disk| disk.put(disk.component_table, b"ZIPL"));
    assert!(said.starts_with("the default program's component table, at block "), "{said}");
    let said = refused(&plan(), |disk| disk.put(disk.program_table + 16, &[0; 16]));
    assert_eq!(said, "the program table has no default entry");
    let said = refused(&plan(), |disk| disk.put(disk.component_table + 4, &[1]));
    assert!(said.ends_with("a dumper, not an operating system"), "{said}");
}

#[test]
fn what_lies_outside_the_boot_region_is_named_with_its_block() {
    let outside = END as usize;
    let said = refused(&plan(), |disk| disk.put(16, &disk.pointer(outside, 1)));
    assert_eq!(said, "the boot record's program table lies at block 4096, outside the boot region");
    let said = refused(&plan(), |disk| disk.put(disk.program_table + 16, &disk.pointer(outside, 1)));
    assert_eq!(said, "the default program's component table lies at block 4096, outside the boot region");
    let said = refused(&plan(), |disk| disk.put(disk.component_table + 32, &disk.pointer(outside, 1)));
    assert_eq!(said, "the segment table of component 1 lies at block 4096, outside the boot region");
    let said = refused(&plan(), |disk| disk.put(disk.segments[4], &disk.pointer(outside - 512, 2)));
    assert_eq!(said, "component 5 lies at blocks 4095 to 4096, outside the boot region");
    let said = refused(&Plan { signed: true, ..plan() }, |disk| disk.put(disk.segments[2], &disk.pointer(outside, 1)));
    assert!(said.starts_with("component 3, a signature lies at block 4096"), "{said}");
    let record = check(&plan().build().bytes, 512, &CLEAR[..2], &[]).unwrap_err();
    assert_eq!(record.to_string(), "the boot record lies at block 0, outside the boot region");
}

#[test]
fn what_lies_beyond_the_disk_is_named_and_no_number_is_too_large() {
    let said = refused(&plan(), |disk| disk.bytes.truncate(disk.program_table));
    assert!(
        said.starts_with("the boot record's program table lies at block ")
            && said.ends_with("beyond the end of the disk"),
        "{said}"
    );
    for first in [u64::MAX, u64::MAX / 512, u64::MAX / 512 - 1] {
        let said = refused(&plan(), |disk| {
            let table = disk.segments[4];
            disk.put(table, &first.to_be_bytes());
            disk.put(table + 10, &[0xff, 0xff]);
        });
        assert!(said.starts_with(&format!("component 5 lies at blocks {first} to ")), "{said}");
    }
    let said = refused(&plan(), |disk| disk.put(disk.component_table + 32 + 24, &[0xff; 8]));
    assert!(said.starts_with("component 1 is loaded to 0xffffffffffffffff, and its 16384 bytes"), "{said}");
}

#[test]
fn blocks_of_another_size_are_told_apart() {
    let error = checked(&plan().build(), 4096).unwrap_err();
    let expected =
        "the boot record's program table is written for blocks of 512 bytes, and the disk has blocks of 4096";
    assert_eq!(error.to_string(), expected);
    assert_eq!(checked(&plan().build(), 520).unwrap_err().kind(), Kind::Target);
}

#[test]
fn chains_that_do_not_end_are_left() {
    let circle = |disk: &mut Disk| {
        let table = disk.segments[4];
        disk.put(table + 512 - 16, &disk.pointer(table, 1));
    };
    let said = refused(&plan(), circle);
    assert!(said.starts_with("the segment tables of component 5 go in a circle"), "{said}");
    let said = refused(&plan(), |disk| disk.put(disk.segments[4] + 512 - 16, &disk.pointer(BOOT as usize, 2)));
    assert!(said.starts_with("a segment table of component 5 ends with 2 blocks of content"), "{said}");
}

#[test]
fn a_chain_of_more_tables_than_any_system_needs_is_left() {
    // Each is a block of its own, so none comes twice.
    let mut disk = plan().build();
    let first = disk.bytes.len().next_multiple_of(512);
    disk.bytes.resize(first + (70_000 * 512), 0);
    let data = disk.pointer(BOOT as usize, 1);
    for at in (first..disk.bytes.len() - 512).step_by(512) {
        let table = [data.repeat(31), disk.pointer(at + 512, 1).to_vec()].concat();
        disk.put(at, &table);
    }
    disk.put(disk.component_table + 32, &disk.pointer(first, 1));
    let all = 0..disk.bytes.len() as u64;
    let error = check(&disk.bytes, 512, &[all], &[]).unwrap_err();
    assert_eq!(error.to_string(), "the default program has more than 65536 segment tables");
}

#[test]
fn a_program_that_is_no_linux_is_refused() {
    let said = refused(&plan(), |disk| disk.put(disk.component_table + 32 + 23, &[4]));
    assert_eq!(said, "component 1 is of kind 4, which firmware does not know");
    let said = refused(&plan(), |disk| disk.put(disk.execute + 23, &[0]));
    assert!(said.ends_with("is of kind 0, which firmware does not know"), "{said}");
    let said = refused(&plan(), |disk| disk.put(disk.execute + 24, &0x8100_0000u64.to_be_bytes()));
    assert_eq!(said, "execution begins at 0x1000000, where nothing is loaded");
    let said = refused(&Plan { kernel: vec![7; 70_000], ..plan() }, |_| ());
    assert!(said.starts_with("no kernel is loaded"), "{said}");
    let elsewhere = Plan { kernel_address: 0x20000, kernel: plan().kernel.split_off(0x10000), ..plan() };
    assert!(refused(&elsewhere, |_| ()).starts_with("no kernel is loaded"));
    let said = refused(&plan(), |disk| disk.put(disk.component_table + 32 * 4 + 24, &0x9200u64.to_be_bytes()));
    assert!(said.contains("no component is loaded to 0x9000"), "{said}");
}

#[test]
fn an_initramfs_must_be_there_whole_and_be_one() {
    let said = refused(&Plan { initramfs: None, ..plan() }, |_| ());
    assert_eq!(said, "there is no initramfs, and only one could open the LUKS container");
    let last = 32 + 6 * 32;
    let said = refused(&plan(), |disk| disk.put(disk.component_table + last + 24, &0x99_0000u64.to_be_bytes()));
    assert_eq!(said, "no initramfs: it is to be at 0x860000, where no component is loaded");
    let said = refused(&plan(), |disk| disk.put(disk.segments[6] + 16, &[0; 16]));
    assert_eq!(said, "the initramfs, component 7, is cut off: 1536 of its 40006 bytes are loaded");
    let said = refused(&Plan { initramfs: Some(vec![0x42; 999]), ..plan() }, |_| ());
    assert!(said.starts_with("no initramfs: component 7 begins with [42, 42,"), "{said}");
}

#[test]
fn parameters_must_be_text_that_names_a_container() {
    let with = |text: &[u8]| Plan { parameters: Some(text.to_vec()), ..plan() };
    let said = refused(&with(b"root=/dev/sda1"), |_| ());
    assert_eq!(
        said,
        format!("the kernel parameters do not name the LUKS container {OTHER}, {UUID}: \"root=/dev/sda1\"")
    );
    assert!(refused(&Plan { parameters: None, ..plan() }, |_| ()).ends_with(": \"\""));
    for text in [&b"root=\xff\xfe"[..], b"root=\x1b[2J"] {
        assert_eq!(refused(&with(text), |_| ()), "the kernel parameters, component 6, are no text");
    }
    for form in ["UUID=", "luks-", "rd.luks.uuid="] {
        checked(&with(format!("quiet {form}{UUID} ro").as_bytes()).build(), 512).unwrap();
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_a_device_error() {
    struct Broken(Vec<u8>);
    impl ReadAt for Broken {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, into: &mut [u8], offset: u64) -> Result<()> {
            if offset >= BOOT { Err(Error::device("the cable is out")) } else { self.0.read_at(into, offset) }
        }
    }
    let error = check(&Broken(plan().build().bytes), 512, &CLEAR, &[]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Device, "the cable is out"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..8192)) {
        let disk = [&b"zIPL\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\0\0\0"[..], &bytes].concat();
        let all = 0..disk.len() as u64;
        prop_assert!(check(&disk, 512, std::slice::from_ref(&all), &[]).is_err());
        prop_assert!(check(&bytes, 4096, &[all], &[]).is_err());
    }

    #[test]
    fn damage_is_refused_or_changes_nothing_that_matters(
        small in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let block_size = if small { 512 } else { 4096 };
        let mut disk = Plan { block_size, menu: 1, signed: true, ..plan() }.build();
        // Where the tables are, so that damage meets them.
        let mut places: Vec<usize> = (0..32).chain(disk.program_table..disk.program_table + 64).collect();
        places.extend(disk.component_table..disk.execute + 32);
        places.extend(disk.segments.iter().flat_map(|table| *table..table + block_size as usize));
        for (place, byte) in damage {
            disk.put(*place.get(&places), &[byte]);
        }
        match checked(&disk, block_size) {
            Ok(boot) => prop_assert!(boot.kernel > 0 && !boot.to_string().is_empty()),
            Err(error) => prop_assert!(error.kind() == Kind::Image && error.hint().is_some(), "{error:?}"),
        }
    }
}
