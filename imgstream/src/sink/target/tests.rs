use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::sink::OpenOptions;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A file of so many bytes, in a directory of its own: one that is still open is locked.
fn device(dir: &TempDir, name: &str, size: u64) -> Device {
    let path = tempfile::tempdir_in(dir).unwrap().keep().join(name);
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    Device::open(&path, OpenOptions { buffered: false, create: false, raw_size: size }).unwrap()
}

/// On a disk: /tmp may be memory.
fn on_disk() -> TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn on(device: usize, raw_offset: u64, len: u64, offset: u64) -> Extent {
    let place = Place::Device { device, offset, zero: ZeroPolicy::Device, skip_holes: false };
    Extent { raw_offset, len, place }
}

fn nowhere(raw_offset: u64, len: u64) -> Extent {
    Extent { raw_offset, len, place: Place::Nowhere }
}

fn refusal(outcome: Result<Target>) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Target, "{error}");
    error.to_string()
}

#[test]
fn a_map_that_contradicts_itself_is_refused() {
    let dir = on_disk();
    let try_map = |extents: &[Extent]| {
        let devices = vec![device(&dir, "one", 16 * BLOCK), device(&dir, "two", 16 * BLOCK)];
        Target::new(devices, extents.to_vec(), 0)
    };
    assert!(try_map(&[on(0, 0, 2 * BLOCK, 0), nowhere(2 * BLOCK, BLOCK), on(1, 3 * BLOCK, 7, 0)]).is_ok());
    let wrong: [(&[Extent], &str); 9] = [
        (&[on(0, BLOCK, BLOCK, 0)], "extent 0 does not follow"),
        (&[on(0, 0, BLOCK, 0), on(0, 2 * BLOCK, BLOCK, BLOCK)], "extent 1 does not follow"),
        (&[on(0, 0, BLOCK, 0), on(0, 0, BLOCK, BLOCK)], "extent 1 does not follow"),
        (&[on(0, 0, BLOCK, 0), nowhere(BLOCK, 0)], "extent 1 does not follow"),
        (&[on(2, 0, BLOCK, 0)], "device 2, which is not there"),
        (&[on(0, 0, 17 * BLOCK, 0)], "holds 65536 bytes, the image needs 69632"),
        (&[on(0, 0, BLOCK, u64::MAX)], "has no end"),
        (&[on(0, 0, BLOCK, 0), on(1, BLOCK, BLOCK, 0), on(0, 2 * BLOCK, BLOCK, 0)], "share the byte at offset 0"),
        (&[nowhere(0, u64::MAX), nowhere(u64::MAX, 9)], "no end"),
    ];
    for (extents, words) in wrong {
        let said = refusal(try_map(extents));
        assert!(said.contains(words), "{said} does not say {words:?}");
    }
    assert!(refusal(Target::new(Vec::new(), Vec::new(), 0)).contains("device 0 is not there"));
    let (one, blocks) = (device(&dir, "one", 16 * BLOCK), [on(0, 0, 100, 0), on(0, 100, BLOCK, BLOCK)]);
    if one.alignment() > 1 {
        assert!(refusal(Target::new(vec![one], blocks.to_vec(), 0)).contains("whole blocks"));
    }
}

#[test]
fn what_lies_beyond_the_image_is_at_home() {
    let dir = on_disk();
    let large = || device(&dir, "large", 64 * BLOCK);
    let other = || device(&dir, "other", 16 * BLOCK);
    let single = Target::single(large(), 8 * BLOCK);
    assert_eq!((single.beyond(), single.home_zero()), (Some(8 * BLOCK..64 * BLOCK), ZeroPolicy::Device));
    let place = Place::Device { device: 0, offset: 0, zero: ZeroPolicy::Write, skip_holes: true };
    let inside = vec![Extent { raw_offset: 0, len: 8 * BLOCK, place }];
    let whole = Target::new(vec![large()], inside, 0).unwrap();
    assert_eq!((whole.beyond(), whole.home_zero()), (Some(8 * BLOCK..64 * BLOCK), ZeroPolicy::Write));
    let split = [on(1, 0, BLOCK, 0), on(0, BLOCK, BLOCK, 0), on(1, 2 * BLOCK, BLOCK, 2 * BLOCK)];
    let target = Target::new(vec![other(), large()], split.to_vec(), 1).unwrap();
    assert_eq!(target.beyond(), Some(3 * BLOCK..64 * BLOCK));
    assert!(target.home_number() == 1 && target.home().name().ends_with("/large"));
    // Somewhere else on it, or with its start on another device, its partition table says nothing about that device.
    for elsewhere in
        [[on(0, 0, BLOCK, 0), on(0, BLOCK, BLOCK, 2 * BLOCK)], [on(1, 0, BLOCK, 0), on(0, BLOCK, BLOCK, BLOCK)]]
    {
        assert_eq!(Target::new(vec![large(), other()], elsewhere.to_vec(), 0).unwrap().beyond(), None);
    }
}

