//! The ends of the image: the chunks without which nothing boots, and what they become on a larger device.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;

use super::{Run, TailPolicy};
use crate::buffer::ALIGNMENT;
use crate::decode::VerifiedChunk;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gpt::{self, Patch};
use crate::plan::SpanPlan;
use crate::sink::{Device, Place, ZeroPolicy};

/// Most chunks that are withheld: the first, and those at the end that a backup GPT can touch. It has at most 20 KiB, which
/// lie in one chunk or in two neighbours.
pub(super) const MAX_WITHHELD: usize = 3;

/// The withheld chunks as they belong on this device.
#[derive(Debug)]
pub(super) struct Placement {
    /// What belongs beyond the image, in the device's last sectors.
    pub(super) beyond: Option<Patch>,
    /// Digests of the withheld data chunks, by raw offset.
    digests: BTreeMap<u64, Digest>,
    gpt: Option<std::result::Result<(), gpt::Unmovable>>,
}

/// On a device as large as the image every chunk is what the index says.
pub(super) static NOTHING_PLACED: BTreeMap<u64, Digest> = BTreeMap::new();

impl Placement {
    /// Digests that the withheld chunks have on this device, by raw offset.
    pub(super) fn digests(&self) -> &BTreeMap<u64, Digest> {
        &self.digests
    }

    /// What became of the GPT, in words.
    pub(super) fn gpt(&self) -> Option<String> {
        self.gpt.as_ref().map(|moved| match moved {
            Ok(()) => "moved".into(),
            Err(why) => format!("not moved: {why}"),
        })
    }
}

/// Zeroed at once, so that whoever ends it is heard: one write, where it is written.
const STEP: u64 = 64 << 10;

fn force_zeros(device: &Device, range: Range<u64>, policy: ZeroPolicy, is_over: &dyn Fn() -> bool) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        if is_over() {
            return Err(Error::cancelled("zeroing the ends of the image"));
        }
        let step = (range.end - at).min(STEP);
        device.force_zeros(at, step, policy)?;
        at += step;
    }
    Ok(())
}

impl Run {
    /// Whether a chunk is one without which nothing on the target boots; such are written last.
    pub(super) fn is_withheld(&self, span: &SpanPlan, chunk: usize) -> bool {
        let (start, len) = span.raw_range(chunk);
        self.touches_ends(start..start + len as u64)
    }

    /// Whether a raw range holds something of the ends: the image's first bytes, and where a backup GPT lies.
    pub(super) fn touches_ends(&self, raw: Range<u64>) -> bool {
        self.ends().iter().any(|end| raw.start < end.end && end.start < raw.end)
    }

    /// Whether a span has withheld chunks.
    pub(super) fn has_ends(&self, span: &SpanPlan) -> bool {
        self.touches_ends(span.raw_offset..span.raw_offset + span.index.raw_length())
    }

    fn ends(&self) -> [Range<u64>; 2] {
        let descriptor = self.plans.image().descriptor();
        let raw_size = descriptor.raw_size;
        [0..1, raw_size.saturating_sub(gpt::backup_len(descriptor.sector_size))..raw_size]
    }

    /// The raw places of the withheld chunks. All spans but the last are whole chunks, so chunks lie on one grid.
    fn withheld_places(&self) -> [Range<u64>; 2] {
        let descriptor = self.plans.image().descriptor();
        let chunk = u64::from(descriptor.chunk_size);
        let whole = |end: u64| end.div_ceil(chunk).saturating_mul(chunk).min(descriptor.raw_size);
        self.ends().map(|end| end.start / chunk * chunk..whole(end.end))
    }

    /// [`Run::zero_ends`], when a commit is to be taken back. That the run is over is no reason to leave it there; that it may
    /// not write is.
    pub(super) fn zero_ends_again(&self) -> Result<()> {
        self.may_write()?;
        let over = self.abort.over();
        let zeroed = self.zero_ends(&|| self.writer.is_given_up() || over.has_passed());
        if zeroed.is_err() && over.has_passed() {
            self.may_write()?;
        }
        zeroed
    }

    /// Zeroes the places of the withheld chunks, and where the device's end may hold a backup GPT, durably, unless `is_over`.
    /// Goes past the write engine: it is also the way back when the engine has failed. Not counted as progress: these bytes are
    /// counted when their chunks land.
    pub(super) fn zero_ends(&self, is_over: &dyn Fn() -> bool) -> Result<()> {
        let target = self.writer.target();
        for raw in self.withheld_places() {
            for extent in target.map(raw) {
                if let Place::Device { device, offset, zero, .. } = extent.place {
                    force_zeros(&target.devices()[device], offset..offset + extent.len, zero, is_over)?;
                }
            }
        }
        if let Some(end) = self.end_of_device() {
            force_zeros(target.home(), end, target.home_zero(), is_over)?;
        }
        target.devices().iter().try_for_each(|device| device.flush())
    }

