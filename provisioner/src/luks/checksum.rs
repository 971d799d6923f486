//! Whether a copy of LUKS2 metadata is as it was written: its own checksum is right.
//!
//! Anybody can compute it, so it says nothing about who wrote; it tells what a power cut has torn from what somebody has made.
//! Source: "LUKS2 On-Disk Format Specification" 1.1.1, 2.1; all integers big-endian.

use imgstream::digest::Digest;

const VERSION: std::ops::Range<usize> = 6..8;
const LENGTH: std::ops::Range<usize> = 8..16;
const ALGORITHM: std::ops::Range<usize> = 72..104;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// Whether `copy`, binary header and JSON, is whole. Only checksums by SHA-256 are known, which cryptsetup makes.
pub fn is_whole(copy: &[u8]) -> bool {
    let is =
        |place: std::ops::Range<usize>, wanted: &[u8]| copy.get(place).is_some_and(|found| found.starts_with(wanted));
    let begins = is(0..6, b"LUKS\xba\xbe") || is(0..6, b"SKUL\xba\xbe");
    if !begins || !is(VERSION, &2u16.to_be_bytes()) || !is(ALGORITHM, b"sha256\0") {
        return false;
    }
    let length = copy.get(LENGTH).and_then(|length| length.first_chunk()).map(|length| u64::from_be_bytes(*length));
    if length != u64::try_from(copy.len()).ok() || copy.len() < CHECKSUM.end {
        return false;
    }
    let mut unsigned = copy.to_vec();
    unsigned[CHECKSUM].fill(0);
    copy[CHECKSUM].starts_with(Digest::of(&unsigned).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> Vec<u8> {
        let mut copy = vec![0; 16 << 10];
        copy[..8].copy_from_slice(b"SKUL\xba\xbe\0\x02");
        copy[LENGTH].copy_from_slice(&(16u64 << 10).to_be_bytes());
        copy[72..78].copy_from_slice(b"sha256");
        copy[4096..4098].copy_from_slice(b"{}");
        let digest = Digest::of(&copy);
        copy[448..480].copy_from_slice(digest.as_bytes());
        copy
    }

    #[test]
    fn what_was_torn_is_told_from_what_was_made() {
        assert!(is_whole(&copy()));
        for at in [0, 7, 15, 73, 200, 449, 4097, 16383] {
            let mut torn = copy();
            torn[at] ^= 1;
            assert!(!is_whole(&torn), "byte {at}");
        }
        assert!(!is_whole(&copy()[..16383]) && !is_whole(&[]) && !is_whole(&copy()[..80]));
    }

    #[test]
    fn what_cryptsetup_makes_is_whole() {
        use std::process::Command;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(20 << 20).unwrap();
        let format = "printf key | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file -";
        let line = format!("PATH=$PATH:/usr/sbin:/sbin; {format} {}", file.path().display());
        let made = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let disk = std::fs::read(file.path()).unwrap();
        assert!(is_whole(&disk[..16 << 10]) && is_whole(&disk[16 << 10..32 << 10]));
    }
}
