//! Untrusted frame → verified chunk. This is the only place that can make a [`VerifiedChunk`], and sinks take nothing else.
//!
//! Order: length, digest of the compressed bytes, frame header, and only then the decompressor, into a buffer of exactly
//! the chunk's length. More, less, a second frame or trailing bytes are errors.

use std::fmt;

use zstd_safe::{DCtx, get_error_name};

use crate::buffer::Buffer;
use crate::digest::Digest;
use crate::error::Error;
use crate::gpt;
use crate::manifest::index::ChunkRow;

/// Raw bytes of one chunk that are proven to be the image's. Its fields are private to this module on purpose.
#[derive(Debug)]
pub struct VerifiedChunk {
    buffer: Buffer,
    len: usize,
    raw_offset: u64,
}

impl VerifiedChunk {
    /// Where the chunk lies in the raw image.
    pub fn raw_offset(&self) -> u64 {
        self.raw_offset
    }

    /// The chunk's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The same chunk as it belongs on a device whose size moves the image's partition table: the one change that verified
    /// bytes may undergo, and only [`crate::gpt`] can say it.
    pub fn placed(mut self, by: &gpt::Move) -> Self {
        let (start, end) = (self.raw_offset, self.raw_offset + self.len as u64);
        for patch in &by.inside {
            let (from, to) = (patch.offset().max(start), (patch.offset() + patch.bytes().len() as u64).min(end));
            if from < to {
                let new = &patch.bytes()[(from - patch.offset()) as usize..(to - patch.offset()) as usize];
                self.buffer[(from - start) as usize..(to - start) as usize].copy_from_slice(new);
            }
        }
        self
    }

    /// The chunk's bytes and the zeros after them, up to the next multiple of `alignment` (a power of two of at most
    /// [`crate::buffer::ALIGNMENT`]), for a device that takes only whole blocks.
    pub fn padded(&self, alignment: usize) -> &[u8] {
        &self.buffer[..self.len.next_multiple_of(alignment)]
    }
}

/// A frame that is not the chunk its index row promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorruptFrame {
    /// It has another length.
    Length {
        /// Bytes promised.
        expected: u32,
        /// Bytes there.
        found: usize,
    },
    /// It has another digest.
    Digest {
        /// Digest promised.
        expected: Digest,
        /// Digest of what came.
        found: Digest,
    },
    /// The digest is right, but the frame breaks the format: the image was packed wrongly, no source can help.
    Format(String),
}

impl fmt::Display for CorruptFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CorruptFrame::Length { expected, found } => {
                write!(f, "{found} bytes came instead of {expected}")
            }
            CorruptFrame::Digest { expected, found } => {
                write!(f, "its digest is {found} instead of {expected}")
            }
            CorruptFrame::Format(why) => write!(f, "its digest is right, but {why}"),
        }
    }
}

impl std::error::Error for CorruptFrame {}

impl CorruptFrame {
    /// The error for `chunk`: the image's fault where the frame is signed but wrong, else whoever sent it.
    pub fn into_error(self, chunk: &str) -> Error {
        match self {
            CorruptFrame::Format(_) => Error::image(format!("{chunk} is signed but wrong: {self}"))
                .with_hint("the image was packed wrongly: no source can help, pack it again"),
            _ => Error::corrupt(format!("{chunk} came corrupted: {self}"))
                .with_hint("check the image where it lies with `imgstream verify`, and what is between"),
        }
        .with_source(self)
    }
}

/// A decompressor, reused from chunk to chunk. One per worker.
pub struct Decoder {
    context: DCtx<'static>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A fresh decompressor.
    pub fn new() -> Self {
        Decoder { context: DCtx::create() }
    }

    /// Verifies `frame` against `row` and decodes it into `buffer`, which must hold `raw_len` bytes.
    ///
    /// # Errors
    /// [`CorruptFrame`]; the buffer has then gone back to its pool, and nothing of it can be written.
    pub fn decode(
        &mut self,
        row: &ChunkRow,
        raw_offset: u64,
        raw_len: usize,
        frame: &[u8],
        mut buffer: Buffer,
    ) -> Result<VerifiedChunk, CorruptFrame> {
        verify(row, frame)?;
        check_header(frame, raw_len)?;
        let broken = |code| CorruptFrame::Format(format!("zstd says {}", get_error_name(code)));
        let frame_len = zstd_safe::find_frame_compressed_size(frame).map_err(broken)?;
        if frame_len != frame.len() {
            return Err(CorruptFrame::Format(format!("{} bytes follow its frame", frame.len() - frame_len)));
        }
        let written = self.context.decompress(&mut buffer[..raw_len], frame).map_err(broken)?;
        if written != raw_len {
            return Err(CorruptFrame::Format(format!("it decodes to {written} bytes instead of {raw_len}")));
        }
        // What lies between the chunk and the next device block was another chunk's: never let it reach a disk.
        let padded = raw_len.next_multiple_of(crate::buffer::ALIGNMENT);
        buffer[raw_len..padded].fill(0);
        Ok(VerifiedChunk { buffer, len: raw_len, raw_offset })
    }
}

