//! What a program loads into memory, and which of it is kernel, parameters and initramfs.

use std::ops::Range;

use imgstream::error::{Error, Result};

use super::REBUILD;
use super::format::Stage3;
use super::media::ReadAt;
use super::walk::Walk;

/// Bytes at the start of a component of which it is remembered where they lie: more than kernel parameters ever take
/// (zipl.h, `MAXIMUM_PARMLINE_SIZE`), and up to where a kernel says that it is one.
const HEAD: u64 = 128 << 10;
/// Most bytes of kernel parameters.
const MAX_PARAMETERS: u64 = 64 << 10;

/// Where a kernel says what it is, and what it says (Linux, arch/s390/include/asm/setup.h, `EP_OFFSET`, `EP_STRING`).
const KERNEL_MARK: u64 = 0x10008;
const KERNEL: &[u8] = b"S390EP";
/// Where a kernel is loaded to, and how much of its file older zIPLs left out (linux_layout.h, `IMAGE_ENTRY`).
const KERNEL_ADDRESS: u64 = 0x10000;
/// Where zIPL's loader looks for what it is told (loaders_layout.h, `STAGE3_PARAMS_ADDRESS`).
const STAGE3_ADDRESS: u64 = 0x9000;
/// The address in a PSW of 8 bytes.
const PSW_ADDRESS: u64 = 0x7fff_ffff;

/// What an initramfs begins with: what Linux unpacks (init/initramfs.c, lib/decompress.c).
const INITRAMFS: [&[u8]; 9] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\x02\x21\x4c\x18",
    b"BZh",
    b"\x89LZO\0",
    b"\x5d\0\0",
];

/// The blocks of a component.
#[derive(Debug, Default)]
pub(super) struct Content {
    len: u64,
    /// Where its first bytes lie, in order.
    head: Vec<Range<u64>>,
}

impl Content {
    pub(super) fn add(&mut self, place: Range<u64>) {
        if self.len < HEAD {
            self.head.push(place.clone());
        }
        // Bounded by the number of tables, far below what would overflow.
        self.len += place.end - place.start;
    }

    /// Its `len` bytes from `offset` on; `None` where it has no such, or they lie beyond the remembered ones.
    fn read(&self, disk: &dyn ReadAt, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let (mut found, mut skip) = (vec![0; len], offset);
        let mut missing = &mut found[..];
        for place in &self.head {
            let held = place.end - place.start;
            if skip >= held {
                skip -= held;
                continue;
            }
            let here = usize::try_from(held - skip).unwrap_or(usize::MAX).min(missing.len());
            let (filled, rest) = std::mem::take(&mut missing).split_at_mut(here);
            disk.read_at(filled, place.start + skip)?;
            (missing, skip) = (rest, 0);
        }
        Ok(missing.is_empty().then_some(found))
    }
}

/// A component that is loaded.
#[derive(Debug)]
pub(super) struct Component {
    name: String,
    address: u64,
    content: Content,
}

impl Component {
    /// # Errors
    /// `Image` where it does not fit into any memory.
    pub(super) fn new(name: String, address: u64, content: Content) -> Result<Self> {
        if address.checked_add(content.len).is_none() {
            let message = format!("{name} is loaded to {address:#x}, and its {} bytes do not fit there", content.len);
            return Err(Error::image(message).with_hint(REBUILD));
        }
        Ok(Component { name, address, content })
    }

    fn covers(&self, address: u64) -> bool {
        (self.address..self.address + self.content.len).contains(&address)
    }
}

/// A program, as it is when all of it is loaded.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) components: Vec<Component>,
    /// The PSW it begins with.
    pub(super) start: u64,
}

impl Program {
    /// Checks that execution begins where something was loaded.
    pub(super) fn check_entry(&self) -> Result<()> {
        let address = self.start & PSW_ADDRESS;
        if self.components.iter().any(|component| component.covers(address)) {
            return Ok(());
        }
        let message = format!("execution begins at {address:#x}, where nothing is loaded");
        Err(Error::image(message).with_hint(REBUILD))
    }

    /// Bytes of the kernel as it is loaded.
    pub(super) fn kernel(&self, walk: &Walk) -> Result<u64> {
        for component in &self.components {
            let says = |offset| component.content.read(walk.disk(), offset, KERNEL.len());
            let whole = says(KERNEL_MARK)?.is_some_and(|found| found == KERNEL);
            let cut = component.address == KERNEL_ADDRESS
                && says(KERNEL_MARK - KERNEL_ADDRESS)?.is_some_and(|found| found == KERNEL);
            if whole || cut {
                return Ok(component.content.len);
            }
        }
        let message = "no kernel is loaded: no component is a Linux for s390x (\"S390EP\" at 0x10008)";
        Err(Error::image(message).with_hint(REBUILD))
    }

    /// What zIPL's loader is told.
    pub(super) fn stage3(&self, walk: &Walk) -> Result<Stage3> {
        let told = self.at(STAGE3_ADDRESS).map(|component| component.content.read(walk.disk(), 0, Stage3::LEN));
        let told = told.transpose()?.flatten();
        told.as_deref().and_then(Stage3::read).ok_or_else(|| {
            let message = format!("nothing tells zIPL's loader (stage 3) where initramfs and kernel parameters are: no component is loaded to {STAGE3_ADDRESS:#x}");
            Error::image(message).with_hint(REBUILD)
        })
    }

    /// The kernel parameters.
    pub(super) fn text(&self, walk: &Walk, told: &Stage3) -> Result<String> {
        // zipl.c writes the address also where there are no parameters.
        let Some(component) = told.parameters.and_then(|address| self.at(address)) else { return Ok(String::new()) };
        let len = component.content.len.min(MAX_PARAMETERS);
        let bytes = component.content.read(walk.disk(), 0, len as usize)?.unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let readable = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace()));
        readable.map(|text| text.trim().to_owned()).ok_or_else(|| {
            Error::image(format!("the kernel parameters, {}, are no text", component.name)).with_hint(REBUILD)
        })
    }

    /// Bytes of the initramfs; `None` where the program has none.
    pub(super) fn initramfs(&self, walk: &Walk, told: &Stage3) -> Result<Option<u64>> {
        let Stage3 { initramfs: address, initramfs_len: len, .. } = *told;
        if len == 0 {
            return Ok(None);
        }
        let Some(component) = self.at(address) else {
            let message = format!("no initramfs: it is to be at {address:#x}, where no component is loaded");
            return Err(Error::image(message).with_hint(REBUILD));
        };
        if component.content.len < len {
            let message = format!(
                "the initramfs, {}, is cut off: {} of its {len} bytes are loaded",
                component.name, component.content.len
            );
            return Err(Error::image(message).with_hint(REBUILD));
        }
        let start = component.content.read(walk.disk(), 0, len.min(8) as usize)?.unwrap_or_default();
        if !INITRAMFS.iter().any(|magic| start.starts_with(magic)) {
            let message = format!(
                "no initramfs: {} begins with {start:02x?}, which is neither cpio nor compressed",
                component.name
            );
            return Err(Error::image(message).with_hint(REBUILD));
        }
        Ok(Some(len))
    }

    fn at(&self, address: u64) -> Option<&Component> {
        self.components.iter().find(|component| component.address == address)
    }
}
