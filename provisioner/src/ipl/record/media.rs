//! Reading a disk at any offset, be it past the page cache or not.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgstream::buffer::{ALIGNMENT, Pool};
use imgstream::error::{Error, IoContext, Kind, Result};

/// Bytes that are read at once.
const WINDOW: usize = 64 << 10;

/// Something that is read like a disk.
pub trait ReadAt {
    /// Bytes it holds.
    fn size(&self) -> u64;

    /// Fills `into` with what lies at `offset`.
    ///
    /// # Errors
    /// `Device` where it cannot be read, or ends before.
    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<()>;
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<()> {
        let found = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(found.ok_or_else(|| Error::device(format!("nothing lies at byte {offset}")))?);
        Ok(())
    }
}

/// A block device or a file that holds a disk.
#[derive(Debug)]
pub struct Media {
    file: File,
    path: PathBuf,
    size: u64,
    pool: Arc<Pool>,
}

impl Media {
    /// Opens it with `O_DIRECT`, so that what the media hold is read, not what a cache does.
    ///
    /// # Errors
    /// `Device` when that does not work.
    pub fn open(path: &Path) -> Result<Self> {
        let opening = || format!("opening {} to read its boot record", path.display());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path);
        Self::of(file.device(opening)?, path)
    }

    /// An open file; `path` is its name in errors. It may have been opened with `O_DIRECT`.
    ///
    /// # Errors
    /// `Device` when its length cannot be had.
    pub fn of(mut file: File, path: &Path) -> Result<Self> {
        let asking = || format!("asking how long {} is", path.display());
        let size = file.seek(SeekFrom::End(0)).device(asking)?;
        let pool = Pool::new(1, WINDOW).context(Kind::Device, || "getting a buffer".into())?;
        Ok(Media { file, path: path.to_owned(), size, pool })
    }
}

impl ReadAt for Media {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<()> {
        let reading = || format!("reading {} at byte {offset}", self.path.display());
        let mut buffer = self.pool.acquire().ok_or_else(|| Error::device(reading()))?;
        let (mut into, mut from) = (into, offset);
        while !into.is_empty() {
            // Whole aligned blocks; the last of a disk may be a part of one, and then a part is read.
            let start = from - from % ALIGNMENT as u64;
            let skip = (from - start) as usize;
            let wanted = (skip + into.len()).next_multiple_of(ALIGNMENT).min(WINDOW);
            let found = read_some(&self.file, &mut buffer[..wanted], start).device(reading)?;
            let useful = found.saturating_sub(skip).min(into.len());
            if useful == 0 {
                return Err(Error::device(format!("{}: it ends before", reading())));
            }
            let (filled, rest) = std::mem::take(&mut into).split_at_mut(useful);
            filled.copy_from_slice(&buffer[skip..skip + useful]);
            (into, from) = (rest, from + useful as u64);
        }
        Ok(())
    }
}

fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_past_the_cache_to_the_last_one_and_not_beyond() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("disk");
        let bytes: Vec<u8> = (0..200_000u32 + 512).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for media in [Media::open(&path).unwrap(), Media::of(File::open(&path).unwrap(), &path).unwrap()] {
            assert_eq!(media.size(), bytes.len() as u64);
            for (offset, len) in [(0, 1), (4095, 2), (1, 150_000), (bytes.len() - 3, 3), (bytes.len(), 0)] {
                let mut into = vec![0; len];
                media.read_at(&mut into, offset as u64).unwrap();
                assert_eq!(into, bytes[offset..offset + len]);
            }
            let error = media.read_at(&mut [0; 4], bytes.len() as u64 - 3).unwrap_err();
            assert!(error.kind() == Kind::Device && error.to_string().ends_with("it ends before"), "{error}");
        }
        assert_eq!(Media::open(&dir.path().join("none")).unwrap_err().kind(), Kind::Device);
    }
}
