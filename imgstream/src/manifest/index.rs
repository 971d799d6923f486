//! The chunk index of one span: a fixed-width little-endian table, one row per chunk (`docs/format.md` §5).
//!
//! It holds no absolute raw offset, so that equal spans have equal indexes and are stored once.

use super::{MAX_CHUNK_SIZE, MAX_CHUNKS_PER_SPAN, MIN_CHUNK_SIZE};
use crate::digest::Digest;
use crate::little_endian::{array_at, u32_at, u64_at};

/// First eight bytes of an index: a name and the version.
pub const MAGIC: [u8; 8] = *b"ZPINDEX\x01";
/// Bytes before the first row.
pub const HEADER_LEN: usize = 32;
/// Bytes per row.
pub const ROW_LEN: usize = 80;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Bytes to fetch, verify and write.
    Data = 1,
    /// Zeros. Never fetched; must read back as zeros.
    Zero = 2,
    /// Content unspecified: the packer vouched that nobody reads it. Unpacks as zeros.
    Hole = 3,
}

/// One chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRow {
    /// What it holds.
    pub kind: ChunkKind,
    /// Where its frame starts in the data blob, in bytes.
    pub offset: u64,
    /// Length of its frame in bytes.
    pub length: u32,
    /// Digest of the frame.
    pub digest: Digest,
    /// Digest of the raw bytes.
    pub raw_digest: Digest,
}

/// A checked index: every invariant of the specification holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanIndex {
    chunk_size: u32,
    raw_length: u64,
    data_size: u64,
    rows: Vec<ChunkRow>,
}

/// Why bytes are not an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexError(String);

impl std::fmt::Display for IndexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IndexError {}

fn refuse<T>(why: impl Into<String>) -> Result<T, IndexError> {
    Err(IndexError(why.into()))
}

/// Bytes of an index over `raw_length` bytes in chunks of `chunk_size`.
pub fn encoded_len(raw_length: u64, chunk_size: u32) -> u64 {
    HEADER_LEN as u64 + raw_length.div_ceil(u64::from(chunk_size)) * ROW_LEN as u64
}

impl SpanIndex {
    /// Joins rows into an index.
    ///
    /// # Errors
    /// When an invariant does not hold: geometry out of bounds, rows missing, frames not adjacent, a zero or hole row
    /// whose raw digest is not that of zeros.
    pub fn new(chunk_size: u32, raw_length: u64, data_size: u64, rows: Vec<ChunkRow>) -> Result<Self, IndexError> {
        let index = SpanIndex { chunk_size, raw_length, data_size, rows };
        index.check_geometry()?;
        index.check_rows()?;
        Ok(index)
    }

