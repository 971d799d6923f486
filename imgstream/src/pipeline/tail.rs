//! What lies on a device beyond the image: a previous owner's data and labels. Cleared unless somebody asked to keep it.

use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::Run;
use crate::error::{Error, Result};
use crate::gpt::Patch;
use crate::progress::Phase;
use crate::readback;
use crate::sink::{Device, Target, ZeroPolicy, Zeroed};

/// How many places of a tail that the device has zeroed are read back, and how much of each.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 1 << 20;

/// What becomes of a device beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TailPolicy {
    /// It reads as zeros.
    #[default]
    Zero,
    /// It keeps what it has, be that a previous owner's data.
    Keep,
    /// The device is told that nobody needs it. What it reads as is the device's choice.
    Discard,
    /// It lies inside LUKS under a key that is this run's alone, so that whatever was written there reads as noise: it is left
    /// alone. No command offers this; it is for whoever made the key.
    UnderFreshKey,
}

impl FromStr for TailPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zero" => Ok(TailPolicy::Zero),
            "keep" => Ok(TailPolicy::Keep),
            "discard" => Ok(TailPolicy::Discard),
            _ => Err(format!("{text:?} is nothing to do with a tail: zero, keep or discard")),
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tail {
    /// Its length in bytes.
    pub bytes: u64,
    /// How it was treated.
    pub how: Treatment,
    /// Bytes read back and found zero.
    pub proven_bytes: u64,
}

/// How a tail was treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Zeroed by the device, which the kernel vouches for.
    ZeroedByDevice,
    /// Zeros were written.
    ZeroedByWriting,
    /// It was all zeros already.
    WasZero,
    /// Left as it was, because that was asked for.
    Kept,
    /// Discarded, because that was asked for.
    Discarded,
    /// Left alone, since it is noise under the key it is read with.
    NoiseUnderFreshKey,
}

impl Treatment {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Treatment::ZeroedByDevice => "zeroed-by-device",
            Treatment::ZeroedByWriting => "zeroed-by-writing",
            Treatment::WasZero => "was-zero",
            Treatment::Kept => "kept",
            Treatment::Discarded => "discarded",
            Treatment::NoiseUnderFreshKey => "noise-under-fresh-key",
        }
    }
}

/// Refuses to take a tail for noise that lies under no key.
pub(super) fn check(tail: TailPolicy, target: &Target) -> Result<()> {
    if tail == TailPolicy::UnderFreshKey && target.home_zero() != ZeroPolicy::Write {
        return Err(Error::usage(format!(
            "what lies beyond the image on {} is under no key, and no noise",
            target.home().name()
        )));
    }
    Ok(())
}

impl Run {
    /// Treats the tail as the options say.
    pub(super) async fn clear_tail(self: &Arc<Self>) -> Result<()> {
        let Some(range) = self.tail() else { return Ok(()) };
        self.progress.enter(Phase::ClearingTail);
        self.progress.tail_total.store(range.end - range.start, Relaxed);
        self.blocking(move |run| {
            let how = run.treat(range.clone())?;
            let tail = Tail { bytes: range.end - range.start, how, proven_bytes: 0 };
            run.outcome.lock().unwrap_or_else(PoisonError::into_inner).tail = Some(tail);
            Ok(())
        })
        .await
    }

    /// The bytes between the image and what belongs at the device's end.
    fn tail(&self) -> Option<Range<u64>> {
        let beyond = self.beyond_image()?;
        let end = self.placement.get().and_then(|placement| placement.beyond.as_ref()).map(Patch::offset);
        Some(beyond.start..end.unwrap_or(beyond.end)).filter(|range| !range.is_empty())
    }

    fn treat(&self, range: Range<u64>) -> Result<Treatment> {
        let device = self.writer.target().home();
        match self.options.tail {
            TailPolicy::Keep => Ok(Treatment::Kept),
            TailPolicy::UnderFreshKey => Ok(Treatment::NoiseUnderFreshKey),
            TailPolicy::Discard => self.discard(device, &range),
            TailPolicy::Zero if self.options.resume => self.zero_what_is_not(device, range),
            TailPolicy::Zero => self.zero_tail(range),
        }
    }

    fn zero_tail(&self, range: Range<u64>) -> Result<Treatment> {
        let over = || self.abort.is_over();
        let (home, policy) = (self.writer.target().home_number(), self.writer.target().home_zero());
        let zeroed = self.writer.zero_device(home, range, policy, &self.progress.tail_cleared, &over);
        // Whoever submitted the writes stays until they are done.
        self.writer.settle();
        Ok(match zeroed? {
            Zeroed::ByDevice => Treatment::ZeroedByDevice,
            Zeroed::ByWriting => Treatment::ZeroedByWriting,
        })
    }

