//! One chunk: raw bytes → kind, frame and digests. Deterministic: the same bytes and level give the same frame.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::ChunkKind;

/// A chunk as it goes into the image.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) kind: ChunkKind,
    pub(super) raw_len: usize,
    pub(super) raw_digest: Digest,
    pub(super) digest: Digest,
    pub(super) frame: Arc<Vec<u8>>,
}

/// Compresses chunks. One per worker.
pub(super) struct Encoder {
    context: CCtx<'static>,
}

impl Encoder {
    pub(super) fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::create();
        for parameter in
            [CParameter::CompressionLevel(level), CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(false)]
        {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        Ok(Encoder { context })
    }

    /// A data chunk.
    pub(super) fn data(&mut self, raw: &[u8]) -> Result<Encoded> {
        let mut frame = Vec::with_capacity(compress_bound(raw.len()));
        self.context.compress2(&mut frame, raw).map_err(zstd_error)?;
        // What waits in the queue should hold what it needs, not the worst case.
        frame.shrink_to_fit();
        Ok(Encoded {
            kind: ChunkKind::Data,
            raw_len: raw.len(),
            raw_digest: Digest::of(raw),
            digest: Digest::of(&frame),
            frame: Arc::new(frame),
        })
    }
}

fn zstd_error(code: usize) -> Error {
    Error::device(format!("zstd failed to compress: {}", get_error_name(code)))
}

/// The frames of zeros, made once per length.
pub(super) struct Zeros {
    level: i32,
    known: Mutex<HashMap<usize, Encoded>>,
}

impl Zeros {
    pub(super) fn new(level: i32) -> Self {
        Zeros { level, known: Mutex::default() }
    }

    /// A chunk of `raw_len` zeros, as a zero or a hole.
    pub(super) fn chunk(&self, kind: ChunkKind, raw_len: usize) -> Result<Encoded> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&raw_len) {
            return Ok(Encoded { kind, ..found.clone() });
        }
        let made = Encoder::new(self.level)?.data(&vec![0; raw_len])?;
        known.insert(raw_len, made.clone());
        Ok(Encoded { kind, ..made })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_give_the_same_frame() {
        let raw: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut used = Encoder::new(3).unwrap();
        used.data(b"something else before").unwrap();
        let again = used.data(&raw).unwrap();
        assert_eq!(Encoder::new(3).unwrap().data(&raw).unwrap().frame, again.frame);
    }
}