    /// Reads an index. `bytes` must be exactly one index.
    ///
    /// # Errors
    /// When the bytes are not an index or an invariant does not hold. Never allocates more than `bytes` justifies.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let Some((header, table)) = bytes.split_at_checked(HEADER_LEN) else {
            return refuse(format!("{} bytes are too few for an index", bytes.len()));
        };
        if header[..8] != MAGIC {
            return refuse("it does not start with the index magic of version 1");
        }
        let chunk_size = u32_at(header, 8);
        let count = u32_at(header, 12) as usize;
        if table.len() != count.saturating_mul(ROW_LEN) {
            return refuse(format!("its header says {count} rows, its length {} bytes", bytes.len()));
        }
        let rows = table.chunks_exact(ROW_LEN).map(decode_row).collect::<Result<Vec<_>, _>>()?;
        Self::new(chunk_size, u64_at(header, 16), u64_at(header, 24), rows)
    }

    /// Writes the index.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.rows.len() * ROW_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.chunk_size.to_le_bytes());
        bytes.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.raw_length.to_le_bytes());
        bytes.extend_from_slice(&self.data_size.to_le_bytes());
        for row in &self.rows {
            bytes.extend_from_slice(&[row.kind as u8, 0, 0, 0]);
            bytes.extend_from_slice(&row.length.to_le_bytes());
            bytes.extend_from_slice(&row.offset.to_le_bytes());
            bytes.extend_from_slice(row.digest.as_bytes());
            bytes.extend_from_slice(row.raw_digest.as_bytes());
        }
        bytes
    }

    /// Raw bytes per chunk; the last chunk may be shorter.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Raw bytes the span covers.
    pub fn raw_length(&self) -> u64 {
        self.raw_length
    }

    /// Length of the data blob, its seek table included.
    pub fn data_size(&self) -> u64 {
        self.data_size
    }

    /// The chunks in order.
    pub fn rows(&self) -> &[ChunkRow] {
        &self.rows
    }

    /// Raw offset within the span, and raw length, of chunk `number`.
    pub fn raw_range(&self, number: usize) -> (u64, usize) {
        let start = number as u64 * u64::from(self.chunk_size);
        let length = (self.raw_length - start).min(u64::from(self.chunk_size));
        (start, length as usize)
    }

    /// The seek table that ends the data blob: zstd's seekable format 0.1.0 without checksums, a skippable frame with the
    /// compressed and raw length of every frame, little-endian.
    /// Source: zstd, `contrib/seekable_format/zstd_seekable_compression_format.md`.
    pub fn seek_table(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(seek_table_len(self.rows.len()) as usize);
        table.extend_from_slice(&0x184D_2A5Eu32.to_le_bytes());
        table.extend_from_slice(&(seek_table_len(self.rows.len()) as u32 - 8).to_le_bytes());
        for (number, row) in self.rows.iter().enumerate() {
            table.extend_from_slice(&row.length.to_le_bytes());
            table.extend_from_slice(&(self.raw_range(number).1 as u32).to_le_bytes());
        }
        table.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        table.push(0);
        table.extend_from_slice(&0x8F92_EAB1u32.to_le_bytes());
        table
    }

    fn check_geometry(&self) -> Result<(), IndexError> {
        let SpanIndex { chunk_size, raw_length, rows, .. } = self;
        if !chunk_size.is_power_of_two() || !(MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(chunk_size) {
            return refuse(format!("chunk size {chunk_size} is not a power of two from 64 KiB to 8 MiB"));
        }
        let chunks = raw_length.div_ceil(u64::from(*chunk_size));
        if chunks == 0 || chunks > MAX_CHUNKS_PER_SPAN {
            return refuse(format!("{chunks} chunks in a span; 1 to {MAX_CHUNKS_PER_SPAN} are allowed"));
        }
        if rows.len() as u64 != chunks {
            return refuse(format!("{} rows for {chunks} chunks", rows.len()));
        }
        Ok(())
    }

    fn check_rows(&self) -> Result<(), IndexError> {
        let mut zeros = ZeroDigests::default();
        let mut end = 0u64;
        for (number, row) in self.rows.iter().enumerate() {
            let (_, raw_len) = self.raw_range(number);
            if row.offset != end {
                return refuse(format!("chunk {number} starts at {} instead of {end}", row.offset));
            }
            if row.length == 0 || u64::from(row.length) > max_frame_len(raw_len) {
                return refuse(format!("chunk {number} has a frame of {} bytes for {raw_len} raw bytes", row.length));
            }
            end += u64::from(row.length);
            if row.kind != ChunkKind::Data && row.raw_digest != zeros.of_len(raw_len) {
                return refuse(format!("chunk {number} is marked as zeros but its digest is not that of zeros"));
            }
        }
        let seek_table = seek_table_len(self.rows.len());
        if end + seek_table != self.data_size {
            return refuse(format!(
                "frames of {end} and a seek table of {seek_table} bytes in {} bytes",
                self.data_size
            ));
        }
        Ok(())
    }
}

/// Bytes of the seek table (zstd seekable format, without checksums) for `frames` frames.
pub fn seek_table_len(frames: usize) -> u64 {
    8 + 8 * frames as u64 + 9
}

/// The longest frame accepted for `raw_len` bytes: zstd's own worst case (ZSTD_COMPRESSBOUND) is lower.
pub fn max_frame_len(raw_len: usize) -> u64 {
    raw_len as u64 + raw_len as u64 / 128 + 512
}

