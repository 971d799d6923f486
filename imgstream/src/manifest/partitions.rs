//! Partition tables, just enough to name the regions of an image: GPT and MBR, at the sector size it was built for.
//!
//! Read from the packer's own input, not from images; still nothing here trusts a field it has not bounded.

use std::io;
use std::ops::Range;

use super::region::{Luks, Region};
use crate::little_endian::{u32_at, u64_at};

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The partitions, in the order of the disk; none without a table.
    pub partitions: Vec<Partition>,
    /// Raw ranges in which the table itself lies, its backup included. Some may reach into one another.
    pub places: Vec<Range<u64>>,
}

/// A partition: its number as Linux counts, its name or nothing, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// 1-based number in the table.
    pub number: u32,
    /// GPT partition name; empty when it has none.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The partition table of a raw image. `read` fills from a raw offset.
///
/// # Errors
/// Those of `read`, and `InvalidData` when a table is there but contradicts itself or the image's size.
pub fn read_table(
    raw_size: u64,
    sector_size: u32,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Table> {
    let sector = u64::from(sector_size);
    if raw_size < 2 * sector {
        return Ok(Table::default());
    }
    let mut first = vec![0; 2 * sector_size as usize];
    read(0, &mut first)?;
    let (mbr, gpt) = first.split_at(sector_size as usize);
    let mut table = if gpt.starts_with(b"EFI PART") {
        Table { partitions: read_gpt(gpt, sector, &mut read)?, places: gpt_places(gpt, sector, raw_size) }
    } else if mbr[510..512] == [0x55, 0xaa] && mbr[446..510].chunks(16).any(|entry| entry[4] != 0) {
        Table { partitions: read_mbr(mbr, sector), places: std::iter::once(0..sector).collect() }
    } else {
        Table::default()
    };
    table.partitions.sort_by_key(|partition| partition.offset);
    check(&table.partitions, raw_size)?;
    Ok(table)
}

/// Protective MBR and header, the table, and what lies from the backup's table on to the end: nothing else belongs there.
fn gpt_places(header: &[u8], sector: u64, raw_size: u64) -> Vec<Range<u64>> {
    let table_len = u64::from(u32_at(header, 80)) * u64::from(u32_at(header, 84));
    let table = u64_at(header, 72).saturating_mul(sector);
    let backup = u64_at(header, 32).saturating_sub(table_len.div_ceil(sector)).saturating_mul(sector);
    let places = [0..2 * sector, table..table.saturating_add(table_len), backup..raw_size];
    places.into_iter().filter(|place| place.start < place.end).collect()
}

fn read_gpt(
    header: &[u8],
    sector: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Vec<Partition>> {
    let table_lba = u64_at(header, 72);
    let count = u32_at(header, 80);
    let entry_len = u32_at(header, 84);
    // The UEFI specification: at least 128 bytes per entry, 128 entries as a rule; the bounds keep this small.
    if !(128..=4096).contains(&entry_len) || count > 1024 {
        return Err(invalid(format!("the GPT header says {count} entries of {entry_len} bytes")));
    }
    let mut table = vec![0; (count * entry_len) as usize];
    read(table_lba.saturating_mul(sector), &mut table)?;
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(entry_len as usize)) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let length = last.checked_sub(first).and_then(|sectors| sectors.checked_add(1)?.checked_mul(sector));
        let (Some(length), Some(offset)) = (length, first.checked_mul(sector)) else {
            return Err(invalid(format!("GPT partition {number} goes from sector {first} to {last}")));
        };
        let utf16: Vec<u16> = entry[56..128].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        let name = String::from_utf16_lossy(&utf16).trim_end_matches('\0').to_owned();
        partitions.push(Partition { number, name, offset, length });
    }
    Ok(partitions)
}

fn read_mbr(mbr: &[u8], sector: u64) -> Vec<Partition> {
    (1..)
        .zip(mbr[446..510].chunks_exact(16))
        .filter(|(_, entry)| entry[4] != 0 && u32_at(entry, 12) != 0)
        .map(|(number, entry)| Partition {
            number,
            name: String::new(),
            offset: u64::from(u32_at(entry, 8)) * sector,
            length: u64::from(u32_at(entry, 12)) * sector,
        })
        .collect()
}

