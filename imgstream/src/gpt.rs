//! An image's GPT on a device that is larger than the image: the backup header and table belong at the device's end.
//!
//! A pure function of the image's own verified bytes and the device's size, so whoever knows both knows which bytes the
//! media must hold: writing, proving and resuming all use this. Nothing here does I/O. Source: UEFI specification 2.10,
//! chapter 5 (5.2.3 protective MBR, 5.3 GPT; all integers little-endian).

use std::ops::Range;

use crate::little_endian::{u32_at, u64_at};

/// Bytes of a partition table as everybody makes it: 128 entries of 128 bytes. Larger ones are not moved.
const MAX_TABLE: u64 = 128 * 128;
const SIGNATURE: &[u8; 8] = b"EFI PART";

/// Offsets of fields in the header.
mod field {
    pub const HEADER_SIZE: usize = 12;
    pub const HEADER_CRC: usize = 16;
    pub const MY_LBA: usize = 24;
    pub const ALTERNATE_LBA: usize = 32;
    pub const LAST_USABLE_LBA: usize = 48;
    pub const TABLE_LBA: usize = 72;
    pub const ENTRIES: usize = 80;
    pub const ENTRY_LEN: usize = 84;
    pub const TABLE_CRC: usize = 88;
}

/// Bytes at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    offset: u64,
    bytes: Vec<u8>,
}

impl Patch {
    /// Offset on the disk, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What belongs there.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// How the image's ends change, and what belongs at the end of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Changes inside the image, at its first sectors and in the last [`backup_len`] bytes: protective MBR, primary
    /// header, and zeros where the backup was.
    pub inside: Vec<Patch>,
    /// The backup table and header, in the device's last sectors, beyond the image.
    pub backup: Patch,
}

/// Why a GPT stays as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmovable(&'static str);

impl std::fmt::Display for Unmovable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// How many bytes at the end of an image, or of a device, a backup GPT may take: a header and a full table.
pub fn backup_len(sector_size: u32) -> u64 {
    u64::from(sector_size) + MAX_TABLE.next_multiple_of(sector_size.into())
}

/// What moving the GPT of an image to a device of `device_size` bytes changes. `head` is the image's start: at least its
/// first two sectors and its partition table. `None` where there is no GPT or nothing to move.
///
/// # Errors
/// Why the GPT cannot be moved: it contradicts itself, or is of a kind nobody makes.
pub fn relocate(head: &[u8], raw_size: u64, device_size: u64, sector_size: u32) -> Result<Option<Move>, Unmovable> {
    let sector = u64::from(sector_size);
    let len = sector_size as usize;
    if head.len() < 2 * len || !head[len..].starts_with(SIGNATURE) || device_size / sector <= raw_size / sector {
        return Ok(None);
    }
    if !raw_size.is_multiple_of(sector) {
        return Err(Unmovable("the image does not end with a whole sector"));
    }
    let primary = Header::read(&head[len..2 * len], head, raw_size)?;
    let last = device_size / sector - 1;
    let table_lba = last - primary.table_sectors;
    // The backup would lie partly inside the image, where a chunk of zeros may be that nobody fetches.
    if table_lba * sector < raw_size {
        return Err(Unmovable("the device is larger by less than a partition table"));
    }
    let old_backup = (primary.alternate - primary.table_sectors) * sector..raw_size;
    let mut inside = vec![
        Patch { offset: sector, bytes: primary.rewritten(1, last, table_lba - 1, primary.table_lba) },
        zeros(old_backup),
    ];
    inside.extend(protective_mbr(&head[..len], last));
    let mut backup = primary.table.to_vec();
    backup.resize((primary.table_sectors * sector) as usize, 0);
    backup.extend(primary.rewritten(last, 1, table_lba - 1, table_lba));
    Ok(Some(Move { inside, backup: Patch { offset: table_lba * sector, bytes: backup } }))
}

/// A primary header that has been checked.
struct Header<'a> {
    sector: &'a [u8],
    header_size: usize,
    alternate: u64,
    table_lba: u64,
    table: &'a [u8],
    table_sectors: u64,
}