/// Digests of zeros, computed once per length: a span has at most two lengths of chunk.
#[derive(Default)]
pub struct ZeroDigests(Vec<(usize, Digest)>);

impl ZeroDigests {
    /// The digest of `len` zero bytes.
    pub fn of_len(&mut self, len: usize) -> Digest {
        if let Some((_, digest)) = self.0.iter().find(|(known, _)| *known == len) {
            return *digest;
        }
        let digest = Digest::of(&vec![0; len]);
        self.0.push((len, digest));
        digest
    }
}

fn decode_row(row: &[u8]) -> Result<ChunkRow, IndexError> {
    let kind = match row[0] {
        1 => ChunkKind::Data,
        2 => ChunkKind::Zero,
        3 => ChunkKind::Hole,
        other => return refuse(format!("unknown chunk kind {other}")),
    };
    if row[1..4] != [0; 3] {
        return refuse("reserved bytes of a row are not zero");
    }
    Ok(ChunkRow {
        kind,
        length: u32_at(row, 4),
        offset: u64_at(row, 8),
        digest: digest_at(row, 16),
        raw_digest: digest_at(row, 48),
    })
}

fn digest_at(bytes: &[u8], at: usize) -> Digest {
    Digest::from_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arbitrary_index() -> impl Strategy<Value = SpanIndex> {
        let row = (any::<[u8; 32]>(), 1u32..60_000, 0u8..3);
        (proptest::collection::vec(row, 1..40), 1u64..=65536).prop_map(|(rows, last)| {
            let mut zeros = ZeroDigests::default();
            let count = rows.len();
            let raw_length = (count as u64 - 1) * 65536 + last;
            let mut offset = 0;
            let rows: Vec<ChunkRow> = rows
                .into_iter()
                .enumerate()
                .map(|(number, (bytes, length, kind))| {
                    let raw_len = if number + 1 == count { last as usize } else { 65536 };
                    let kind = [ChunkKind::Data, ChunkKind::Zero, ChunkKind::Hole][kind as usize];
                    let length = length.min(raw_len as u32);
                    let raw_digest = match kind {
                        ChunkKind::Data => Digest::of(&bytes),
                        _ => zeros.of_len(raw_len),
                    };
                    let row = ChunkRow { kind, offset, length, digest: Digest::from_bytes(bytes), raw_digest };
                    offset += u64::from(length);
                    row
                })
                .collect();
            let data_size = offset + seek_table_len(rows.len());
            SpanIndex::new(65536, raw_length, data_size, rows).unwrap()
        })
    }

    proptest! {
        #[test]
        fn round_trip(index in arbitrary_index()) {
            let bytes = index.encode();
            prop_assert_eq!(bytes.len() as u64, encoded_len(index.raw_length(), index.chunk_size()));
            prop_assert_eq!(SpanIndex::decode(&bytes), Ok(index));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SpanIndex::decode(&bytes);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let _ = SpanIndex::decode(&with_magic);
        }

        #[test]
        fn a_changed_header_or_geometry_is_refused(index in arbitrary_index(), at in 0usize..HEADER_LEN, bit in 0u8..8) {
            let mut bytes = index.encode();
            bytes[at] ^= 1 << bit;
            // A shorter last chunk is another valid geometry unless that chunk's own invariants catch it.
            if !(16..24).contains(&at) {
                prop_assert!(SpanIndex::decode(&bytes).is_err());
            }
        }
    }

    #[test]
    fn a_zero_row_with_another_digest_is_refused() {
        let row = ChunkRow {
            kind: ChunkKind::Zero,
            offset: 0,
            length: 20,
            digest: Digest::of(b"frame"),
            raw_digest: Digest::of(b"not zeros"),
        };
        let refused = SpanIndex::new(65536, 65536, 20 + seek_table_len(1), vec![row]);
        assert!(refused.unwrap_err().to_string().contains("zeros"));
    }
}