    /// Where a backup GPT may lie at the end of a larger device. Firmware that finds no primary one may boot by it.
    fn end_of_device(&self) -> Option<Range<u64>> {
        let beyond = self.beyond_image()?;
        let placed = self.placement.get().is_some_and(|placement| placement.beyond.is_some());
        let is_left_alone = matches!(self.options.tail, TailPolicy::Keep | TailPolicy::UnderFreshKey);
        if is_left_alone && !placed {
            return None;
        }
        let alignment = self.writer.target().home().alignment() as u64;
        let len = gpt::backup_len(self.plans.image().descriptor().sector_size);
        Some((beyond.end.saturating_sub(len) / alignment * alignment).max(beyond.start)..beyond.end)
    }

    /// What lies beyond the image on the device where its partition table lies. `None` when nothing does, or the image does
    /// not lie there as it is.
    pub(super) fn beyond_image(&self) -> Option<Range<u64>> {
        self.writer.target().beyond().filter(|range| !range.is_empty())
    }

    pub(super) fn withheld(&self) -> std::sync::MutexGuard<'_, Vec<VerifiedChunk>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a withheld chunk is in hand.
    pub(super) fn is_in_hand(&self, span: &SpanPlan, chunk: usize) -> bool {
        let (raw_offset, _) = span.raw_range(chunk);
        self.withheld().iter().any(|held| held.raw_offset() == raw_offset)
    }

    /// Writes what belongs beyond the image.
    pub(super) fn write_beyond(&self) -> Result<()> {
        match self.placement.get().and_then(|placement| placement.beyond.as_ref()) {
            Some(patch) => {
                let places = (patch.offset()..).step_by(ALIGNMENT);
                places.zip(patch.bytes().chunks(ALIGNMENT)).try_for_each(|(offset, bytes)| {
                    self.abort.check("committing")?;
                    self.writer.target().home().patch(offset, bytes)
                })
            }
            None => Ok(()),
        }
    }

    /// Whether the device holds beyond the image what belongs there.
    pub(super) fn beyond_is_right(&self) -> Result<bool> {
        let Some(patch) = self.placement.get().and_then(|placement| placement.beyond.as_ref()) else {
            return Ok(true);
        };
        let mut buffer = self.pool.acquire().ok_or_else(|| Error::cancelled("reading back"))?;
        let device = self.writer.target().home();
        let start = patch.offset() / ALIGNMENT as u64 * ALIGNMENT as u64;
        let (skipped, len) = ((patch.offset() - start) as usize, patch.bytes().len());
        let padded = (skipped + len).next_multiple_of(device.alignment());
        device.read(start, &mut buffer[..padded], skipped + len)?;
        Ok(&buffer[skipped..skipped + len] == patch.bytes())
    }

    /// Turns the withheld chunks, which are in hand now, into what belongs on this device. Once done it stays done.
    pub(super) fn place(&self) {
        self.placement.get_or_init(|| self.placed());
    }

    fn placed(&self) -> Placement {
        let mut placement = Placement { beyond: None, digests: BTreeMap::new(), gpt: None };
        let Some(beyond) = self.beyond_image() else {
            return placement;
        };
        let mut chunks = self.withheld();
        let descriptor = self.plans.image().descriptor();
        let head = chunks.iter().find(|chunk| chunk.raw_offset() == 0).map_or(&[][..], VerifiedChunk::bytes);
        match gpt::relocate(head, descriptor.raw_size, beyond.end, descriptor.sector_size) {
            Ok(None) => {}
            Ok(Some(moved)) => {
                *chunks = std::mem::take(&mut *chunks).into_iter().map(|chunk| chunk.placed(&moved)).collect();
                let digest = |chunk: &VerifiedChunk| (chunk.raw_offset(), Digest::of(chunk.bytes()));
                placement.digests = chunks.iter().map(digest).collect();
                placement.beyond = Some(moved.backup);
                placement.gpt = Some(Ok(()));
            }
            Err(why) => {
                tracing::warn!("the backup of the image's GPT stays at the image's end: {why}");
                placement.gpt = Some(Err(why));
            }
        }
        placement
    }
}
