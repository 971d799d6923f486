//! A target: an ordered list of raw range → place. One file is such a list of one.

use std::ops::Range;
use std::sync::Arc;

use super::device::Device;
use crate::buffer::ALIGNMENT;
use crate::error::{Error, Result};
use crate::zeros;

/// How zeros get onto an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPolicy {
    /// By the device, where the kernel guarantees that it reads as zeros afterwards; else by writing.
    Device,
    /// Always by writing: below dm-crypt a discarded block reads as noise.
    Write,
}

/// Where a raw range lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a device.
    Device {
        /// Index into the target's devices.
        device: usize,
        /// Byte offset on that device.
        offset: u64,
        /// How zeros get there.
        zero: ZeroPolicy,
        /// Whether a hole may keep what the media hold: only where no old content can leak.
        skip_holes: bool,
    },
    /// Nowhere: it reads as zeros, nothing is written, and an image that has other bytes there is refused. So it is with the
    /// end of an encrypted region, since the LUKS header takes as much room at the start of the region's slot.
    Nowhere,
}

/// A raw range and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First raw byte.
    pub raw_offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where that is.
    pub place: Place,
}

impl Extent {
    /// The raw byte after its last one.
    fn end(&self) -> u64 {
        self.raw_offset + self.len
    }

    /// Whether `next` is more of the same.
    fn continues_in(&self, next: &Extent) -> bool {
        match (self.place, next.place) {
            (Place::Device { device, offset, zero, skip_holes }, of_next) => {
                of_next == Place::Device { device, offset: offset + self.len, zero, skip_holes }
            }
            (Place::Nowhere, of_next) => of_next == Place::Nowhere,
        }
    }

    /// What of it lies in a raw range, which must touch it.
    fn within(&self, raw: &Range<u64>) -> Extent {
        let (start, end) = (self.raw_offset.max(raw.start), self.end().min(raw.end));
        let place = match self.place {
            Place::Device { device, offset, zero, skip_holes } => {
                Place::Device { device, offset: offset + (start - self.raw_offset), zero, skip_holes }
            }
            Place::Nowhere => Place::Nowhere,
        };
        Extent { raw_offset: start, len: end - start, place }
    }
}

/// Devices and the map of the raw image onto them.
#[derive(Debug)]
pub struct Target {
    devices: Arc<[Device]>,
    extents: Vec<Extent>,
    home: usize,
    home_zero: ZeroPolicy,
    beyond: Option<Range<u64>>,
    has_nowhere: bool,
}

impl Target {
    /// A map of several extents; those that continue each other become one, so that a chunk which crosses their border is one
    /// write. `home` is the index of the device on which the image's own partition table lies, and at whose end the backup of a
    /// GPT belongs.
    ///
    /// # Errors
    /// [`crate::error::Kind::Target`] when the extents are not in raw order without gaps, are not whole blocks of their device,
    /// reach beyond it, or share a byte of it.
    pub fn new(devices: Vec<Device>, extents: Vec<Extent>, home: usize) -> Result<Self> {
        if home >= devices.len() {
            return Err(Error::target(format!("device {home} is not there")));
        }
        let (mut end, mut map) = (0u64, Vec::<Extent>::new());
        for (number, extent) in extents.iter().enumerate() {
            if extent.raw_offset != end || extent.len == 0 {
                return Err(Error::target(format!("extent {number} does not follow the one before")));
            }
            end = extent.raw_offset.checked_add(extent.len).ok_or_else(|| Error::target("the map has no end"))?;
            check_extent(number, extent, number + 1 == extents.len(), &devices)?;
            match map.last_mut() {
                Some(last) if last.continues_in(extent) => last.len += extent.len,
                _ => map.push(*extent),
            }
        }
        check_disjoint(&map, &devices)?;
        Ok(Self::of(devices, map, home))
    }