fn check(partitions: &[Partition], raw_size: u64) -> io::Result<()> {
    let mut end = 0;
    for partition in partitions {
        let Partition { number, offset, length, .. } = partition;
        let partition_end = offset.checked_add(*length).filter(|end| *end <= raw_size);
        let Some(partition_end) = partition_end else {
            return Err(invalid(format!("partition {number} reaches beyond the end of the image; was it truncated?")));
        };
        if *offset < end || *offset == 0 {
            return Err(invalid(format!("partition {number} overlaps what lies before it")));
        }
        end = partition_end;
    }
    Ok(())
}

/// What makes a partition an encrypted region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The partition's number.
    pub partition: u32,
    /// What the region is called.
    pub name: String,
    /// What its container will be.
    pub luks: Luks,
}

/// Whether a region's name is one that regions without a name of their own have.
pub fn is_reserved(name: &str) -> bool {
    ["end", "disk"].contains(&name) || ["partition-", "gap-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Regions that cover the whole image in order: each partition by its name (or `partition-N`), and what lies between
/// them as `partition-table`, `gap-N`, `end`. An image without a table is one region, `disk`. Those of `encrypted` are called,
/// and are, what that says.
pub fn regions(partitions: &[Partition], raw_size: u64, encrypted: &[Encrypted]) -> Vec<Region> {
    let plain =
        |name: String, offset, end: u64| Region { name, offset, length: end - offset, encrypt: false, luks: None };
    if partitions.is_empty() {
        return vec![plain("disk".into(), 0, raw_size)];
    }
    let mut regions: Vec<Region> = Vec::new();
    let mut at = 0;
    for (gap, partition) in partitions.iter().enumerate() {
        if partition.offset > at {
            let name = if at == 0 { "partition-table".into() } else { format!("gap-{gap}") };
            regions.push(plain(name, at, partition.offset));
        }
        at = partition.offset + partition.length;
        let region = match encrypted.iter().find(|one| one.partition == partition.number) {
            Some(Encrypted { name, luks, .. }) => {
                let clear = plain(name.clone(), partition.offset, at);
                Region { encrypt: true, luks: Some(luks.clone()), ..clear }
            }
            None => plain(region_name(partition, &regions, encrypted), partition.offset, at),
        };
        regions.push(region);
    }
    if at < raw_size {
        regions.push(plain("end".into(), at, raw_size));
    }
    regions
}

fn region_name(partition: &Partition, taken: &[Region], encrypted: &[Encrypted]) -> String {
    let name: String =
        partition.name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    // What regions without a name of their own are called stays free for them.
    let usable = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 64 && !is_reserved(&name);
    let is_free = taken.iter().all(|region| region.name != name) && encrypted.iter().all(|other| other.name != name);
    if usable && is_free { name } else { format!("partition-{}", partition.number) }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> + '_ {
        |at, into| {
            let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let from = bytes.get(at..).and_then(|rest| rest.get(..into.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(from);
            Ok(())
        }
    }

    #[test]
    fn mbr_partitions_become_regions() {
        let mut image = vec![0; 4 << 20];
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[446 + 4] = 0x83;
        image[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
        image[446 + 12..446 + 16].copy_from_slice(&2048u32.to_le_bytes());
        let table = read_table(4 << 20, 512, reader(&image)).unwrap();
        assert_eq!(table.places, std::slice::from_ref(&(0..512)));
        let regions = regions(&table.partitions, 4 << 20, &[]);
        let names: Vec<_> = regions.iter().map(|region| region.name.as_str()).collect();
        assert_eq!(names, ["partition-table", "partition-1", "end"]);
        assert_eq!(regions.iter().map(|region| region.length).sum::<u64>(), 4 << 20);
    }

    #[test]
    fn a_partition_beyond_the_end_is_an_error() {
        let mut image = vec![0; 1 << 20];
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[446 + 4] = 0x83;
        image[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 8, 0, 0]);
        assert!(read_table(1 << 20, 512, reader(&image)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 4096..8192), gpt in any::<bool>()) {
            if gpt {
                bytes[512..520].copy_from_slice(b"EFI PART");
            } else {
                bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            }
            if let Ok(table) = read_table(bytes.len() as u64, 512, reader(&bytes)) {
                let regions = regions(&table.partitions, bytes.len() as u64, &[]);
                prop_assert_eq!(regions.iter().map(|region| region.length).sum::<u64>(), bytes.len() as u64);
            }
        }
    }
}
