//! Boot facts: how the image IPLs and where its boot record and map lie, read from the raw image when it is packed.
//!
//! Only zIPL's layout for SCSI disks (FCP, virtio) is known. Source: s390-tools `zipl/include/boot.h` and QEMU
//! `pc-bios/s390-ccw/bootmap.h` (`ScsiMbr`, `ScsiBlockPtr`); all integers big-endian.

use serde::{Deserialize, Serialize};

/// How the image IPLs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// `zipl-scsi`: a zIPL record in block 0 that points at a program table.
    pub method: String,
    /// Raw offset of the boot record, in bytes.
    pub record_offset: u64,
    /// Its length in bytes.
    pub record_length: u64,
    /// Raw offset of the program table (the boot map's root), in bytes.
    pub map_offset: u64,
    /// Its length in bytes.
    pub map_length: u64,
}

const MAGIC: &[u8; 4] = b"zIPL";

/// The boot facts of an image that starts with `record` (its first 512 bytes); `None` when it holds no zIPL record.
/// `program_table` reads raw bytes at an offset, to check that the table is there.
///
/// # Errors
/// What is wrong, when there is a record but it points outside the image or at something that is no program table.
pub fn detect(
    record: &[u8; 512],
    raw_size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> std::io::Result<Result<Option<BootFacts>, String>> {
    if &record[..4] != MAGIC {
        return Ok(Ok(None));
    }
    let mut block = [0; 8];
    block.copy_from_slice(&record[16..24]);
    let block = u64::from_be_bytes(block);
    let block_size = u64::from(u16::from_be_bytes([record[24], record[25]]));
    let Some(map_offset) =
        block.checked_mul(block_size).filter(|at| *at > 0 && at.saturating_add(block_size) <= raw_size)
    else {
        return Ok(Err(format!("its zIPL record points at block {block} of {block_size} bytes, outside the image")));
    };
    let mut magic = [0; 4];
    read(map_offset, &mut magic)?;
    if &magic != MAGIC {
        return Ok(Err(format!("its zIPL record points at byte {map_offset}, where no program table is")));
    }
    Ok(Ok(Some(BootFacts {
        method: "zipl-scsi".into(),
        record_offset: 0,
        record_length: 512,
        map_offset,
        map_length: block_size,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(block: u64, size: u16) -> [u8; 512] {
        let mut record = [0; 512];
        record[..4].copy_from_slice(MAGIC);
        record[16..24].copy_from_slice(&block.to_be_bytes());
        record[24..26].copy_from_slice(&size.to_be_bytes());
        record
    }

    fn table(_: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.copy_from_slice(MAGIC);
        Ok(())
    }

    #[test]
    fn finds_the_program_table() {
        let facts = detect(&record(2056, 512), 4 << 20, table).unwrap().unwrap().unwrap();
        assert_eq!(facts.map_offset, 2056 * 512);
        assert_eq!(facts.map_length, 512);
    }

    #[test]
    fn no_record_is_no_facts_and_a_wrong_one_is_an_error() {
        assert_eq!(detect(&[0; 512], 4 << 20, table).unwrap(), Ok(None));
        assert!(detect(&record(u64::MAX, 512), 4 << 20, table).unwrap().is_err());
        assert!(detect(&record(9000, 512), 4 << 20, table).unwrap().is_err());
        assert!(detect(&record(8, 512), 4 << 20, |_, _| Ok(())).unwrap().is_err());
    }
}
