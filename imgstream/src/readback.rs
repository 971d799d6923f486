//! Media → digests: reads what a target holds and compares it with the index. The media decide, not what was written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::abort::Abort;
use crate::buffer::{ALIGNMENT, Pool};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::ChunkKind;
use crate::plan::SpanPlan;
use crate::sink::{Device, Extent, Place, Target};
use crate::zeros;

/// Threads that read and hash: more than cores, so that the device has requests while digests are computed.
const THREADS_PER_CORE: usize = 3;
/// Buffers of the pool that are not for reading: one of zeros, and those of the withheld chunks.
const OTHERS_BUFFERS: usize = 4;

/// A verdict on one chunk of the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be.
    Right,
    /// It is not.
    Differs,
}

/// What was found of one chunk.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its number in the span.
    pub chunk: usize,
    /// Its raw length.
    pub len: u64,
    /// Whether it is right.
    pub verdict: Verdict,
    /// What one block of it looked like, where it was read and that was asked for.
    pub glimpse: Option<Glimpse>,
}

/// A block of a chunk, as a few bytes that tell whether it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glimpse(u64);

impl Glimpse {
    fn of(block: &[u8]) -> Self {
        let digest = Digest::of(block);
        Glimpse(digest.as_bytes().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    /// Where it is taken from a piece of `len` bytes of the chunk at `raw_offset`: each time elsewhere, so that no pattern of wrong
    /// blocks stays unseen.
    fn place(raw_offset: u64, len: usize) -> Range<usize> {
        // Fibonacci hashing spreads neighbours.
        let spread = (raw_offset / BLOCK as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let start = (spread as usize % len.div_ceil(BLOCK)) * BLOCK;
        start..(start + BLOCK).min(len)
    }
}

/// Length of what a [`Glimpse`] is taken of.
const BLOCK: usize = ALIGNMENT;

/// Compares media with an image.
pub struct Readback<'a> {
    /// What is read.
    pub target: &'a Target,
    /// Where it is read to.
    pub pool: &'a Arc<Pool>,
    /// Ends it.
    pub abort: &'a Abort,
    /// Threads that read and hash; see [`threads`].
    pub threads: usize,
    /// Whether a hole must be zeros where the target does not let it keep what is there. Else it has no content to compare.
    pub holes_are_zeros: bool,
    /// Whether a block of each chunk is to be known again later.
    pub glimpses: bool,
    /// Digests of the chunks that are something else on a device of this size, by raw offset. The index says the others'.
    pub placed: &'a BTreeMap<u64, Digest>,
    /// Told of each chunk.
    pub tell: &'a (dyn Fn(Found) + Sync),
}

impl Readback<'_> {
    /// Compares the chunks of a span that `select` takes, by number. Returns the numbers of those that
    /// differ, in order.
    ///
    /// # Errors
    /// [`crate::error::Kind::Device`] when the media cannot be read; `Cancelled` once the run is over.
    pub fn compare(&self, span: &SpanPlan, select: &dyn Fn(usize) -> bool) -> Result<Vec<usize>> {
        let selected: Vec<usize> =
            (0..span.index.rows().len()).filter(|chunk| select(*chunk) && !self.is_passed_over(span, *chunk)).collect();
        let differing = Mutex::new(Vec::new());
        in_parallel(selected.len(), self.threads, self.pool, self.abort, |number| {
            let chunk = selected[number];
            let found = self.look_at(span, chunk)?;
            (self.tell)(found);
            if found.verdict == Verdict::Differs {
                differing.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
            }
            Ok(())
        })?;
        let mut differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
        differing.sort_unstable();
        Ok(differing)
    }

    fn is_passed_over(&self, span: &SpanPlan, chunk: usize) -> bool {
        let (start, len) = span.raw_range(chunk);
        let keeps = || {
            let mut extents = self.target.map(start..start + len as u64);
            extents.all(|extent| !matches!(extent.place, Place::Device { skip_holes: false, .. }))
        };
        span.index.rows()[chunk].kind == ChunkKind::Hole && (!self.holes_are_zeros || keeps())
    }

    /// The raw offsets of those chunks of which the block that was seen is another one now.
    ///
    /// # Errors
    /// As [`Readback::compare`].
    pub fn changed(&self, seen: &[(u64, Glimpse)]) -> Result<Vec<u64>> {
        let changed = Mutex::new(Vec::new());
        let chunk_size = self.pool.buffer_len() as u64;
        in_parallel(seen.len(), self.threads, self.pool, self.abort, |number| {
            let (raw_offset, glimpse) = seen[number];
            let end = (raw_offset + chunk_size).min(self.target.raw_len());
            let on_device = |extent: Extent| match extent.place {
                Place::Device { device, offset, .. } => Some((&self.target.devices()[device], offset, extent.len)),
                Place::Nowhere => None,
            };
            let Some((device, offset, len)) = self.target.map(raw_offset..end).find_map(on_device) else {
                return Ok(());
            };
            let place = Glimpse::place(raw_offset, len as usize);
            let mut buffer = self.pool.acquire().ok_or_else(|| Error::cancelled("reading back"))?;
            let padded = place.len().next_multiple_of(device.alignment());
            device.read(offset + place.start as u64, &mut buffer[..padded], place.len())?;
            if Glimpse::of(&buffer[..place.len()]) != glimpse {
                changed.lock().unwrap_or_else(PoisonError::into_inner).push(raw_offset);
            }
            Ok(())
        })?;
        let mut changed = changed.into_inner().unwrap_or_else(PoisonError::into_inner);
        changed.sort_unstable();
        Ok(changed)
    }

    fn look_at(&self, span: &SpanPlan, chunk: usize) -> Result<Found> {
        let row = &span.index.rows()[chunk];
        let (raw_offset, raw_len) = span.raw_range(chunk);
        let raw = raw_offset..raw_offset + raw_len as u64;
        let devices = self.target.devices();
        // A hole of a regular file reads as zeros by the file system's word; a sparse terabyte need not be read to know it.
        let is_hole = || {
            self.target.map(raw.clone()).all(|extent| match extent.place {
                Place::Device { device, offset, .. } => devices[device].is_hole(offset, extent.len),
                Place::Nowhere => true,
            })
        };
        let found = |verdict, glimpse| Found { chunk, len: raw_len as u64, verdict, glimpse };
        if row.kind != ChunkKind::Data && is_hole() {
            return Ok(found(Verdict::Right, None));
        }
        let mut buffer = self.pool.acquire().ok_or_else(|| Error::cancelled("reading back"))?;
        let mut hasher = Hasher::new();
        let mut glimpse = None;
        for extent in self.target.map(raw.clone()) {
            let len = extent.len as usize;
            let Place::Device { device, offset, .. } = extent.place else {
                buffer[..len].fill(0);
                hasher.update(&buffer[..len]);
                continue;
            };
            let padded = len.next_multiple_of(devices[device].alignment());
            devices[device].read(offset, &mut buffer[..padded], len)?;
            hasher.update(&buffer[..len]);
            if self.glimpses {
                glimpse.get_or_insert_with(|| Glimpse::of(&buffer[Glimpse::place(raw_offset, len)]));
            }
        }
        let is_right = hasher.finish() == *self.placed.get(&raw_offset).unwrap_or(&row.raw_digest);
        Ok(found(if is_right { Verdict::Right } else { Verdict::Differs }, glimpse))
    }
}

/// Where the first byte other than zero lies in `ranges` of a device; `None` when all are zero. They are looked through in
/// pieces of a buffer's length, on several threads; `tell` hears the length of each.
///
/// # Errors
/// [`crate::error::Kind::Device`] when the media cannot be read; `Cancelled` once the run is over.
pub fn first_nonzero(
    device: &Device,
    ranges: &[Range<u64>],
    pool: &Arc<Pool>,
    abort: &Abort,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<Option<u64>> {
    let pieces: Vec<_> = ranges.iter().flat_map(|range| cut(range, pool.buffer_len() as u64)).collect();
    let found = Mutex::new(None::<u64>);
    in_parallel(pieces.len(), threads(), pool, abort, |number| {
        let piece = &pieces[number];
        let at = first_nonzero_in(device, piece, pool)?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = found.into_iter().chain(at).min();
        tell(piece.end - piece.start);
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn cut(range: &Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let (start, end) = (range.start, range.end);
    (0..(end - start).div_ceil(step)).map(move |piece| start + piece * step..(start + (piece + 1) * step).min(end))
}

fn first_nonzero_in(device: &Device, range: &Range<u64>, pool: &Arc<Pool>) -> Result<Option<u64>> {
    if device.is_hole(range.start, range.end - range.start) {
        return Ok(None);
    }
    let mut buffer = pool.acquire().ok_or_else(|| Error::cancelled("reading back"))?;
    // O_DIRECT reads whole blocks; what lies before the range in the first one is not looked at.
    let alignment = device.alignment() as u64;
    let mut at = range.start;
    while at < range.end {
        let start = at / alignment * alignment;
        let len = (range.end - start).min(buffer.len() as u64) as usize;
        device.read(start, &mut buffer[..len.next_multiple_of(device.alignment())], len)?;
        let fresh = &buffer[(at - start) as usize..len];
        if let Some(position) = zeros::first_nonzero(fresh) {
            return Ok(Some(at + position as u64));
        }
        at = start + len as u64;
    }
    Ok(None)
}

/// Threads that read and hash at once.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * THREADS_PER_CORE
}

/// Does `work` for every number below `count`, on several threads, until one fails or the run is over.
fn in_parallel(
    count: usize,
    threads: usize,
    pool: &Pool,
    abort: &Abort,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let thread = || {
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count || abort.is_over() {
                return;
            }
            if let Err(error) = work(number) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                next.store(count, Relaxed);
            }
        }
    };
    let threads = threads.min(pool.count() - OTHERS_BUFFERS).min(count);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(thread))));
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    abort.unless_over("reading back")
}