    /// The whole image at the start of one device. Whether it fits is for [`Target::check_fits`] to say.
    pub fn single(device: Device, raw_size: u64) -> Self {
        let skip_holes = device.is_fresh();
        let place = Place::Device { device: 0, offset: 0, zero: ZeroPolicy::Device, skip_holes };
        Self::of(vec![device], vec![Extent { raw_offset: 0, len: raw_size, place }], 0)
    }

    /// The whole image at the start of one device, in `count` extents: what it costs to be led along many of them is measured
    /// with this. They are of equal length, but not of whole chunks.
    pub(crate) fn in_pieces(device: Device, raw_size: u64, count: usize) -> Self {
        let len = (raw_size / count.max(1) as u64 / ALIGNMENT as u64).max(1) * ALIGNMENT as u64;
        let pieces = (raw_size / len).clamp(1, count.max(1) as u64);
        let extent = |number: u64| {
            let offset = number * len;
            let end = if number + 1 == pieces { raw_size } else { offset + len };
            let place = Place::Device { device: 0, offset, zero: ZeroPolicy::Device, skip_holes: device.is_fresh() };
            Extent { raw_offset: offset, len: end - offset, place }
        };
        let extents = (0..pieces).map(extent).collect();
        Self::of(vec![device], extents, 0)
    }

    fn of(devices: Vec<Device>, extents: Vec<Extent>, home: usize) -> Self {
        let at_home = || {
            extents.iter().filter_map(move |extent| match extent.place {
                Place::Device { device, offset, zero, .. } if device == home => Some((extent.raw_offset, offset, zero)),
                _ => None,
            })
        };
        let by_writing = at_home().any(|(_, _, zero)| zero == ZeroPolicy::Write);
        let starts_there = at_home().next().is_some_and(|(raw_offset, _, _)| raw_offset == 0);
        let lies_as_it_is = starts_there && at_home().all(|(raw_offset, offset, _)| raw_offset == offset);
        let raw_len = extents.last().map_or(0, Extent::end);
        Target {
            home,
            home_zero: if by_writing { ZeroPolicy::Write } else { ZeroPolicy::Device },
            beyond: lies_as_it_is.then(|| raw_len..devices[home].facts().size),
            has_nowhere: extents.iter().any(|extent| extent.place == Place::Nowhere),
            devices: devices.into(),
            extents,
        }
    }

    /// Checks that an image of `raw_size` bytes, built for sectors of `sector_size`, fits.
    ///
    /// # Errors
    /// [`crate::error::Kind::Target`], naming the device and both numbers.
    pub fn check_fits(&self, raw_size: u64, sector_size: u32) -> Result<()> {
        for (number, device) in self.devices.iter().enumerate() {
            let ends = self.extents.iter().filter_map(|extent| match extent.place {
                Place::Device { device, offset, .. } if device == number => Some(offset + extent.len),
                _ => None,
            });
            // What lies elsewhere still has its slot on the device where the partition table says so.
            let slots = self.beyond.as_ref().filter(|_| number == self.home).map_or(0, |beyond| beyond.start);
            device.check_fits(ends.max().unwrap_or(0).max(slots), sector_size)?;
        }
        if self.raw_len() == raw_size {
            return Ok(());
        }
        Err(Error::target(format!(
            "{} was laid out for an image of {} bytes, but this one has {raw_size}",
            self.name(),
            self.raw_len()
        )))
    }

    /// Its devices' names.
    pub fn name(&self) -> String {
        self.devices.iter().map(Device::name).collect::<Vec<_>>().join(", ")
    }

    /// Its devices.
    pub fn devices(&self) -> &Arc<[Device]> {
        &self.devices
    }

    /// The device on which the image's own partition table lies, and at whose end the backup of a GPT belongs.
    pub fn home(&self) -> &Device {
        &self.devices[self.home]
    }

    /// Its index among the devices.
    pub fn home_number(&self) -> usize {
        self.home
    }

    /// How zeros get onto it.
    pub fn home_zero(&self) -> ZeroPolicy {
        self.home_zero
    }

    /// Whether a chunk may lie in more than one place.
    pub(super) fn has_borders(&self) -> bool {
        self.extents.len() > 1
    }

