//! Zeros onto a target: by the device where that is guaranteed, by writing where it is not.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::target::ZeroPolicy;
use super::writer::Writer;
use crate::error::{Error, Result};
use crate::manifest::ChunkKind;
use crate::progress::Progress;

/// The kernel zeroes at most this much per call, so that cancelling and progress stay prompt.
const STEP: u64 = 1 << 30;

impl Writer {
    /// Makes a raw range read as zeros. A hole keeps what is there where the target allows that.
    ///
    /// # Errors
    /// [`crate::error::Kind::Device`], and `Cancelled` once `is_cancelled` says so.
    pub fn zero(
        &self,
        raw: Range<u64>,
        kind: ChunkKind,
        progress: &Progress,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        for extent in self.target().map(raw) {
            let device = &self.target().devices()[extent.device];
            let mut done = 0;
            while done < extent.len {
                if is_cancelled() {
                    return Err(Error::cancelled("zeroing"));
                }
                let step = (extent.len - done).min(STEP);
                let offset = extent.offset + done;
                let skipped = kind == ChunkKind::Hole && extent.skip_holes;
                let done_by_device = !skipped && extent.zero == ZeroPolicy::Device && device.zero_out(offset, step)?;
                if !skipped && !done_by_device {
                    self.write_zeros(extent.device, offset, step)?;
                }
                progress.zeroed.fetch_add(step, Relaxed);
                done += step;
            }
        }
        Ok(())
    }
}