    /// To resume is to leave alone what is right: reading is kinder to a device than writing, and shows what it holds.
    fn zero_what_is_not(&self, device: &Device, range: Range<u64>) -> Result<Treatment> {
        let mut how = Treatment::WasZero;
        let step = STEP_BUFFERS * self.pool.buffer_len() as u64;
        let mut start = range.start;
        while start < range.end {
            let piece = start..(start + step).min(range.end);
            let looked = std::slice::from_ref(&piece);
            if readback::first_nonzero(device, looked, &self.pool, &self.abort, &|_| ())?.is_some() {
                how = self.zero_tail(piece.clone())?;
            } else {
                self.progress.tail_cleared.fetch_add(piece.end - piece.start, Relaxed);
            }
            start = piece.end;
        }
        Ok(how)
    }

    fn discard(&self, device: &Device, range: &Range<u64>) -> Result<Treatment> {
        // A discard takes whole sectors only.
        let unit = u64::from(device.facts().sector_size);
        let whole = range.start.next_multiple_of(unit)..range.end / unit * unit;
        let over = || self.abort.is_over();
        let home = self.writer.target().home_number();
        if !self.writer.discard_device(home, whole, &self.progress.tail_cleared, &over)? {
            return Err(Error::target(format!("{} cannot discard", device.name()))
                .with_hint("let the tail be zeroed, which is the default, or keep it"));
        }
        Ok(Treatment::Discarded)
    }

    /// Reads back the tail: all of it where it was written, samples where the kernel vouches for the device.
    pub(super) async fn prove_tail(self: &Arc<Self>) -> Result<()> {
        let Some(range) = self.tail() else { return Ok(()) };
        self.blocking(move |run| {
            let how = run.outcome.lock().unwrap_or_else(PoisonError::into_inner).tail.as_ref().map(|tail| tail.how);
            let places = match how {
                Some(Treatment::ZeroedByDevice) => samples(&range),
                Some(Treatment::ZeroedByWriting) => vec![range],
                _ => return Ok(()),
            };
            let (device, proven) = (run.writer.target().home(), AtomicU64::new(0));
            let tell = |len| {
                proven.fetch_add(len, Relaxed);
            };
            if let Some(at) = readback::first_nonzero(device, &places, &run.pool, &run.abort, &tell)? {
                return Err(Error::proof(format!(
                    "{} was zeroed beyond the image, but byte {at} is not zero",
                    device.name()
                ))
                .with_hint("the device does not do what it says: do not use it; the target was left unbootable"));
            }
            if let Some(tail) = &mut run.outcome.lock().unwrap_or_else(PoisonError::into_inner).tail {
                tail.proven_bytes = proven.into_inner();
            }
            Ok(())
        })
        .await
    }

    /// Lets the kernel show the partitions that are on the device now. What it cannot do is said; the image is there.
    pub(super) fn show_partitions(&self) {
        let said = match self.writer.target().home().reread_partitions() {
            Ok(true) => "shown".to_owned(),
            Ok(false) => return,
            Err(error) => {
                tracing::warn!("{error}; the kernel shows the old partitions until partprobe or a reboot");
                format!("not shown: {error}")
            }
        };
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).partitions = Some(said);
    }
}

/// Buffers' lengths that are looked through before zeroing begins: enough for every thread to have some.
const STEP_BUFFERS: u64 = 32;

/// Evenly spread places, the first and the last bytes among them; everything where that is not more.
fn samples(range: &Range<u64>) -> Vec<Range<u64>> {
    let len = range.end - range.start;
    if len <= SAMPLES * SAMPLE {
        return vec![range.clone()];
    }
    let stride = (len - SAMPLE) / (SAMPLES - 1);
    (0..SAMPLES)
        .map(|number| if number + 1 == SAMPLES { range.end - SAMPLE } else { range.start + number * stride })
        .map(|start| start..start + SAMPLE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_both_ends_and_stay_inside() {
        for len in [1, SAMPLE, 64 * SAMPLE, 64 * SAMPLE + 1, 1 << 40] {
            let range = 4096..4096 + len;
            let places = samples(&range);
            assert_eq!((places[0].start, places[places.len() - 1].end), (range.start, range.end));
            assert!(places.iter().all(|place| place.start < place.end && place.end <= range.end));
            assert!(places.len() as u64 <= SAMPLES);
        }
    }
}