    /// Raw bytes it maps.
    pub fn raw_len(&self) -> u64 {
        self.extents.last().map_or(0, Extent::end)
    }

    /// What lies beyond the image on its home device, perhaps nothing. `None` where the image does not lie there as it is, each
    /// byte at its own offset.
    pub fn beyond(&self) -> Option<Range<u64>> {
        self.beyond.clone()
    }

    /// The parts of a raw range, in order, each as an extent of its own.
    pub fn map(&self, raw: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self.extents.partition_point(|extent| extent.end() <= raw.start);
        let touched = self.extents[first..].iter().take_while({
            let Range { start, end } = raw;
            move |extent| start < end && extent.raw_offset < end
        });
        touched.map(move |extent| extent.within(&raw))
    }

    /// Refuses bytes that belong at the raw offset `start` if one of them that is not zero has no place.
    ///
    /// # Errors
    /// [`crate::error::Kind::Image`], naming the byte and the region.
    pub fn check_placeable(&self, start: u64, bytes: &[u8]) -> Result<()> {
        if !self.has_nowhere {
            return Ok(());
        }
        for extent in self.map(start..start + bytes.len() as u64).filter(|extent| extent.place == Place::Nowhere) {
            let from = (extent.raw_offset - start) as usize;
            if let Some(at) = zeros::first_nonzero(&bytes[from..from + extent.len as usize]) {
                return Err(no_place(self.before(extent.raw_offset), extent.raw_offset + at as u64));
            }
        }
        Ok(())
    }

    /// The first raw byte of what comes before what lies nowhere at `raw_offset`: the rest of the same region.
    fn before(&self, raw_offset: u64) -> u64 {
        let at = self.extents.partition_point(|extent| extent.end() <= raw_offset);
        self.extents[at.saturating_sub(1)].raw_offset
    }
}

/// The error of an image that has something where the LUKS header of the encrypted region at `region` needs the room.
pub(crate) fn no_place(region: u64, at: u64) -> Error {
    Error::image(format!(
        "byte {at} of the image is not zero, but the end of the encrypted region at raw offset {region} has no place on a target: \
         its LUKS header lies there"
    ))
    .with_hint("the image was packed wrongly: `imgstream pack --encrypt-region` checks that these bytes are zeros")
}

fn check_extent(number: usize, extent: &Extent, is_last: bool, devices: &[Device]) -> Result<()> {
    let Place::Device { device, offset, .. } = extent.place else { return Ok(()) };
    let Some(device) = devices.get(device) else {
        return Err(Error::target(format!("extent {number} lies on device {device}, which is not there")));
    };
    let end = offset.checked_add(extent.len).ok_or_else(|| Error::target(format!("extent {number} has no end")))?;
    device.check_size(end)?;
    let whole = |bytes: u64| bytes.is_multiple_of(device.alignment() as u64);
    // Where it begins in a chunk is where it begins in memory.
    if whole(extent.raw_offset) && whole(offset) && (is_last || whole(extent.len)) {
        return Ok(());
    }
    Err(Error::target(format!(
        "extent {number} (raw offset {}, {} bytes) is not whole blocks of {} bytes on {}",
        extent.raw_offset,
        extent.len,
        device.alignment(),
        device.name()
    )))
}

fn check_disjoint(extents: &[Extent], devices: &[Device]) -> Result<()> {
    let mut used: Vec<(usize, Range<u64>)> = extents
        .iter()
        .filter_map(|extent| match extent.place {
            Place::Device { device, offset, .. } => Some((device, offset..offset + extent.len)),
            Place::Nowhere => None,
        })
        .collect();
    used.sort_by_key(|(device, range)| (*device, range.start));
    let clash = used.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1.start < pair[0].1.end);
    clash.map_or(Ok(()), |pair| {
        let (device, at) = (devices[pair[0].0].name(), pair[1].1.start);
        Err(Error::target(format!("two extents share the byte at offset {at} of {device}")))
    })
}

#[cfg(test)]
mod tests;