/// A LUN with a region of 8 MiB inside LUKS, of which 2 MiB have no place, between clear ones.
fn split(dir: &TempDir, lun: u64, mapping: u64) -> Result<Target> {
    let devices = vec![device(dir, "lun", lun), device(dir, "root", mapping)];
    let inside = Place::Device { device: 1, offset: 0, zero: ZeroPolicy::Write, skip_holes: true };
    let extents = vec![
        on(0, 0, MIB, 0),
        on(0, MIB, 3 * MIB, MIB),
        Extent { raw_offset: 4 * MIB, len: 6 * MIB, place: inside },
        nowhere(10 * MIB, MIB),
        nowhere(11 * MIB, MIB),
        on(0, 12 * MIB, MIB, 12 * MIB),
    ];
    Target::new(devices, extents, 0)
}

#[test]
fn what_continues_is_one_extent() {
    let target = split(&on_disk(), 20 * MIB, 6 * MIB).unwrap();
    let ranges: Vec<_> = target.extents.iter().map(|extent| (extent.raw_offset / MIB, extent.len / MIB)).collect();
    assert_eq!(ranges, [(0, 4), (4, 6), (10, 2), (12, 1)]);
    assert_eq!((target.beyond(), target.home_zero()), (Some(13 * MIB..20 * MIB), ZeroPolicy::Device));
}

#[test]
fn pieces_of_one_device_are_the_device() {
    let dir = on_disk();
    let lens = |raw_size, count| -> Vec<u64> {
        let target = Target::in_pieces(device(&dir, "lun", 4 * MIB), raw_size, count);
        assert_eq!((target.raw_len(), target.beyond()), (raw_size, Some(raw_size..4 * MIB)));
        let at_its_offset =
            |extent: &Extent| matches!(extent.place, Place::Device { offset, .. } if offset == extent.raw_offset);
        assert!(target.extents.iter().all(at_its_offset));
        target.extents.iter().map(|extent| extent.len).collect()
    };
    assert_eq!(lens(MIB + 512, 1), [MIB + 512]);
    assert_eq!(lens(MIB + 512, 3), [348_160, 348_160, 352_768]);
    assert_eq!(lens(3 * BLOCK, 100), [BLOCK; 3]);
    assert_eq!(lens(512, 9), [512]);
}

#[test]
fn each_device_must_hold_its_part_and_the_lun_the_slots_as_well() {
    let dir = on_disk();
    split(&dir, 13 * MIB, 6 * MIB).unwrap().check_fits(13 * MIB, 512).unwrap();
    let other_image = split(&dir, 20 * MIB, 6 * MIB).unwrap().check_fits(18 * MIB, 512).unwrap_err();
    assert!(other_image.to_string().contains("laid out for an image of 13631488"), "{other_image}");
    let said = refusal(split(&dir, 20 * MIB, 6 * MIB - BLOCK));
    assert!(said.contains("root holds 6287360 bytes, the image needs 6291456"), "{said}");
    // An encrypted region at the image's end has no byte on the LUN, but its slot is there.
    let devices = vec![device(&dir, "lun", 3 * MIB), device(&dir, "root", MIB)];
    let extents = vec![on(0, 0, MIB, 0), on(1, MIB, MIB, 0), nowhere(2 * MIB, 2 * MIB)];
    let said = Target::new(devices, extents, 0).unwrap().check_fits(4 * MIB, 512).unwrap_err().to_string();
    assert!(said.contains("lun holds 3145728 bytes, the image needs 4194304"), "{said}");
}

