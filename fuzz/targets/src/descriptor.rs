//! Descriptors: what is accepted keeps every rule of `docs/format.md`, section 4, that sizes and offsets later rest on.

use imgstream::manifest::{BlobRef, Descriptor, Region, Span};

/// Reads the bytes as a descriptor.
pub fn descriptor(data: &[u8]) -> bool {
    let found = match Descriptor::decode(data) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let raw_size = found.raw_size;
    assert!(raw_size > 0 && raw_size <= (1 << 63) - 4096 && raw_size.is_multiple_of(found.sector_size.into()));
    assert!(found.chunk_size.is_power_of_two() && (1 << 16..=1 << 23).contains(&found.chunk_size));
    covers(raw_size, found.regions.iter().map(|Region { offset, length, .. }| (*offset, *length)));
    covers(raw_size, found.spans.iter().map(|Span { raw_offset, raw_length, .. }| (*raw_offset, *raw_length)));
    found.regions.iter().for_each(has_room_for_its_header);
    assert!((1..=1 << 14).contains(&found.spans.len()));
    found.spans.iter().for_each(|span| blobs_are_bounded(span, found.chunk_size));
    let within = |offset: u64, length: u64| length > 0 && u128::from(offset) + u128::from(length) <= raw_size.into();
    if let Some(boot) = &found.boot {
        assert!(within(boot.record_offset, boot.record_length) && within(boot.map_offset, boot.map_length));
    }
    assert!(found.data_bytes() >= found.spans[0].data.size);
    let again = found.encode().expect("what was read can be written");
    assert_eq!(Descriptor::decode(&again), Ok(found), "what was written is what was read");
    true
}

/// Adjacent ranges, none of them empty, from 0 to `end`.
fn covers(end: u64, ranges: impl Iterator<Item = (u64, u64)>) {
    let mut at = 0u128;
    for (offset, length) in ranges {
        assert_eq!(u128::from(offset), at);
        assert!(length > 0);
        at += u128::from(length);
    }
    assert_eq!(at, end.into());
}

/// What an encrypted region has no place for is its end, and not all of it.
fn has_room_for_its_header(region: &Region) {
    let Region { offset, length, encrypt, luks, .. } = region;
    assert_eq!(*encrypt, luks.is_some());
    if let Some(end) = region.without_place() {
        assert!(end.start > *offset && end.end == offset + length && end.end - end.start >= 1 << 20);
    }
}

fn blobs_are_bounded(span: &Span, chunk_size: u32) {
    let chunks = span.raw_length.div_ceil(chunk_size.into());
    assert!((1..=1 << 16).contains(&chunks));
    let BlobRef { size, .. } = span.index;
    assert_eq!(size, 32 + 80 * chunks);
    assert!((1..1 << 63).contains(&span.data.size));
}
