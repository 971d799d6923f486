//! The place for one server's configuration in a medium that is the same for all: zeros at the end of the file system, which the kernel
//! passes over, and behind the seal. A configuration is an archive of its own.
//!
//! Nothing else of a medium changes when it is filled, and no tool is needed for it but this.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::{SEAL, image};

/// Bytes of it.
pub const SIZE: usize = 256 << 10;

/// Bytes of a sector of a CD.
const SECTOR: u64 = 2048;
/// The sector in which El Torito says where its catalog is.
const BOOT_RECORD: u64 = 17;
/// How far before the slot the seal begins at most.
const SEAL_REACH: u64 = 4096;

/// Where things are in a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Where the memory image begins.
    image: u64,
    /// Where the slot does.
    slot: u64,
}

impl Places {
    /// Finds them in an ISO 9660 image, or in a memory image.
    ///
    /// # Errors
    /// When it is neither, or no medium of this kind.
    pub fn find(medium: &mut (impl Read + Seek)) -> io::Result<Self> {
        let image =
            if read(medium, 16 * SECTOR, 6).is_ok_and(|bytes| bytes == b"\x01CD001") { boot_image(medium)? } else { 0 };
        let (at, magic) = image::KERNEL_MAGIC;
        let head = read(medium, image, image::PARAMETERS).map_err(|_| not_ours())?;
        if &head[at..at + magic.len()] != magic {
            return Err(not_ours());
        }
        let part = |at| image::get(&head, at).ok_or_else(not_ours);
        let (start, size) = (part(image::INITRD_START)?, part(image::INITRD_SIZE)?);
        let end = image.checked_add(start).and_then(|at| at.checked_add(size)).ok_or_else(not_ours)?;
        let slot = end.checked_sub(SIZE as u64).filter(|slot| *slot > SEAL_REACH).ok_or_else(not_ours)?;
        let before = read(medium, slot - SEAL_REACH, SEAL_REACH as usize).map_err(|_| not_ours())?;
        if !before.windows(SEAL.len()).any(|bytes| bytes == SEAL.as_bytes()) {
            return Err(not_ours());
        }
        Ok(Self { image, slot })
    }

    /// Puts an archive into the slot, in place of what is there.
    ///
    /// # Errors
    /// When it is too large, or the medium cannot be written.
    pub fn fill(&self, medium: &mut (impl Write + Seek), archive: &[u8]) -> io::Result<()> {
        if archive.len() > SIZE {
            let length = archive.len();
            return Err(io::Error::other(format!(
                "the configuration has {length} bytes, and a medium has room for {SIZE}"
            )));
        }
        let mut bytes = archive.to_vec();
        bytes.resize(SIZE, 0);
        medium.seek(SeekFrom::Start(self.slot))?;
        medium.write_all(&bytes)
    }

    /// Sets the kernel's parameters.
    ///
    /// # Errors
    /// When there is no room for them, or the medium cannot be written.
    pub fn set_parameters(&self, medium: &mut (impl Read + Write + Seek), parameters: &str) -> io::Result<()> {
        let mut head = read(medium, self.image, image::PARAMETERS + 4096)?;
        image::set_parameters(&mut head, parameters)?;
        medium.seek(SeekFrom::Start(self.image))?;
        medium.write_all(&head)
    }

    /// The kernel's parameters.
    ///
    /// # Errors
    /// When the medium cannot be read.
    pub fn parameters(&self, medium: &mut (impl Read + Seek)) -> io::Result<String> {
        let head = read(medium, self.image, image::PARAMETERS + 4096)?;
        image::parameters(&head).map(str::to_owned).ok_or_else(not_ours)
    }
}

/// Where El Torito's image begins: the catalog's first entry that can be booted. (El Torito 1.0, figures 7 and 2 to 4; the numbers are
/// little-endian.)
fn boot_image(medium: &mut (impl Read + Seek)) -> io::Result<u64> {
    let record = read(medium, BOOT_RECORD * SECTOR, SECTOR as usize)?;
    if !record.starts_with(b"\0CD001\x01EL TORITO SPECIFICATION") {
        return Err(not_ours());
    }
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|four| Some(u32::from_le_bytes(four.try_into().ok()?))).ok_or_else(not_ours)
    };
    let catalog = read(medium, u64::from(number(&record, 0x47)?) * SECTOR, 64)?;
    if catalog[32] != 0x88 {
        return Err(not_ours());
    }
    Ok(u64::from(number(&catalog, 32 + 8)?) * SECTOR)
}

fn read(medium: &mut (impl Read + Seek), at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    medium.seek(SeekFrom::Start(at))?;
    medium.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no boot medium of z-provisioner, or a damaged one")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::image::tests::kernel;

    fn medium() -> Vec<u8> {
        let mut filesystem = vec![1; 8192];
        filesystem.extend(SEAL.as_bytes());
        filesystem.resize(filesystem.len().next_multiple_of(512) + SIZE, 0);
        image::assemble(&kernel(), &filesystem, "quiet").unwrap()
    }

    #[test]
    fn a_configuration_is_put_in_and_replaced() {
        let mut medium = Cursor::new(medium());
        let before = medium.get_ref().clone();
        let places = Places::find(&mut medium).unwrap();
        places.fill(&mut medium, &vec![7; 1000]).unwrap();
        places.fill(&mut medium, b"other").unwrap();
        let after = medium.get_ref();
        let slot = after.len() - SIZE;
        assert_eq!(&after[slot..slot + 6], b"other\0");
        assert!(after[slot + 6..].iter().all(|byte| *byte == 0), "nothing of the first one is left");
        assert!(after[..slot] == before[..slot] && after.len() == before.len());
        assert!(places.fill(&mut medium, &vec![0; SIZE + 1]).unwrap_err().to_string().contains("room for 262144"));
    }

    #[test]
    fn parameters_are_replaced() {
        let mut medium = Cursor::new(medium());
        let places = Places::find(&mut medium).unwrap();
        assert_eq!(places.parameters(&mut medium).unwrap(), "quiet");
        places.set_parameters(&mut medium, "zprov.console=bars").unwrap();
        assert_eq!(places.parameters(&mut medium).unwrap(), "zprov.console=bars");
        assert_eq!(Places::find(&mut medium).unwrap(), places);
    }

    #[test]
    fn what_is_no_medium_is_refused() {
        let whole = medium();
        for length in [0, 100, 0x10480, whole.len() - 1, whole.len() - SIZE] {
            let mut cut = Cursor::new(whole[..length].to_vec());
            let found = Places::find(&mut cut);
            // The slot's own end may be missing: writing it puts it back.
            assert!(found.is_err() || length >= whole.len() - SIZE, "{length}");
        }
        let mut other = whole.clone();
        let at = other.len() - SIZE - 512;
        other[at..at + 512].fill(0);
        assert!(Places::find(&mut Cursor::new(other)).is_err());
        assert!(Places::find(&mut Cursor::new(vec![0xff; 1 << 20])).is_err());
    }
}
