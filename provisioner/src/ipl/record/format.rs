//! The bytes of zIPL's tables. Nothing here reads a disk, and no bytes make it fail otherwise than by `None`.

/// What the boot record, the program table and a component table begin with (zipl.h, `ZIPL_MAGIC`).
const MAGIC: &[u8] = b"zIPL";
/// Bytes of a block pointer (boot.h, `struct linear_blockptr`).
pub(super) const POINTER: usize = 16;
/// Bytes of a component table's header and of each of its entries (bootmap.c, `struct component_header`, `component_entry`).
const COMPONENT: usize = 32;
/// zIPL writes a program table of this size on every disk (bootmap.c, `PROGRAM_TABLE_BLOCK_SIZE`).
const PROGRAM_TABLE: usize = 512;

/// A run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The first block; 0 in an entry that is not used.
    pub(super) block: u64,
    /// Bytes of a block.
    pub(super) size: u16,
    /// How many blocks there are.
    pub(super) count: u32,
}

impl Pointer {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Pointer {
            block: u64_at(bytes, 0)?,
            size: u16::from_be_bytes(*bytes.get(8..)?.first_chunk()?),
            // One less is written.
            count: u32::from(u16::from_be_bytes(*bytes.get(10..)?.first_chunk()?)) + 1,
        })
    }

    pub(super) fn is_blank(&self) -> bool {
        self.block == 0
    }
}

/// What the boot record says.
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) table: Pointer,
}

impl Record {
    /// `None` where the block is no boot record (bootmap.h, `struct ScsiMbr`).
    pub(super) fn read(block: &[u8]) -> Option<Self> {
        let version = u32::from_be_bytes(*block.strip_prefix(MAGIC)?.first_chunk()?);
        Some(Record { version, table: Pointer::read(block.get(16..)?)? })
    }
}

/// The entries of a program table; `None` where the block is none.
pub(super) fn program_table(block: &[u8]) -> Option<Vec<Pointer>> {
    block.starts_with(MAGIC).then_some(())?;
    let entries = block.get(POINTER..PROGRAM_TABLE)?.chunks_exact(POINTER);
    entries.map(Pointer::read).collect()
}

/// An entry of a component table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: u8,
    /// Where the segment tables begin.
    pub(super) data: Pointer,
    /// An address to load to, a PSW to begin with, or what a signature is, depending on the kind.
    pub(super) value: u64,
}

/// Entry kinds (bootmap.h, `ZIPL_COMP_ENTRY_*`).
pub(super) const EXECUTE: u8 = 1;
pub(super) const LOAD: u8 = 2;
pub(super) const SIGNATURE: u8 = 3;

/// The kind of a program that is an operating system (bootmap.h, `ZIPL_COMP_HEADER_IPL`); the other is a dumper.
pub(super) const IPL: u8 = 0;

/// The kind and the entries of a component table; `None` where the block is none.
pub(super) fn component_table(block: &[u8]) -> Option<(u8, Vec<Entry>)> {
    block.starts_with(MAGIC).then_some(())?;
    let entries = block.get(COMPONENT..)?.chunks_exact(COMPONENT);
    let entry =
        |bytes: &[u8]| Some(Entry { data: Pointer::read(bytes)?, kind: *bytes.get(23)?, value: u64_at(bytes, 24)? });
    Some((*block.get(4)?, entries.map(entry).collect::<Option<_>>()?))
}

/// What zIPL's loader is told (boot.h, `struct boot_stage3_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage3 {
    /// Where the kernel parameters are; `None` where there are none.
    pub(super) parameters: Option<u64>,
    /// Where the initramfs is.
    pub(super) initramfs: u64,
    /// Bytes of the initramfs; 0 where there is none.
    pub(super) initramfs_len: u64,
    /// Bytes of the kernel; 0 where an older zIPL did not say.
    image_len: u64,
}

impl Stage3 {
    /// Bytes of it that are looked at.
    pub(super) const LEN: usize = 56;

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let number = |index: usize| u64_at(bytes, index * 8);
        let parameters = number(0).filter(|address| *address != u64::MAX);
        Some(Stage3 { parameters, initramfs: number(1)?, initramfs_len: number(2)?, image_len: number(6)? })
    }

    /// Bytes of a kernel that was loaded in whole blocks, of which there are `loaded` bytes.
    pub(super) fn kernel_len(&self, loaded: u64) -> u64 {
        if (1..=loaded).contains(&self.image_len) { self.image_len } else { loaded }
    }
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
