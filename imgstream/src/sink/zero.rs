//! Zeros onto a target: by the device where that is guaranteed, by writing where it is not.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::target::{Place, ZeroPolicy};
use super::writer::Writer;
use crate::error::{Error, Result};
use crate::manifest::ChunkKind;
use crate::progress::Progress;

/// The kernel zeroes or discards at most this much per call, so that cancelling and progress stay prompt.
const STEP: u64 = 1 << 30;
/// What is written is counted, and may be cancelled, this often.
const WRITTEN_STEP: u64 = 64 << 20;

/// How zeros came onto a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zeroed {
    /// By the device, which the kernel vouches for.
    ByDevice,
    /// By writing, all of it or a part.
    ByWriting,
}

impl Writer {
    /// Makes a raw range read as zeros. A hole keeps what is there where the target allows that, and what lies nowhere is zeros.
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
            match extent.place {
                Place::Device { device, offset, zero, skip_holes } if kind != ChunkKind::Hole || !skip_holes => {
                    self.zero_device(device, offset..offset + extent.len, zero, &progress.zeroed, is_cancelled)?;
                }
                _ => drop(progress.zeroed.fetch_add(extent.len, Relaxed)),
            }
        }
        Ok(())
    }

    /// Makes part of a device read as zeros, counting them. What was written is in flight when this returns.
    ///
    /// # Errors
    /// [`crate::error::Kind::Device`], and `Cancelled` once `is_cancelled` says so.
    pub fn zero_device(
        &self,
        device: usize,
        range: Range<u64>,
        policy: ZeroPolicy,
        counter: &AtomicU64,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Zeroed> {
        let mut how = Zeroed::ByDevice;
        let mut offset = range.start;
        while offset < range.end {
            if is_cancelled() {
                return Err(Error::cancelled("zeroing"));
            }
            let mut step = (range.end - offset).min(STEP);
            if policy == ZeroPolicy::Write || !self.target().devices()[device].zero_out(offset, step)? {
                how = Zeroed::ByWriting;
                step = step.min(WRITTEN_STEP);
                self.write_zeros(device, offset, step)?;
            }
            counter.fetch_add(step, Relaxed);
            offset += step;
        }
        Ok(how)
    }

    /// Tells a device that a range, of whole sectors, is not needed any more, counting it. `false` when it knows no such
    /// thing. What is read there afterwards is the device's choice.
    ///
    /// # Errors
    /// [`crate::error::Kind::Device`], and `Cancelled` once `is_cancelled` says so.
    pub fn discard_device(
        &self,
        device: usize,
        range: Range<u64>,
        counter: &AtomicU64,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let mut offset = range.start;
        while offset < range.end {
            if is_cancelled() {
                return Err(Error::cancelled("discarding"));
            }
            let step = (range.end - offset).min(STEP);
            if !self.target().devices()[device].discard(offset, step)? {
                return Ok(false);
            }
            counter.fetch_add(step, Relaxed);
            offset += step;
        }
        Ok(true)
    }
}
