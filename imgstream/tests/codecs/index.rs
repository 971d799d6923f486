//! Indexes. Round trips and any bytes are tried beside the code; here is damage.

use imgstream::digest::Digest;
use imgstream::manifest::index::{SpanIndex, ZeroDigests, seek_table_len};
use imgstream::manifest::{ChunkKind, ChunkRow};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::damage::{damaged, edits};

fn index() -> impl Strategy<Value = SpanIndex> {
    (vec((any::<[u8; 32]>(), 1..60_000u32, 0..3usize), 1..20), 30_000..=65_536u64).prop_map(|(parts, last)| {
        let (mut zeros, mut offset, count) = (ZeroDigests::default(), 0, parts.len());
        let row = |(number, (bytes, length, kind)): (usize, ([u8; 32], u32, usize))| {
            let raw_len = if number + 1 == count { last as usize } else { 65_536 };
            let kind = [ChunkKind::Data, ChunkKind::Zero, ChunkKind::Hole][kind];
            let digest = Digest::from_bytes(bytes);
            let raw_digest = if kind == ChunkKind::Data { digest } else { zeros.of_len(raw_len) };
            let length = length.min(30_000);
            offset += u64::from(length);
            ChunkRow { kind, offset: offset - u64::from(length), length, digest, raw_digest }
        };
        let rows: Vec<ChunkRow> = parts.into_iter().enumerate().map(row).collect();
        let raw_length = (count as u64 - 1) * 65_536 + last;
        SpanIndex::new(65_536, raw_length, offset + seek_table_len(count), rows).unwrap()
    })
}

proptest! {
    #[test]
    fn damage_is_refused_or_gives_the_one_index_that_is_written_so(index in index(), edits in edits()) {
        let damaged = damaged(&index.encode(), &edits);
        if let Ok(found) = SpanIndex::decode(&damaged) {
            prop_assert_eq!(found.encode(), damaged);
            let frames: u64 = found.rows().iter().map(|row| u64::from(row.length)).sum();
            prop_assert_eq!(frames + found.seek_table().len() as u64, found.data_size());
        }
    }

    /// Every byte of an index says something: none can be another without the index being another or none.
    #[test]
    fn no_byte_is_without_meaning(index in index(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = index.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(SpanIndex::decode(&bytes).ok(), Some(index));
    }
}