impl<'a> Header<'a> {
    fn read(header: &'a [u8], head: &'a [u8], raw_size: u64) -> Result<Self, Unmovable> {
        let sector = header.len() as u64;
        let header_size = u32_at(header, field::HEADER_SIZE) as usize;
        if !(92..=header.len()).contains(&header_size)
            || crc_of_header(header, header_size) != u32_at(header, field::HEADER_CRC)
        {
            return Err(Unmovable("its header's checksum is wrong"));
        }
        let table_len = u64::from(u32_at(header, field::ENTRIES)) * u64::from(u32_at(header, field::ENTRY_LEN));
        let table_lba = u64_at(header, field::TABLE_LBA);
        if table_len == 0 || table_len > MAX_TABLE {
            return Err(Unmovable("its table has an unusual size"));
        }
        let table = table_lba
            .checked_mul(sector)
            .and_then(|start| Some(usize::try_from(start).ok()?..usize::try_from(start + table_len).ok()?))
            .filter(|_| table_lba >= 2)
            .and_then(|range| head.get(range))
            .ok_or(Unmovable("its table does not follow its header"))?;
        if crc32fast::hash(table) != u32_at(header, field::TABLE_CRC) {
            return Err(Unmovable("its table's checksum is wrong"));
        }
        let table_sectors = table_len.div_ceil(sector);
        let alternate = u64_at(header, field::ALTERNATE_LBA);
        let last_usable = u64_at(header, field::LAST_USABLE_LBA);
        let room = alternate.checked_sub(table_sectors);
        if u64_at(header, field::MY_LBA) != 1
            || Some(alternate) != (raw_size / sector).checked_sub(1)
            || room.is_none_or(|room| last_usable >= room)
        {
            return Err(Unmovable("it does not say that its backup is at the image's end"));
        }
        Ok(Header { sector: header, header_size, alternate, table_lba, table, table_sectors })
    }

