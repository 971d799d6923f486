//! Media → digests: reads what a target holds and compares it with the index. The media decide, not what was written.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::abort::Abort;
use crate::buffer::Pool;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::manifest::ChunkKind;
use crate::plan::SpanPlan;
use crate::progress::Progress;
use crate::sink::Target;

/// Threads that read and hash: more than cores, so that the device has requests while digests are computed.
const THREADS_PER_CORE: usize = 3;

/// Compares the chunks of a span for which `select(raw offset, raw length)` holds. Returns the numbers of those that
/// differ, in order. Holes have no content to compare.
///
/// # Errors
/// [`crate::error::Kind::Device`] when the media cannot be read; `Cancelled` once the run is over.
pub fn compare(
    span: &SpanPlan,
    target: &Target,
    pool: &std::sync::Arc<Pool>,
    select: &(dyn Fn(u64, usize) -> bool + Sync),
    progress: &Progress,
    abort: &Abort,
) -> Result<Vec<usize>> {
    let selected: Vec<usize> = span
        .index
        .rows()
        .iter()
        .enumerate()
        .filter(|(_, row)| row.kind != ChunkKind::Hole)
        .map(|(chunk, _)| chunk)
        .filter(|chunk| {
            let (offset, len) = span.raw_range(*chunk);
            select(offset, len)
        })
        .collect();
    let next = AtomicUsize::new(0);
    let differing = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let work = || {
        while let Some(chunk) = selected.get(next.fetch_add(1, Relaxed)) {
            if abort.is_over() {
                return;
            }
            match is_right(span, *chunk, target, pool) {
                Ok(true) => {
                    progress.read_back.fetch_add(span.raw_range(*chunk).1 as u64, Relaxed);
                }
                Ok(false) => differing.lock().unwrap_or_else(PoisonError::into_inner).push(*chunk),
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    next.store(selected.len(), Relaxed);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores * THREADS_PER_CORE).min(pool.count() - 3).min(selected.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    abort.check("reading back")?;
    let mut differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
    differing.sort_unstable();
    Ok(differing)
}

fn is_right(span: &SpanPlan, chunk: usize, target: &Target, pool: &std::sync::Arc<Pool>) -> Result<bool> {
    let row = &span.index.rows()[chunk];
    let (raw_offset, raw_len) = span.raw_range(chunk);
    let raw = raw_offset..raw_offset + raw_len as u64;
    let devices = target.devices();
    // A hole of a regular file reads as zeros by the file system's word; a sparse terabyte need not be read to know it.
    let is_hole = || target.map(raw.clone()).all(|extent| devices[extent.device].is_hole(extent.offset, extent.len));
    if row.kind == ChunkKind::Zero && is_hole() {
        return Ok(true);
    }
    let mut buffer = pool.acquire().ok_or_else(|| Error::cancelled("reading back"))?;
    let mut hasher = Hasher::new();
    for extent in target.map(raw.clone()) {
        let device = &devices[extent.device];
        let len = extent.len as usize;
        let padded = len.next_multiple_of(device.alignment());
        device.read(extent.offset, &mut buffer[..padded], len)?;
        hasher.update(&buffer[..len]);
    }
    Ok(hasher.finish() == row.raw_digest)
}
