//! Frames that are signed and wrong: the digest is always right, so that every byte reaches the checks behind it.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use imgstream::buffer::{ALIGNMENT, Pool};
use imgstream::decode::{CorruptFrame, Decoder};
use imgstream::digest::Digest;
use imgstream::manifest::{ChunkKind, ChunkRow};

/// The largest chunk tried.
const LARGEST: usize = 1 << 16;

/// The first two bytes say how long the chunk is (one more than their number, little-endian), the rest is its frame.
pub fn chunk(data: &[u8]) -> bool {
    let Some(([low, high], frame)) = data.split_first_chunk::<2>() else { return false };
    let raw_len = usize::from(u16::from_le_bytes([*low, *high])) + 1;
    let digest = Digest::of(frame);
    let accepted = match decode(digest, raw_len, frame) {
        Ok(raw) => {
            assert_eq!(raw.len(), raw_len);
            assert_eq!(Some(raw), other_reading(frame, raw_len), "two ways to decode differ");
            true
        }
        Err(CorruptFrame::Format(why)) => {
            assert!(!why.is_empty());
            false
        }
        Err(other) => panic!("length and digest are right: {other}"),
    };
    let refused = decode(Digest::of(b"another frame"), raw_len, frame);
    assert!(matches!(refused, Err(CorruptFrame::Digest { .. })), "a wrong digest was overlooked");
    accepted
}

fn decode(digest: Digest, raw_len: usize, frame: &[u8]) -> Result<Vec<u8>, CorruptFrame> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    thread_local! {
        static DECODER: RefCell<Decoder> = RefCell::default();
    }
    let pool = POOL.get_or_init(|| Pool::new(4, LARGEST).expect("memory"));
    let mut buffer = pool.acquire().expect("the pool is never closed");
    buffer.fill(0xa5);
    let length = u32::try_from(frame.len()).expect("a small frame");
    let row = ChunkRow { kind: ChunkKind::Data, offset: 0, length, digest, raw_digest: digest };
    let chunk = DECODER.with_borrow_mut(|decoder| decoder.decode(&row, 0, raw_len, frame, buffer))?;
    let padded = chunk.padded(ALIGNMENT);
    assert!(padded[raw_len..].iter().all(|byte| *byte == 0), "another chunk's bytes show behind this one");
    Ok(chunk.bytes().to_vec())
}

/// What zstd's streaming decoder makes of the frame, piece by piece and with a byte more room than there should be.
fn other_reading(frame: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let mut stream = zstd_safe::DCtx::create();
    let mut raw = vec![0; raw_len + 1];
    let mut output = zstd_safe::OutBuffer::around(&mut raw[..]);
    for piece in frame.chunks(61) {
        let mut input = zstd_safe::InBuffer::around(piece);
        while input.pos() < piece.len() {
            stream.decompress_stream(&mut output, &mut input).ok()?;
            if output.pos() > raw_len {
                return None;
            }
        }
    }
    let len = output.pos();
    raw.truncate(len);
    Some(raw)
}
