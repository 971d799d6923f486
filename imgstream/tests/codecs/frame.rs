//! Frames.

use std::sync::{Arc, OnceLock};

use imgstream::buffer::{ALIGNMENT, Pool};
use imgstream::decode::{CorruptFrame, Decoder};
use imgstream::digest::Digest;
use imgstream::manifest::{ChunkKind, ChunkRow};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::damage::{damaged, edits};

fn compress(raw: &[u8], level: i32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    zstd_safe::compress(&mut frame, raw, level).unwrap();
    frame
}

/// Decodes a frame whose digest is right.
fn decode(frame: &[u8], raw_len: usize) -> Result<Vec<u8>, CorruptFrame> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    let mut buffer = POOL.get_or_init(|| Pool::new(8, 1 << 16).unwrap()).acquire().unwrap();
    buffer.fill(0xa5);
    let digest = Digest::of(frame);
    let row = ChunkRow { kind: ChunkKind::Data, offset: 0, length: frame.len() as u32, digest, raw_digest: digest };
    let chunk = Decoder::new().decode(&row, 0, raw_len, frame, buffer)?;
    assert!(chunk.padded(ALIGNMENT)[raw_len..].iter().all(|byte| *byte == 0), "old bytes show");
    Ok(chunk.bytes().to_vec())
}

/// Chunks that compress well and chunks that do not.
fn raw() -> impl Strategy<Value = Vec<u8>> {
    let repeated = (vec(any::<u8>(), 1..50), 1..1000usize).prop_map(|(word, times)| word.repeat(times));
    prop_oneof![vec(any::<u8>(), 1..5000), repeated]
}

proptest! {
    #[test]
    fn what_is_compressed_is_decoded_and_at_no_other_length(raw in raw(), level in 1..=19i32, other in 1..60_000usize) {
        let frame = compress(&raw, level);
        prop_assert_eq!(decode(&frame, raw.len()), Ok(raw.clone()));
        if other != raw.len() {
            prop_assert!(matches!(decode(&frame, other), Err(CorruptFrame::Format(_))));
        }
    }

    /// Signed damage: refused, or decoded to exactly the length that was asked for.
    #[test]
    fn damage_is_refused_or_has_the_right_length(raw in raw(), edits in edits()) {
        let frame = damaged(&compress(&raw, 3), &edits);
        match decode(&frame, raw.len()) {
            Ok(found) => prop_assert_eq!(found.len(), raw.len()),
            Err(why) => prop_assert!(matches!(why, CorruptFrame::Format(_))),
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), magic in any::<bool>(), raw_len in 1..=65_536usize) {
        let frame = if magic { [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat() } else { bytes };
        if let Ok(found) = decode(&frame, raw_len) {
            prop_assert_eq!(found.len(), raw_len);
        }
    }
}
