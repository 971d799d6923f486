//! A target: an ordered list of raw range → device, offset, zero policy. One file is such a list of one.

use std::ops::Range;
use std::sync::Arc;

use super::device::Device;
use crate::error::{Error, Result};

/// How zeros get onto an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPolicy {
    /// By the device, where the kernel guarantees that it reads as zeros afterwards; else by writing.
    Device,
    /// Always by writing: below dm-crypt a discarded block reads as noise.
    Write,
}

/// A raw range and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First raw byte.
    pub raw_offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Index into the target's devices.
    pub device: usize,
    /// Byte offset on that device.
    pub offset: u64,
    /// How zeros get there.
    pub zero: ZeroPolicy,
    /// Whether a hole may keep what the media hold: only where no old content can leak.
    pub skip_holes: bool,
}

/// Devices and the map of the raw image onto them.
#[derive(Debug)]
pub struct Target {
    devices: Arc<[Device]>,
    extents: Vec<Extent>,
}

impl Target {
    /// The whole image at the start of one device.
    pub fn single(device: Device, raw_size: u64) -> Self {
        let skip_holes = device.is_fresh();
        let extent =
            Extent { raw_offset: 0, len: raw_size, device: 0, offset: 0, zero: ZeroPolicy::Device, skip_holes };
        Target { devices: [device].into(), extents: vec![extent] }
    }

    /// A map of several extents.
    ///
    /// # Errors
    /// [`crate::error::Kind::Target`] when the extents are not in raw order without gaps, reach beyond their device, or
    /// share a byte of one.
    pub fn new(devices: Vec<Device>, extents: Vec<Extent>) -> Result<Self> {
        let mut end = 0u64;
        for (number, extent) in extents.iter().enumerate() {
            let Some(device) = devices.get(extent.device) else {
                return Err(Error::target(format!(
                    "extent {number} names device {}, which is not there",
                    extent.device
                )));
            };
            let last = extent.offset.checked_add(extent.len);
            if extent.raw_offset != end || extent.len == 0 || last.is_none_or(|last| last > device.facts().size) {
                return Err(Error::target(format!(
                    "extent {number} does not follow the one before, or leaves {}",
                    device.name()
                )));
            }
            let is_last = number + 1 == extents.len();
            let whole = |bytes: u64| bytes.is_multiple_of(device.alignment() as u64);
            if !whole(extent.offset) || !(is_last || whole(extent.len)) {
                return Err(Error::target(format!("extent {number} is not whole blocks of {}", device.name())));
            }
            let clash = extents[..number].iter().any(|other| {
                other.device == extent.device
                    && other.offset < extent.offset + extent.len
                    && extent.offset < other.offset + other.len
            });
            if clash {
                return Err(Error::target(format!("extent {number} overlaps another one on {}", device.name())));
            }
            end += extent.len;
        }
        Ok(Target { devices: devices.into(), extents })
    }

    /// Its devices.
    pub fn devices(&self) -> &Arc<[Device]> {
        &self.devices
    }

    /// Raw bytes it maps.
    pub fn raw_len(&self) -> u64 {
        self.extents.last().map_or(0, |last| last.raw_offset + last.len)
    }

    /// What lies beyond the image, where the target is one device with the image at its start. Perhaps nothing.
    pub fn beyond(&self) -> Option<Range<u64>> {
        let ([device], [extent]) = (&self.devices[..], &self.extents[..]) else {
            return None;
        };
        (extent.offset == 0).then(|| extent.len..device.facts().size)
    }

    /// The parts of a raw range, in order, each as an extent of its own.
    pub fn map(&self, raw: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self.extents.partition_point(|extent| extent.raw_offset + extent.len <= raw.start);
        self.extents[first..]
            .iter()
            .take_while({
                let end = raw.end;
                move |extent| extent.raw_offset < end
            })
            .map(move |extent| {
                let start = extent.raw_offset.max(raw.start);
                let end = (extent.raw_offset + extent.len).min(raw.end);
                Extent {
                    raw_offset: start,
                    len: end - start,
                    offset: extent.offset + (start - extent.raw_offset),
                    ..*extent
                }
            })
    }
}