    /// A header at `my`, whose other one is at `alternate`.
    fn rewritten(&self, my: u64, alternate: u64, last_usable: u64, table_lba: u64) -> Vec<u8> {
        let mut header = self.sector.to_vec();
        let fields = [
            (field::MY_LBA, my),
            (field::ALTERNATE_LBA, alternate),
            (field::LAST_USABLE_LBA, last_usable),
            (field::TABLE_LBA, table_lba),
        ];
        for (at, value) in fields {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc_of_header(&header, self.header_size);
        header[field::HEADER_CRC..field::HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// The protective MBR covers the disk, as far as 32 bits can say. One that is something else as well (a hybrid, a boot
/// record without a partition) stays as it is.
fn protective_mbr(mbr: &[u8], last: u64) -> Option<Patch> {
    const FIRST_ENTRY: usize = 446;
    let entry = &mbr[FIRST_ENTRY..FIRST_ENTRY + 16];
    if mbr[510..512] != [0x55, 0xaa] || entry[4] != 0xee || u32_at(entry, 8) != 1 {
        return None;
    }
    let sectors = u32::try_from(last).unwrap_or(u32::MAX);
    Some(Patch { offset: FIRST_ENTRY as u64 + 12, bytes: sectors.to_le_bytes().to_vec() })
}

fn zeros(range: Range<u64>) -> Patch {
    Patch { offset: range.start, bytes: vec![0; (range.end - range.start) as usize] }
}

fn crc_of_header(header: &[u8], size: usize) -> u32 {
    let mut header = header[..size].to_vec();
    header[field::HEADER_CRC..field::HEADER_CRC + 4].fill(0);
    crc32fast::hash(&header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The head of a disk of `sectors` sectors with a GPT of 128 entries.
    fn head(sectors: u64, sector: u32) -> Vec<u8> {
        let len = sector as usize;
        let table_sectors = MAX_TABLE / u64::from(sector);
        let mut head = vec![0; 2 * len + MAX_TABLE as usize];
        head[446 + 4] = 0xee;
        head[446 + 8] = 1;
        head[446 + 12..446 + 16].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head[2 * len + 20] = 77;
        let table_crc = crc32fast::hash(&head[2 * len..]);
        let header = &mut head[len..2 * len];
        header[..8].copy_from_slice(SIGNATURE);
        header[field::HEADER_SIZE..][..4].copy_from_slice(&92u32.to_le_bytes());
        let words = [
            (field::MY_LBA, 1),
            (field::ALTERNATE_LBA, sectors - 1),
            (field::LAST_USABLE_LBA, sectors - 2 - table_sectors),
            (field::TABLE_LBA, 2),
        ];
        for (at, value) in words {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[field::ENTRIES..][..4].copy_from_slice(&128u32.to_le_bytes());
        header[field::ENTRY_LEN..][..4].copy_from_slice(&128u32.to_le_bytes());
        header[field::TABLE_CRC..][..4].copy_from_slice(&table_crc.to_le_bytes());
        let crc = crc_of_header(header, 92);
        header[field::HEADER_CRC..][..4].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// A disk whose head and end are as `moved` says.
    fn apply(head: &[u8], device_size: u64, moved: &Move) -> Vec<u8> {
        let mut disk = head.to_vec();
        disk.resize(device_size as usize, 0);
        for patch in moved.inside.iter().chain([&moved.backup]) {
            disk[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        disk
    }

    #[test]
    fn both_headers_name_each_other_and_check() {
        for sector in [512u32, 4096] {
            let head = head(1000, sector);
            let (raw, device) = (1000 * u64::from(sector), 5000 * u64::from(sector));
            let moved = relocate(&head, raw, device, sector).unwrap().unwrap();
            assert_eq!(moved.backup.offset() + moved.backup.bytes().len() as u64, device);
            let disk = apply(&head, device, &moved);
            let header = |lba: usize| &disk[lba * sector as usize..(lba + 1) * sector as usize];
            for (my, other) in [(1, 4999), (4999, 1)] {
                assert_eq!(
                    (u64_at(header(my), field::MY_LBA), u64_at(header(my), field::ALTERNATE_LBA)),
                    (my as u64, other)
                );
                assert_eq!(crc_of_header(header(my), 92), u32_at(header(my), field::HEADER_CRC));
                let table = u64_at(header(my), field::TABLE_LBA) as usize * sector as usize;
                assert_eq!(
                    crc32fast::hash(&disk[table..table + MAX_TABLE as usize]),
                    u32_at(header(my), field::TABLE_CRC)
                );
            }
            assert_eq!(u32_at(&disk, 446 + 12), 4999);
            // As if it had been made for this size: moving it again changes nothing.
            assert_eq!(relocate(&disk[..head.len()], device, device, sector), Ok(None));
            assert!(relocate(&disk[..head.len()], device, device + 64 * u64::from(sector), sector).unwrap().is_some());
        }
    }

    #[test]
    fn what_is_no_gpt_or_needs_no_move_stays() {
        let good = head(1000, 512);
        assert_eq!(relocate(&good, 512_000, 512_000, 512), Ok(None));
        assert_eq!(relocate(&good, 512_000, 512_100, 512), Ok(None));
        assert_eq!(relocate(&[0; 4096], 512_000, 1 << 20, 512), Ok(None));
        assert_eq!(relocate(&good[..600], 512_000, 1 << 20, 512), Ok(None));
    }

    #[test]
    fn a_gpt_that_contradicts_itself_is_not_moved() {
        let good = head(1000, 512);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bad = good.clone();
            change(&mut bad);
            relocate(&bad, 512_000, 1 << 20, 512).unwrap_err().to_string()
        };
        assert!(refused(&|head| head[512 + field::ALTERNATE_LBA] ^= 1).contains("header's checksum"));
        assert!(refused(&|head| head[1024 + 20] ^= 1).contains("table's checksum"));
        assert!(refused(&|head| head.truncate(2000)).contains("does not follow"));
        let other_size = relocate(&good, 512_512, 1 << 20, 512).unwrap_err();
        assert!(other_size.to_string().contains("image's end"));
        assert!(relocate(&good, 0, 512_000, 512).unwrap_err().to_string().contains("image's end"));
        let hardly_larger = relocate(&good, 512_000, 512_000 + 32 * 512, 512).unwrap_err();
        assert!(hardly_larger.to_string().contains("larger by less"));
        assert!(relocate(&good, 512_000, 512_000 + 33 * 512, 512).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_never_leave_the_disk(
            changes in proptest::collection::vec((0usize..1200, any::<u8>()), 0..8),
            raw in 0u64..4000, more in 0u64..100_000, fix in any::<bool>(),
        ) {
            let mut head = head(1000, 512);
            changes.iter().for_each(|(at, byte)| head[*at] = *byte);
            if fix {
                let size = (u32_at(&head[512..], field::HEADER_SIZE) as usize).clamp(92, 512);
                let crc = crc_of_header(&head[512..1024], size);
                head[512 + field::HEADER_CRC..][..4].copy_from_slice(&crc.to_le_bytes());
            }
            let (raw, device) = (raw * 512, (raw + more) * 512);
            if let Ok(Some(moved)) = relocate(&head, raw, device, 512) {
                prop_assert_eq!(moved.backup.offset() + moved.backup.bytes().len() as u64, device);
                prop_assert!(moved.backup.offset() >= raw);
                for patch in &moved.inside {
                    let end = patch.offset() + patch.bytes().len() as u64;
                    prop_assert!(end <= 1024 || (patch.offset() >= raw.saturating_sub(backup_len(512)) && end <= raw));
                }
            }
        }
    }
}
