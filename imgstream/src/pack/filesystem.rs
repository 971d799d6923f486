//! How far a file system reaches, by its superblock: whether it leaves the end of its partition free. Only the three that Linux
//! is installed on. Sources: Linux, `fs/ext4/ext4.h` (`ext4_super_block`, little-endian), `fs/xfs/libxfs/xfs_format.h` (`xfs_dsb`,
//! big-endian), `include/uapi/linux/btrfs_tree.h` (`btrfs_super_block`, little-endian).

use std::io;

use crate::little_endian::{array_at, u32_at, u64_at};

/// The kinds whose superblock is understood, as a message names them.
pub(super) const KNOWN: &str = "ext2, ext3, ext4, XFS and btrfs";

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ext2, ext3 or ext4.
    Ext,
    Xfs,
    Btrfs,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Ext => "ext2/3/4",
            Kind::Xfs => "XFS",
            Kind::Btrfs => "btrfs",
        }
    }

    /// How one is made no larger than `bytes`.
    pub(super) fn remedy(self, bytes: u64) -> String {
        match self {
            Kind::Ext => format!("`resize2fs PARTITION {}K` (after `e2fsck -f PARTITION`)", bytes / 1024),
            Kind::Xfs => format!("XFS does not shrink: make it anew with `mkfs.xfs -d size={bytes}`"),
            Kind::Btrfs => format!("`btrfs filesystem resize {bytes} MOUNTPOINT`"),
        }
    }
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) kind: Kind,
    /// Bytes from the partition's start that belong to it.
    pub(super) bytes: u64,
}

/// The file system of a partition of `length` bytes; `None` for other content. `read` fills from an offset of the partition.
///
/// # Errors
/// Those of `read`, and `InvalidData` for a superblock that makes no sense.
pub(super) fn probe(
    length: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Option<FileSystem>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut block = [0; 4096];
    let mut found: Option<FileSystem> = None;
    for (at, look) in [(0, xfs as Look), (1024, ext), (65536, btrfs)] {
        if length < at + block.len() as u64 {
            continue;
        }
        read(at, &mut block)?;
        let Some((kind, bytes)) = look(&block) else { continue };
        // What an earlier file system left behind would be as believable as what is there now.
        if let Some(other) = found {
            let (one, other) = (other.kind.name(), kind.name());
            return Err(invalid(format!("it has a superblock of {one} and one of {other}")));
        }
        let bytes = bytes.filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or_else(|| invalid(format!("its {} superblock makes no sense", kind.name())))?;
        found = Some(FileSystem { kind, bytes });
    }
    Ok(found)
}

/// The kind, where its magic number is there, and the bytes, where they make sense.
type Look = fn(&[u8]) -> Option<(Kind, Option<u64>)>;