fn verify(row: &ChunkRow, frame: &[u8]) -> Result<(), CorruptFrame> {
    if frame.len() != row.length as usize {
        return Err(CorruptFrame::Length { expected: row.length, found: frame.len() });
    }
    let found = Digest::of(frame);
    if found != row.digest {
        return Err(CorruptFrame::Digest { expected: row.digest, found });
    }
    Ok(())
}

/// Checks the zstd frame header (RFC 8878 §3.1.1.1): an ordinary frame, no dictionary, content size present and right,
/// window within [`crate::manifest::MAX_CHUNK_SIZE`].
fn check_header(frame: &[u8], raw_len: usize) -> Result<(), CorruptFrame> {
    let refuse = |why: &str| Err(CorruptFrame::Format(why.to_owned()));
    let Some(([b0, b1, b2, b3, flags], rest)) = frame.split_first_chunk::<5>() else {
        return refuse("it is too short for a zstd frame");
    };
    if u32::from_le_bytes([*b0, *b1, *b2, *b3]) != 0xFD2F_B528 {
        return refuse("it is not a zstd frame");
    }
    let single_segment = flags & 0x20 != 0;
    if flags & 0x08 != 0 || flags & 0x03 != 0 {
        return refuse("its zstd frame uses a reserved bit or a dictionary");
    }
    if !single_segment {
        let Some(window) = rest.first() else {
            return refuse("its zstd frame header is cut off");
        };
        let base = 1u64 << (10 + (window >> 3));
        if base + base / 8 * u64::from(window & 7) > u64::from(crate::manifest::MAX_CHUNK_SIZE) {
            return refuse("its zstd frame wants a window beyond 8 MiB");
        }
    }
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size == raw_len as u64 => Ok(()),
        Ok(Some(size)) => {
            Err(CorruptFrame::Format(format!("its zstd frame promises {size} bytes instead of {raw_len}")))
        }
        _ => refuse("its zstd frame does not say how long its content is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use crate::manifest::index::ChunkKind;

    fn compress(raw: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
        zstd_safe::compress(&mut frame, raw, 3).unwrap();
        frame
    }

    fn decode_as(frame: &[u8], claimed: &[u8], raw_len: usize) -> Result<Vec<u8>, CorruptFrame> {
        let row = ChunkRow {
            kind: ChunkKind::Data,
            offset: 0,
            length: claimed.len() as u32,
            digest: Digest::of(claimed),
            raw_digest: Digest::of(b""),
        };
        let pool = Pool::new(1, 65536).unwrap();
        let chunk = Decoder::new().decode(&row, 0, raw_len, frame, pool.acquire().unwrap())?;
        Ok(chunk.bytes().to_vec())
    }

    fn refused(frame: &[u8], raw_len: usize) -> String {
        decode_as(frame, frame, raw_len).unwrap_err().to_string()
    }

    #[test]
    fn a_right_frame_decodes() {
        let raw: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_le_bytes()).take(65536).collect();
        let frame = compress(&raw);
        assert_eq!(decode_as(&frame, &frame, raw.len()), Ok(raw));
    }

    #[test]
    fn every_flipped_bit_is_refused_before_decoding() {
        let frame = compress(b"some content, some content, some content");
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_as(&bad, &frame, 40), Err(CorruptFrame::Digest { .. })));
        }
        assert!(matches!(decode_as(&frame[1..], &frame, 40), Err(CorruptFrame::Length { .. })));
    }

    #[test]
    fn signed_but_wrong_frames_are_refused() {
        let frame = compress(&[7; 1000]);
        assert!(refused(&frame, 999).contains("promises 1000"));
        assert!(refused(&[frame.clone(), frame.clone()].concat(), 1000).contains("follow its frame"));
        assert!(refused(&[frame.clone(), vec![0]].concat(), 1000).contains("follow its frame"));
        let skippable = [&0x184D_2A5Eu32.to_le_bytes()[..], &4u32.to_le_bytes(), b"skip"].concat();
        assert!(refused(&skippable, 1000).contains("not a zstd frame"));
        assert!(refused(b"", 1000).contains("too short"));
        assert!(refused(&frame[..frame.len() - 1], 1000).contains("zstd says"));
        // Window descriptor 0xff: exponent 31, far beyond 8 MiB.
        assert!(refused(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0], 1000).contains("window"));
    }
}
