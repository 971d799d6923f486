//! LUKS headers on a disk: where they lie, and how many bytes from there can hold key slots.
//!
//! Only what erasing needs; nothing here opens a volume. Sources: "LUKS1 On-Disk Format Specification" 1.2.3 and "LUKS2
//! On-Disk Format Specification" 1.1.1; all integers big-endian.

use serde_json::Value;

/// Bytes at the start of a header that say what it is.
pub const PROBE: usize = 4096;
/// Headers start at multiples of this: so do partitions and logical volumes of every tool of the last fifteen years.
pub const GRID: u64 = 1 << 20;
/// Where the spare header of LUKS2 lies after the first one, as cryptsetup makes it unless told otherwise.
pub const SPARE: u64 = 16 << 10;
/// Where a header does not say how long its key area is: cryptsetup's default for LUKS2, and more than LUKS1 ever has.
const USUAL_KEY_AREA: u64 = 16 << 20;
/// No key area is larger: LUKS2 allows 4 MiB of metadata, twice, and 128 MiB of key slots.
const MAX_KEY_AREA: u64 = 136 << 20;

/// A LUKS header that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u16,
    /// Bytes from its start that hold metadata and key slots.
    pub key_area: u64,
}

/// Whether `start` (at least [`PROBE`] bytes) begins a LUKS header. `read_more` gives the header's first bytes up to a
/// length, where they can be read: the metadata of LUKS2 say how far its key slots reach.
pub fn probe(start: &[u8], read_more: impl FnOnce(usize) -> Option<Vec<u8>>) -> Option<Header> {
    let (magic, rest) = start.split_first_chunk::<6>()?;
    // The second is what LUKS2 starts its spare header with: with it alone, the keys can be had again.
    if ![b"LUKS\xba\xbe", b"SKUL\xba\xbe"].contains(&magic) {
        return None;
    }
    let version = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let key_area = match version {
        1 => payload_of_luks1(start),
        _ => key_slots_of_luks2(start, read_more),
    };
    Some(Header { version, key_area: key_area.unwrap_or(USUAL_KEY_AREA).clamp(USUAL_KEY_AREA, MAX_KEY_AREA) })
}

/// LUKS1: `payload-offset`, in sectors of 512 bytes, at byte 104.
fn payload_of_luks1(start: &[u8]) -> Option<u64> {
    let sectors = u32::from_be_bytes(start.get(104..108)?.try_into().ok()?);
    Some(u64::from(sectors) * 512)
}

/// LUKS2: `hdr_size` at byte 8 covers binary header and JSON; the JSON names every key slot's area.
fn key_slots_of_luks2(start: &[u8], read_more: impl FnOnce(usize) -> Option<Vec<u8>>) -> Option<u64> {
    let header_size = u64::from_be_bytes(start.get(8..16)?.try_into().ok()?);
    let metadata = read_more(usize::try_from(header_size).ok().filter(|size| (PROBE..=4 << 20).contains(size))?)?;
    let json = metadata.get(4096..)?.split(|byte| *byte == 0).next()?;
    let metadata: Value = serde_json::from_slice(json).ok()?;
    let number = |value: &Value| value.as_str()?.parse::<u64>().ok();
    let slots = metadata["keyslots"].as_object()?.values();
    let ends = slots.filter_map(|slot| number(&slot["area"]["offset"])?.checked_add(number(&slot["area"]["size"])?));
    // Two copies of the metadata come before the slots.
    ends.chain([2 * header_size]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luks1(payload_sectors: u32) -> Vec<u8> {
        let mut start = vec![0; PROBE];
        start[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        start[104..108].copy_from_slice(&payload_sectors.to_be_bytes());
        start
    }

    fn luks2(json: &str) -> Vec<u8> {
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384u64.to_be_bytes());
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        header
    }

    fn found(header: &[u8]) -> Option<Header> {
        probe(&header[..PROBE], |len| header.get(..len).map(<[u8]>::to_vec))
    }

    #[test]
    fn key_areas_reach_as_far_as_the_header_says() {
        assert_eq!(found(&luks1(65_536)), Some(Header { version: 1, key_area: 32 << 20 }));
        let slots = r#"{"keyslots":{"0":{"area":{"offset":"32768","size":"258048"}},"1":{"area":{"offset":"33554432","size":"1048576"}}}}"#;
        assert_eq!(found(&luks2(slots)), Some(Header { version: 2, key_area: 33 << 20 }));
    }

    #[test]
    fn what_a_header_does_not_say_or_lies_about_is_bounded() {
        for header in [luks1(0), luks2("{"), luks2(r#"{"keyslots":{"0":{"area":{"offset":"-1","size":"x"}}}}"#)] {
            assert_eq!(found(&header).map(|header| header.key_area), Some(USUAL_KEY_AREA));
        }
        assert_eq!(found(&luks1(u32::MAX)).map(|header| header.key_area), Some(MAX_KEY_AREA));
        let absurd = r#"{"keyslots":{"0":{"area":{"offset":"18446744073709551615","size":"2"}}}}"#;
        assert_eq!(found(&luks2(absurd)).map(|header| header.key_area), Some(USUAL_KEY_AREA));
    }

    #[test]
    fn other_bytes_are_no_header() {
        assert_eq!(found(&[0; PROBE]), None);
        assert_eq!(probe(b"LUKS\xba\xbe", |_| None), None);
        assert_eq!(probe(b"LU", |_| None), None);
    }
}