fn ext(block: &[u8]) -> Option<(Kind, Option<u64>)> {
    const IS_64_BIT: u32 = 0x80;
    if block[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    let high = if u32_at(block, 0x60) & IS_64_BIT == 0 { 0 } else { u32_at(block, 0x150) };
    let blocks = u64::from(high) << 32 | u64::from(u32_at(block, 4));
    let block_size = 10u32.checked_add(u32_at(block, 0x18)).filter(|log| *log <= 16).map(|log| 1u64 << log);
    Some((Kind::Ext, block_size.and_then(|size| blocks.checked_mul(size))))
}

fn xfs(block: &[u8]) -> Option<(Kind, Option<u64>)> {
    if &block[..4] != b"XFSB" {
        return None;
    }
    let block_size = u32::from_be_bytes(array_at(block, 4));
    let blocks = u64::from_be_bytes(array_at(block, 8));
    let size = Some(u64::from(block_size)).filter(|size| size.is_power_of_two() && (512..=65536).contains(size));
    Some((Kind::Xfs, size.and_then(|size| blocks.checked_mul(size))))
}

fn btrfs(block: &[u8]) -> Option<(Kind, Option<u64>)> {
    if &block[0x40..0x48] != b"_BHRfS_M" {
        return None;
    }
    // Of several devices each has a part, and what lies on the others is not in this image.
    let is_alone = u64_at(block, 0x88) == 1;
    let this_device = u64_at(block, 0xc9 + 8);
    Some((Kind::Btrfs, is_alone.then_some(this_device)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 1 << 20;

    fn probed(bytes: &[u8]) -> io::Result<Option<FileSystem>> {
        probe(bytes.len() as u64, |at, into| {
            into.copy_from_slice(&bytes[at as usize..][..into.len()]);
            Ok(())
        })
    }

    fn disk(edits: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = vec![0; LENGTH as usize];
        edits.iter().for_each(|(at, bytes)| disk[*at..][..bytes.len()].copy_from_slice(bytes));
        disk
    }

    fn found(edits: &[(usize, &[u8])]) -> Option<FileSystem> {
        probed(&disk(edits)).unwrap()
    }

    #[test]
    fn sizes_are_read_in_each_ones_own_byte_order() {
        let ext = (1024 + 0x38, &[0x53, 0xef][..]);
        let low = (1024 + 4, &[1, 2, 0, 0][..]);
        let log = (1024 + 0x18, &[2, 0, 0, 0][..]);
        let high = (1024 + 0x150, &[1, 0, 0, 0][..]);
        let wide = (1024 + 0x60, &[0x80, 0, 0, 0][..]);
        assert_eq!(found(&[ext, low, log, high]), Some(FileSystem { kind: Kind::Ext, bytes: 513 << 12 }));
        let large = ((1 << 32) + 513) << 12;
        assert_eq!(found(&[ext, low, log, high, wide]), Some(FileSystem { kind: Kind::Ext, bytes: large }));
        let xfs = [(0, &b"XFSB\0\0\x10\0\0\0\0\0\0\0\x02\x01"[..])];
        assert_eq!(found(&xfs), Some(FileSystem { kind: Kind::Xfs, bytes: 513 << 12 }));
        let btrfs = [
            (65536 + 0x40, &b"_BHRfS_M"[..]),
            (65536 + 0x88, &[1, 0, 0, 0, 0, 0, 0, 0]),
            (65536 + 0xc9 + 8, &[0, 0x10, 0x20, 0, 0, 0, 0, 0]),
        ];
        assert_eq!(found(&btrfs), Some(FileSystem { kind: Kind::Btrfs, bytes: 0x20_1000 }));
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn a_superblock_without_sense_is_an_error() {
        let ext = (1024 + 0x38, &[0x53, 0xef][..]);
        let two_devices = [(65536 + 0x40, &b"_BHRfS_M"[..]), (65536 + 0x88, &[2]), (65536 + 0xc9 + 10, &[1])];
        let senseless: [&[(usize, &[u8])]; 4] = [
            &[ext],
            &[ext, (1024 + 4, &[1]), (1024 + 0x18, &[7])],
            &[(0, b"XFSB\0\0\x10\x01\0\0\0\0\0\0\x02\x01")],
            &two_devices,
        ];
        for edits in senseless {
            assert!(probed(&disk(edits)).unwrap_err().to_string().contains("makes no sense"), "{edits:?}");
        }
    }

    #[test]
    fn two_superblocks_are_an_error() {
        let both = [(0, &b"XFSB\0\0\x10\0\0\0\0\0\0\0\x02\x01"[..]), (1024 + 0x38, &[0x53, 0xef])];
        assert!(probed(&disk(&both)).unwrap_err().to_string().contains("of XFS and one of ext2/3/4"));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..72_000),
            magic in 0..4usize,
        ) {
            let (at, what): (usize, &[u8]) =
                [(0, &b""[..]), (0, b"XFSB"), (1080, &[0x53, 0xef]), (65600, b"_BHRfS_M")][magic];
            if let Some(place) = bytes.get_mut(at..at + what.len()) {
                place.copy_from_slice(what);
            }
            let _ = probed(&bytes);
        }
    }
}
