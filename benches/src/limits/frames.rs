//! Our own frames, cut out of the data blobs for `zstd -b`, which decodes one frame per file.
//!
//! Where the frames are stands in the seek table at a blob's end (zstd's seekable format).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};

const FOOTER: usize = 9;
const MAGIC: u32 = 0x8F92_EAB1;
const ENTRY: usize = 8;

/// A frame that shrank to less than a thousandth holds nothing but zeros, and is not decoded by anybody.
const MOST_RATIO: u64 = 1000;

/// A frame in a blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    at: u64,
    compressed: u64,
    raw: u64,
}

/// The frames of an image that hold data.
pub struct Frames {
    blobs: Vec<(PathBuf, Vec<Frame>)>,
}

impl Frames {
    /// Reads the seek tables of `blobs`.
    pub fn of(blobs: &[PathBuf]) -> Result<Self> {
        let read = |blob: &PathBuf| {
            let what = format!("could not read the seek table of {}", blob.display());
            Ok((blob.clone(), table(blob).context(&what)?))
        };
        let blobs = blobs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let frames = Self { blobs };
        if frames.raw_bytes() == 0 {
            return Err(Failure::new("the image has no frame with data"));
        }
        Ok(frames)
    }

    /// Bytes that the frames hold when decoded.
    pub fn raw_bytes(&self) -> u64 {
        self.blobs.iter().flat_map(|(_, frames)| frames).map(|frame| frame.raw).sum()
    }

    /// Writes at most `most` frames, evenly spread over the image, each to a file of its own in `folder`.
    pub fn sample(&self, folder: &Path, most: usize) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(folder).context(format!("could not create {}", folder.display()))?;
        let all = || self.blobs.iter().flat_map(|(blob, frames)| frames.iter().map(move |frame| (blob, frame)));
        let step = all().count().div_ceil(most).max(1);
        let mut files = Vec::new();
        for (blob, frame) in all().step_by(step) {
            let mut bytes = vec![0; usize::try_from(frame.compressed).context("a frame too large for memory")?];
            let read = File::open(blob).and_then(|file| file.read_exact_at(&mut bytes, frame.at));
            read.context(format!("could not read a frame of {}", blob.display()))?;
            let path = folder.join(format!("{}.zst", files.len()));
            fs::write(&path, bytes).context(format!("could not write {}", path.display()))?;
            files.push(path);
        }
        Ok(files)
    }
}

fn table(blob: &Path) -> Result<Vec<Frame>> {
    let file = File::open(blob).context("could not open it")?;
    let length = file.metadata().context("could not look at it")?.len();
    let mut footer = [0; FOOTER];
    let footer_at = length.checked_sub(FOOTER as u64).context("it is too short")?;
    file.read_exact_at(&mut footer, footer_at).context("could not read its end")?;
    let entries = entries(&footer)?;
    let at = footer_at.checked_sub((entries * ENTRY) as u64).context("it is too short for its table")?;
    let mut bytes = vec![0; entries * ENTRY];
    file.read_exact_at(&mut bytes, at).context("could not read its table")?;
    Ok(parse(&bytes))
}

/// The number of entries that a seek table's last bytes tell.
fn entries(footer: &[u8; FOOTER]) -> Result<usize> {
    let (count, flags, magic) = (&footer[..4], footer[4], &footer[5..]);
    if magic != MAGIC.to_le_bytes() || flags != 0 {
        return Err(Failure::new("it does not end in a seek table without checksums"));
    }
    let count = count.try_into().map(u32::from_le_bytes).context("a short footer")?;
    usize::try_from(count).context("an impossible number of frames")
}

fn parse(table: &[u8]) -> Vec<Frame> {
    let mut at = 0;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let all = table.chunks_exact(ENTRY).map(|entry| {
        let frame = Frame { at, compressed: number(&entry[..4]), raw: number(&entry[4..]) };
        at += frame.compressed;
        frame
    });
    all.filter(|frame| frame.compressed * MOST_RATIO > frame.raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seek_tables_are_read_and_zeros_left_out() {
        let table: Vec<u8> = [500u32, 2000, 20, 2_097_152, 700, 3000].iter().flat_map(|n| n.to_le_bytes()).collect();
        let expected = [Frame { at: 0, compressed: 500, raw: 2000 }, Frame { at: 520, compressed: 700, raw: 3000 }];
        assert_eq!(parse(&table), expected);
        assert_eq!(entries(&[3, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]).unwrap(), 3);
        assert!(entries(&[3, 0, 0, 0, 0x80, 0xb1, 0xea, 0x92, 0x8f]).is_err());
        assert!(entries(&[0; 9]).is_err());
    }
}
