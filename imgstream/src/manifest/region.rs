//! Regions: named ranges of the raw image, and what LUKS makes of an encrypted one. `docs/format.md` §4.3 and §8.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::strict;
use crate::digest::Digest;

/// A LUKS header's least length in bytes.
pub const MIN_LUKS_HEADER: u64 = 1 << 20;
/// What a LUKS header's length is a multiple of, in bytes.
pub const LUKS_HEADER_UNIT: u64 = 4096;

/// A named range of the raw image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name, unique in the image.
    pub name: String,
    /// First raw byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Whether a `split` layout puts it inside LUKS.
    pub encrypt: bool,
    /// LUKS facts; present exactly when `encrypt`.
    #[serde(default, with = "strict::optional_object", skip_serializing_if = "Option::is_none")]
    pub luks: Option<Luks>,
}

impl Region {
    /// The raw bytes at the end of an encrypted region that a `split` layout has no place for, and which must be zeros: the LUKS
    /// header takes as much room at the start of the region's slot.
    pub fn without_place(&self) -> Option<Range<u64>> {
        let end = self.offset + self.length;
        self.luks.as_ref().map(|luks| end - luks.header_bytes..end)
    }
}

/// What an encrypted region's LUKS2 container will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Luks {
    /// UUID of the container, which boot parameters inside the image name.
    pub uuid: String,
    /// Bytes its header takes at the start of the region's slot. The same number of bytes at the end of the raw region is
    /// not part of its file system, so that header and content fit the slot together.
    pub header_bytes: u64,
}

impl Luks {
    pub(super) fn is_sane(&self, region_length: u64) -> bool {
        let header = self.header_bytes;
        is_uuid(&self.uuid)
            && header.is_multiple_of(LUKS_HEADER_UNIT)
            && (MIN_LUKS_HEADER..region_length).contains(&header)
    }
}

/// Whether a text is a UUID as descriptors have it: lower-case hex digits in groups of 8-4-4-4-12.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// The UUID of the container of `region` in the image `image`, where nobody gives one: of version 8, from the SHA-256 of both
/// names with a slash between them, so that it is the same in every version of the image.
pub fn derived_uuid(image: &str, region: &str) -> String {
    let digest = Digest::of(format!("{image}/{region}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uuid_is_the_names_and_says_that_it_is_custom() {
        // printf debian-13/root | sha256sum
        assert_eq!(derived_uuid("debian-13", "root"), "2b5ee652-6131-83ac-b0d6-cc7001f2a3dc");
        assert!(is_uuid(&derived_uuid("debian-13", "root")));
        assert_ne!(derived_uuid("debian-13", "root"), derived_uuid("debian-13", "home"));
        assert_ne!(derived_uuid("a-b", "c"), derived_uuid("a", "b-c"));
    }

    #[test]
    fn what_is_a_uuid_and_what_is_not() {
        assert!(is_uuid("6a7e1e3c-0001-4000-8000-000000000001"));
        for wrong in [
            "",
            "6A7E1E3C-0001-4000-8000-000000000001",
            "6a7e1e3c000140008000000000000001",
            "6a7e1e3c-0001-4000-80000-00000000001",
        ] {
            assert!(!is_uuid(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_the_end_of_an_encrypted_region_has_no_place() {
        let luks = Luks { uuid: String::new(), header_bytes: 1 << 20 };
        let clear = Region { name: "a".into(), offset: 4096, length: 4 << 20, encrypt: false, luks: None };
        assert_eq!(clear.without_place(), None);
        let encrypted = Region { encrypt: true, luks: Some(luks), ..clear };
        assert_eq!(encrypted.without_place(), Some(4096 + (3 << 20)..4096 + (4 << 20)));
    }
}
