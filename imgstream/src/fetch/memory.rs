//! Memory for frames: how much of it, for how many lanes, and its reuse.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::manifest::index::max_frame_len;

/// A permit stands for this many bytes, so that budgets beyond 4 GiB fit a semaphore.
const PERMIT: usize = 1024;
/// Empty buffers for frames that are kept for the next one. A kept buffer is as large as the largest frame it ever held,
/// so only a few are: many small frames must not leave many large buffers behind.
const KEPT_BUFFERS: usize = 6;

/// Requests in flight per source that `bytes` of frames allow: every lane must be able to hold one frame of the largest
/// chunk, or lanes would wait for each other for ever. At least one.
pub fn connections(wanted: usize, bytes: u64, sources: usize, chunk_size: u32) -> usize {
    let frames = bytes / max_frame_len(chunk_size as usize);
    wanted.min(frames as usize / sources.max(1)).max(1)
}

/// A budget of `bytes` for the frames of `lanes` lanes, never less than one frame of the largest chunk for each.
pub fn budget(bytes: u64, lanes: usize, chunk_size: u32) -> Arc<Semaphore> {
    let least = lanes * max_frame_len(chunk_size as usize) as usize;
    let bytes = (bytes as usize).max(least);
    Arc::new(Semaphore::new((bytes / PERMIT + lanes).min(Semaphore::MAX_PERMITS)))
}

/// Permits of the budget that a frame of `len` bytes needs.
pub(super) fn permits(len: usize) -> u32 {
    len.div_ceil(PERMIT) as u32
}

/// Buffers for frames, used again and again.
#[derive(Debug, Default)]
pub struct FrameBuffers(Mutex<Vec<Vec<u8>>>);

impl FrameBuffers {
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(len);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
    }
}