#[test]
fn bytes_without_a_place_must_be_zeros() {
    let dir = on_disk();
    let devices = vec![device(&dir, "lun", 16 * BLOCK), device(&dir, "root", 2 * BLOCK)];
    let extents = [on(0, 0, 2 * BLOCK, 0), on(1, 2 * BLOCK, 2 * BLOCK, 0), nowhere(4 * BLOCK, 4 * BLOCK)];
    let end = on(0, 8 * BLOCK, 2 * BLOCK, 8 * BLOCK);
    let target = Target::new(devices, [&extents[..], &[end]].concat(), 0).unwrap();
    let mut chunk = vec![7; 8 * BLOCK as usize];
    chunk[2 * BLOCK as usize..6 * BLOCK as usize].fill(0);
    target.check_placeable(2 * BLOCK, &chunk).unwrap();
    chunk[6 * BLOCK as usize - 1] = 1;
    let error = target.check_placeable(2 * BLOCK, &chunk).unwrap_err();
    let said = error.to_string();
    assert_eq!(error.kind(), crate::error::Kind::Image);
    assert!(said.contains("byte 32767 of the image") && said.contains("region at raw offset 8192"), "{said}");
    assert!(said.contains("LUKS header lies there"), "{said}");
    target.check_placeable(8 * BLOCK, &chunk[..BLOCK as usize]).unwrap();
}

#[test]
fn a_largest_write_is_whole_blocks() {
    let dir = on_disk();
    let plain = device(&dir, "file", BLOCK);
    let block = plain.alignment();
    assert_eq!(plain.largest_write(), None);
    let limited = plain.with_largest_write(128 << 10);
    assert_eq!(limited.largest_write(), Some(128 << 10));
    let odd = limited.with_largest_write((64 << 10) + 1);
    assert_eq!(odd.largest_write(), Some((64 << 10) + usize::from(block == 1)));
    assert_eq!(odd.with_largest_write(0).largest_write(), Some(block));
}

/// Extents of any length, in any places.
fn any_map() -> impl Strategy<Value = Vec<Extent>> {
    let place = prop_oneof![
        3 => (0usize..3, 0u64..1 << 40).prop_map(|(device, offset)| Place::Device {
            device,
            offset,
            zero: ZeroPolicy::Write,
            skip_holes: device == 1,
        }),
        1 => Just(Place::Nowhere),
    ];
    proptest::collection::vec((1u64..5000, place), 1..40).prop_map(|extents| {
        let mut end = 0;
        let at = |(len, place)| {
            let extent = Extent { raw_offset: end, len, place };
            end += len;
            extent
        };
        extents.into_iter().map(at).collect()
    })
}

proptest! {
    /// Whatever the map and the range: the pieces are the range, in order, and each lies where its extent says.
    #[test]
    fn the_pieces_of_a_range_cover_it_exactly_and_in_order(
        extents in any_map(),
        (from, to) in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let len = extents.iter().map(|extent| extent.len).sum::<u64>();
        let at = |share: f64| (share * (len + 1) as f64) as u64;
        let (start, end) = (at(from.min(to)), at(from.max(to)));
        let target = Target {
            devices: Vec::new().into(),
            extents: extents.clone(),
            home: 0,
            home_zero: ZeroPolicy::Write,
            beyond: None,
            has_nowhere: true,
        };
        let pieces: Vec<Extent> = target.map(start..end).collect();
        let mut next = start;
        for piece in &pieces {
            prop_assert_eq!(piece.raw_offset, next);
            prop_assert!(piece.len > 0);
            next = piece.end();
            let whole = extents.iter().find(|extent| (extent.raw_offset..extent.end()).contains(&piece.raw_offset));
            let whole = whole.unwrap();
            prop_assert!(piece.end() <= whole.end());
            match (piece.place, whole.place) {
                (
                    Place::Device { device, offset, zero, skip_holes },
                    Place::Device { device: of, offset: from, zero: how, skip_holes: skips },
                ) => {
                    prop_assert_eq!((device, zero, skip_holes), (of, how, skips));
                    prop_assert_eq!(offset - from, piece.raw_offset - whole.raw_offset);
                }
                (one, other) => prop_assert_eq!(one, other),
            }
        }
        prop_assert_eq!(next, end.min(len).max(start));
    }
}
