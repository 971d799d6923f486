//! From the boot record to what is loaded: follows block pointers, and sees that each leads to where firmware can read.

use std::collections::HashSet;
use std::ops::Range;

use imgstream::error::{Error, Result};

use super::REBUILD;
use super::format::{self, EXECUTE, Entry, IPL, LOAD, POINTER, Pointer, Record, SIGNATURE};
use super::media::ReadAt;
use super::program::{Component, Content, Program};

/// Segment tables that are followed, of a whole program. Of 512 bytes they have room for 2 million runs of blocks; kernel and
/// initramfs of a real image need some ten.
const MAX_TABLES: u32 = 1 << 16;

const BOOT_REGION: &str = "keep /boot, where zipl puts all of it, on a partition that is not encrypted, run zipl again in the image build, and pack the image anew";

/// A disk on its way to be started.
pub(super) struct Walk<'a> {
    disk: &'a dyn ReadAt,
    block_size: u32,
    /// In order, without overlaps, and those that touch joined.
    allowed: Vec<Range<u64>>,
    tables: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(disk: &'a dyn ReadAt, block_size: u32, allowed: &[Range<u64>]) -> Self {
        let mut ranges: Vec<_> = allowed.iter().filter(|range| !range.is_empty()).cloned().collect();
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Walk { disk, block_size, allowed: joined, tables: 0 }
    }

    /// How many programs there are, and where the default one is.
    pub(super) fn programs(&self) -> Result<(usize, Pointer)> {
        let whole = Pointer { block: 0, size: self.block_size as u16, count: 1 };
        let block = self.block(whole, "the boot record")?;
        let Some(record) = Record::read(&block) else {
            let message = "block 0 holds no boot record: it does not begin with \"zIPL\"";
            return Err(Error::image(message).with_hint(REBUILD));
        };
        // zipl.h, `DISK_LAYOUT_ID`.
        if record.version != 1 {
            let message = format!("the boot record is of version {}, and only version 1 is known", record.version);
            return Err(Error::image(message).with_hint(REBUILD));
        }
        let what = "the boot record's program table";
        let table = self.block(record.table, what)?;
        let entries = format::program_table(&table).ok_or_else(|| no_table(what, record.table))?;
        let Some((default, menu)) = entries.split_first().filter(|(default, _)| !default.is_blank()) else {
            return Err(Error::image("the program table has no default entry").with_hint(REBUILD));
        };
        // A menu has the default among the others once more.
        Ok((menu.iter().filter(|entry| !entry.is_blank()).count().max(1), *default))
    }

    /// What the program with this component table loads.
    pub(super) fn program(&mut self, table: Pointer) -> Result<Program> {
        let what = "the default program's component table";
        let block = self.block(table, what)?;
        let (kind, entries) = format::component_table(&block).ok_or_else(|| no_table(what, table))?;
        if kind != IPL {
            let message = format!("the default program is of kind {kind}: a dumper, not an operating system");
            return Err(Error::image(message).with_hint("make the system the default in /etc/zipl.conf, run zipl again in the image build, and pack the image anew"));
        }
        let mut components = Vec::new();
        for (index, Entry { kind, data, value }) in entries.into_iter().enumerate() {
            let name = format!("component {}", index + 1);
            match kind {
                EXECUTE => return Ok(Program { components, start: value }),
                LOAD => {
                    let content = self.content(data, &name)?;
                    components.push(Component::new(name, value, content)?);
                }
                // Only secure IPL reads it; but then it must be there.
                SIGNATURE => drop(self.content(data, &format!("{name}, a signature"))?),
                kind => {
                    let message = format!("{name} is of kind {kind}, which firmware does not know");
                    return Err(Error::image(message).with_hint(REBUILD));
                }
            }
        }
        let message = format!("{what} does not say where execution begins");
        Err(Error::image(message).with_hint(REBUILD))
    }

    /// What a chain of segment tables leads to.
    fn content(&mut self, first: Pointer, name: &str) -> Result<Content> {
        let what = format!("the segment table of {name}");
        let (mut content, mut seen, mut next) = (Content::default(), HashSet::new(), first);
        loop {
            if !seen.insert(next.block) {
                let message = format!("the segment tables of {name} go in a circle: block {} comes again", next.block);
                return Err(Error::image(message).with_hint(REBUILD));
            }
            self.tables += 1;
            if self.tables > MAX_TABLES {
                let message = format!("the default program has more than {MAX_TABLES} segment tables");
                return Err(Error::image(message).with_hint(REBUILD));
            }
            let table = self.block(next, &what)?;
            let Some(following) = self.segments(&table, name, &mut content)? else { return Ok(content) };
            next = following;
        }
    }

    /// Adds what one segment table leads to, and returns where the chain goes on.
    fn segments(&self, table: &[u8], name: &str, content: &mut Content) -> Result<Option<Pointer>> {
        // bootmap.c, `add_segment_table`: the last entry leads to the next table.
        let last = table.len() / POINTER - 1;
        for (index, pointer) in table.chunks_exact(POINTER).filter_map(Pointer::read).enumerate() {
            if pointer.is_blank() {
                return Ok(None);
            }
            if index < last {
                content.add(self.place(pointer, name)?);
            } else if pointer.count == 1 {
                return Ok(Some(pointer));
            } else {
                let message = format!(
                    "a segment table of {name} ends with {} blocks of content, where only the next table can be",
                    pointer.count
                );
                return Err(Error::image(message).with_hint(REBUILD));
            }
        }
        Ok(None)
    }

    /// The first block of a pointer.
    fn block(&self, pointer: Pointer, what: &str) -> Result<Vec<u8>> {
        let place = self.place(Pointer { count: 1, ..pointer }, what)?;
        let mut block = vec![0; self.block_size as usize];
        self.disk.read_at(&mut block, place.start)?;
        Ok(block)
    }

    /// The bytes of the disk that a pointer leads to, once it is certain that firmware can read them.
    fn place(&self, pointer: Pointer, what: &str) -> Result<Range<u64>> {
        let Pointer { block, size, count } = pointer;
        let block_size = u64::from(self.block_size);
        if u64::from(size) != block_size {
            let message =
                format!("{what} is written for blocks of {size} bytes, and the disk has blocks of {block_size}");
            return Err(Error::image(message).with_hint(
                "use an image whose zipl ran on a disk with blocks of this size, or a disk with blocks of the image's size",
            ));
        }
        let lies = |whereabouts: &str| match count {
            1 => format!("{what} lies at block {block}, {whereabouts}"),
            _ => format!(
                "{what} lies at blocks {block} to {}, {whereabouts}",
                block.saturating_add(u64::from(count) - 1)
            ),
        };
        let start = block.checked_mul(block_size);
        let end = start.and_then(|start| start.checked_add(u64::from(count) * block_size));
        let Some((start, end)) = start.zip(end).filter(|(_, end)| *end <= self.disk.size()) else {
            return Err(Error::image(lies("beyond the end of the disk")).with_hint(REBUILD));
        };
        let before = self.allowed.partition_point(|range| range.start <= start);
        let clear = before.checked_sub(1).and_then(|index| self.allowed.get(index));
        if clear.is_none_or(|range| range.end < end) {
            return Err(Error::image(lies("outside the boot region")).with_hint(BOOT_REGION));
        }
        Ok(start..end)
    }

    pub(super) fn disk(&self) -> &dyn ReadAt {
        self.disk
    }
}

fn no_table(what: &str, at: Pointer) -> Error {
    Error::image(format!("{what}, at block {}, does not begin with \"zIPL\"", at.block)).with_hint(REBUILD)
}
