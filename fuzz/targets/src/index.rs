//! Indexes: there is one way to write each, and what is accepted leads nowhere outside its blob and its span.

use imgstream::manifest::index::{SpanIndex, seek_table_len};
use imgstream::manifest::{ChunkKind, index::ZeroDigests};

/// Reads the bytes as an index.
pub fn index(data: &[u8]) -> bool {
    let found = match SpanIndex::decode(data) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    assert_eq!(found.encode(), data, "there is one way to write an index");
    let (mut raw, mut packed, mut zeros) = (0, 0, ZeroDigests::default());
    for (number, row) in found.rows().iter().enumerate() {
        let (start, len) = found.raw_range(number);
        assert_eq!((start, row.offset), (raw, packed));
        assert!((1..=found.chunk_size() as usize).contains(&len) && row.length > 0);
        assert!(row.length as usize <= len + len / 128 + 512);
        assert!(row.kind == ChunkKind::Data || row.raw_digest == zeros.of_len(len));
        raw += len as u64;
        packed += u64::from(row.length);
    }
    assert_eq!(raw, found.raw_length());
    let seek_table = found.seek_table();
    assert_eq!(seek_table.len() as u64, seek_table_len(found.rows().len()));
    assert_eq!(packed + seek_table.len() as u64, found.data_size());
    true
}
