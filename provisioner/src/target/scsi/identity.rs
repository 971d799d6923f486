//! Who a LUN says it is: the designators of VPD page 0x83, in the words of dm-multipath.
//!
//! Asked of the device itself, path by path. What udev, sysfs and multipath remember was asked when the path appeared, and the
//! storage may show another LUN under the same address by now. Source: SPC-4, 7.8.6; the words are those of udev's `scsi_id`,
//! which multipath takes its WWIDs from: one digit for the kind of designator, then the designator.

use std::fs::File;

use super::sg::{self, ScsiError};

/// A page of this length holds more designators than any storage has.
const PAGE_LEN: usize = 2048;

/// The WWIDs by which the LUN below `device` may be called.
///
/// # Errors
/// [`ScsiError`] when it does not say.
pub fn wwids(device: &File) -> Result<Vec<String>, ScsiError> {
    let mut page = vec![0; PAGE_LEN];
    let len = (PAGE_LEN as u16).to_be_bytes();
    // INQUIRY, EVPD, page 0x83.
    let read = sg::read(device, &[0x12, 0x01, 0x83, len[0], len[1], 0], &mut page)?;
    Ok(wwids_of(&page[..read]))
}

fn wwids_of(page: &[u8]) -> Vec<String> {
    let Some([_, 0x83, high, low]) = page.first_chunk::<4>() else { return Vec::new() };
    let end = (4 + usize::from(u16::from_be_bytes([*high, *low]))).min(page.len());
    let mut rest = &page[4..end];
    let mut found = Vec::new();
    while let Some(([code_set, association_and_kind, _, len], more)) = rest.split_first_chunk::<4>() {
        let Some((designator, behind)) = more.split_at_checked(usize::from(*len)) else { break };
        rest = behind;
        // Only what names the LUN itself: others name the port it is reached through.
        if association_and_kind >> 4 & 0x3 == 0 {
            found.extend(wwid_of(code_set & 0x0f, association_and_kind & 0x0f, designator));
        }
    }
    found
}

fn wwid_of(code_set: u8, kind: u8, designator: &[u8]) -> Option<String> {
    const BINARY: u8 = 1;
    let hex = || designator.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (kind, code_set) {
        (2 | 3, BINARY) => Some(format!("{kind}{}", hex())),
        // A SCSI name string is UTF-8, padded with zeros.
        (8, _) => Some(format!("8{}", String::from_utf8_lossy(designator).trim_end_matches('\0'))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(designators: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (code_set, kind, designator) in designators {
            list.extend([*code_set, *kind, 0, designator.len() as u8]);
            list.extend(*designator);
        }
        let mut page = vec![0, 0x83];
        page.extend((list.len() as u16).to_be_bytes());
        page.extend(list);
        page
    }

    #[test]
    fn naa_eui_and_names_of_the_lun_are_found() {
        let naa = [0x60, 0x05, 0x07, 0x63, 0x07, 0xff, 0xd7, 0xd7, 0, 0, 0, 0, 0, 0, 0, 0x1a];
        let name = b"naa.600\0";
        let found = wwids_of(&page(&[(2, 1, b"IBM     2107900"), (1, 3, &naa), (1, 2, &[1; 8]), (3, 8, name)]));
        assert_eq!(found, ["36005076307ffd7d7000000000000001a", "20101010101010101", "8naa.600"]);
    }

    #[test]
    fn what_names_a_port_is_not_the_lun() {
        assert_eq!(wwids_of(&page(&[(1, 0x93, &[5; 8]), (1, 0x94, &[0, 0, 0, 1])])), Vec::<String>::new());
    }

    #[test]
    fn pages_cut_short_or_of_another_kind_name_nothing_wrong() {
        let whole = page(&[(1, 3, &[0x60; 16]), (1, 3, &[0x61; 16])]);
        for len in 0..whole.len() {
            let found = wwids_of(&whole[..len]);
            assert!(found.iter().all(|wwid| wwid.len() == 33), "{found:?}");
        }
        assert_eq!(wwids_of(&[0, 0x80, 0, 4, 1, 3, 0, 0]), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn no_page_panics(page in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = wwids_of(&page);
        }
    }
}
