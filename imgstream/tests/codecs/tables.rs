//! What a packer reads from a raw image: partition tables and boot records.

use std::io;

use imgstream::manifest::boot::detect;
use imgstream::manifest::descriptor;
use imgstream::manifest::partitions::{Partition, read_table, regions};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::damage::{damaged, edits};

const SECTOR: usize = 512;
const SECTORS: u64 = 64;

fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> + '_ {
    |at, into| {
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let from = bytes.get(at..).and_then(|rest| rest.get(..into.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }
}

/// An image of 64 sectors with a GPT of partitions from a sector to a sector.
fn gpt(partitions: &[(String, u64, u64)]) -> Vec<u8> {
    let mut image = vec![0; SECTORS as usize * SECTOR];
    image[SECTOR..SECTOR + 8].copy_from_slice(b"EFI PART");
    image[SECTOR + 72] = 2;
    image[SECTOR + 80..SECTOR + 88].copy_from_slice(&[8, 0, 0, 0, 128, 0, 0, 0]);
    for (number, (name, first, last)) in partitions.iter().enumerate() {
        let entry = &mut image[2 * SECTOR + 128 * number..][..128];
        entry[..16].fill(1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        let utf16 = name.encode_utf16().flat_map(u16::to_le_bytes);
        entry[56..].iter_mut().zip(utf16).for_each(|(place, byte)| *place = byte);
    }
    image
}

fn partitions() -> impl Strategy<Value = Vec<(String, u64, u64)>> {
    let name = prop_oneof!["\\PC{0,36}", "partition-[1-4]", "(gap-1|end|disk|partition-table|ROOT|root)"];
    let number = prop_oneof![0..SECTORS, Just(0), Just(u64::MAX), Just(u64::MAX / 512), Just(1 << 55), any::<u64>()];
    let wild = vec((name, number.clone(), number), 0..5);
    let tame = vec(("partition-[1-4]|root|[A-Z é]{0,5}", 5..14u64), 0..5).prop_map(|parts| {
        let mut at = 6;
        let partition = |(name, len): (String, u64)| {
            at += len;
            (name, at - len, at - 2)
        };
        parts.into_iter().map(partition).collect()
    });
    prop_oneof![wild, tame]
}

/// Regions of an image are what a descriptor may say, or nothing could be packed.
fn can_be_described(partitions: &[Partition], raw_size: u64) {
    let regions = regions(partitions, raw_size, &[]);
    let mut names = std::collections::HashSet::new();
    let mut end = 0;
    for region in &regions {
        descriptor::check_name(&region.name).unwrap();
        assert!(names.insert(&region.name), "two regions are called {}: {partitions:?}", region.name);
        assert!(region.offset == end && region.length > 0 && region.length % 512 == 0, "{region:?}");
        end += region.length;
    }
    assert_eq!(end, raw_size);
}

proptest! {
    #[test]
    fn any_gpt_is_an_error_or_gives_regions_that_can_be_described(partitions in partitions(), edits in edits()) {
        let image = gpt(&partitions);
        for image in [damaged(&image, &edits), image] {
            let raw_size = (image.len() / SECTOR * SECTOR) as u64;
            if let Ok(table) = read_table(raw_size, 512, reader(&image)) {
                can_be_described(&table.partitions, raw_size);
            }
        }
    }

    #[test]
    fn any_mbr_is_an_error_or_gives_regions_that_can_be_described(
        entries in vec((0..3u8, prop_oneof![0..70u32, any::<u32>()], prop_oneof![0..70u32, any::<u32>()]), 4),
    ) {
        let mut image = vec![0; SECTORS as usize * SECTOR];
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (number, (kind, start, count)) in entries.into_iter().enumerate() {
            let entry = &mut image[446 + 16 * number..][..16];
            entry[4] = kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..].copy_from_slice(&count.to_le_bytes());
        }
        if let Ok(table) = read_table(image.len() as u64, 512, reader(&image)) {
            can_be_described(&table.partitions, image.len() as u64);
        }
    }

    #[test]
    fn boot_facts_lie_inside_the_image(
        mut record in vec(any::<u8>(), 512),
        ours in any::<bool>(),
        block in prop_oneof![0..9000u64, any::<u64>()],
        size in prop_oneof![Just(512u16), any::<u16>()],
        raw_size in prop_oneof![512..(8u64 << 20), any::<u64>()],
    ) {
        if ours {
            record[..4].copy_from_slice(b"zIPL");
            record[16..24].copy_from_slice(&block.to_be_bytes());
            record[24..26].copy_from_slice(&size.to_be_bytes());
        }
        let table = |at: u64, into: &mut [u8]| {
            assert!(at.checked_add(into.len() as u64).is_some_and(|end| end <= raw_size), "read beyond the image");
            into.copy_from_slice(b"zIPL");
            Ok(())
        };
        let record: [u8; 512] = record.try_into().unwrap();
        if let Ok(Some(facts)) = detect(&record, raw_size, table).unwrap() {
            prop_assert!(ours && facts.map_length > 0);
            prop_assert!(facts.map_offset > 0 && facts.map_offset + facts.map_length <= raw_size);
        }
    }
}

#[test]
fn a_partition_of_all_sectors_there_can_be_is_an_error() {
    let image = gpt(&[("root".into(), 0, u64::MAX)]);
    let refused = read_table(image.len() as u64, 512, reader(&image)).unwrap_err();
    assert!(refused.to_string().contains("partition 1"), "{refused}");
}

/// What a partition without a name is called is not taken by one that has it for a name.
#[test]
fn a_partition_may_be_called_like_another_ones_number() {
    let image = gpt(&[("partition-2".into(), 6, 9), (String::new(), 11, 14)]);
    let table = read_table(image.len() as u64, 512, reader(&image)).unwrap();
    can_be_described(&table.partitions, image.len() as u64);
}
