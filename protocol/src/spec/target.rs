//! Where the image goes: a device or a multipathed LUN, how the image lies on it, and under which guard it is written.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::luks::LuksSpec;
use super::{SpecError, holds};
use crate::text::{BusId, Lun, Wwid, Wwpn};

/// Most ways to reach a LUN that a spec lists.
pub const MAX_FCP: usize = 64;
/// Fewest and most live paths that can be demanded.
pub const MIN_PATHS: std::ops::RangeInclusive<u32> = 1..=64;
/// Shortest and longest time that paths are waited for, in seconds.
pub const PATH_WAIT: std::ops::RangeInclusive<u64> = 1..=3600;

/// Longest path of a device, in bytes.
pub const MAX_DEVICE: usize = 1024;

/// Whether a path can be stored and shown as it is.
fn is_usable(device: &Path) -> bool {
    device.to_str().is_some_and(|path| path.len() <= MAX_DEVICE && !path.chars().any(char::is_control))
}

/// Where the image goes: exactly one of `device` and `lun`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// A whole block device, or a regular file that exists and is large enough. It is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, min_length = 1, max_length = 1024))]
    pub device: Option<PathBuf>,
    /// A LUN behind dm-multipath. It is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<LunSpec>,
    /// How the image lies on it.
    #[serde(default)]
    pub layout: Layout,
    /// How what the layout encrypts is encrypted; the defaults where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub luks: Option<LuksSpec>,
    /// Whether a SCSI reservation guards it; `require` for a LUN and `off` for a device where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
    /// Whether what is found on it (file systems, partition tables, others' reservations) may be destroyed. Without this,
    /// only a target on which nothing is found is written.
    #[serde(default)]
    pub wipe: bool,
    /// What becomes of the device beyond the image; where absent, what suits the layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
}

/// What a [`TargetSpec`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A device or file.
    Device(&'a PathBuf),
    /// A LUN.
    Lun(&'a LunSpec),
}

impl TargetSpec {
    /// What it names. `None` where it names nothing or two things, which [`super::RunSpec::check`] refuses.
    pub fn place(&self) -> Option<Place<'_>> {
        match (&self.device, &self.lun) {
            (Some(device), None) => Some(Place::Device(device)),
            (None, Some(lun)) => Some(Place::Lun(lun)),
            _ => None,
        }
    }

    /// Its name in messages: the device's path, or the LUN's WWID.
    pub fn name(&self) -> String {
        match self.place() {
            Some(Place::Device(device)) => device.display().to_string(),
            Some(Place::Lun(lun)) => format!("LUN {}", lun.wwid),
            None => "nothing".into(),
        }
    }

    /// The reservation that is wanted.
    pub fn reservation(&self) -> Reservation {
        let usual = if self.lun.is_some() { Reservation::Require } else { Reservation::Off };
        self.reservation.unwrap_or(usual)
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let named = [self.device.is_some(), self.lun.is_some()].into_iter().filter(|named| *named).count();
        holds(named == 1, || format!("`target` names {named} targets: give one of `device` and `lun`"))?;
        let empty = self.device.as_ref().is_some_and(|device| device.as_os_str().is_empty());
        holds(!empty, || "`target.device` is empty".into())?;
        holds(self.device.as_ref().is_none_or(|device| is_usable(device)), || {
            format!("`target.device` has more than {MAX_DEVICE} bytes, or a control character")
        })?;
        let reserves_device = self.device.is_some() && self.reservation() != Reservation::Off;
        holds(!reserves_device, || "`target.reservation` needs a `target.lun`: a device may have no multipath".into())?;
        holds(self.layout != Layout::Plain || self.luks.is_none(), || {
            "`target.luks` is given, but `target.layout` is `plain`: nothing would be encrypted".into()
        })?;
        let discards = self.luks.as_ref().is_some_and(|luks| luks.discards);
        holds(self.layout != Layout::Whole || self.tail != Some(Tail::Discard) || discards, || {
            "`target.tail: discard` needs `target.luks.discards: true` in the layout `whole`: the container does not pass discards on"
                .into()
        })?;
        self.lun.as_ref().map_or(Ok(()), LunSpec::check)?;
        self.luks.as_ref().map_or(Ok(()), LuksSpec::check)
    }
}

/// A LUN and the ways to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LunSpec {
    /// Its WWID as dm-multipath knows it: never `sdX`, never a path.
    pub wwid: Wwid,
    /// zFCP adapters to set online, and LUNs to add where the fabric does not show them by itself. Empty where the platform
    /// has attached the LUN already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub fcp: Vec<FcpSpec>,
    /// How many live paths it must have.
    #[serde(default = "two")]
    #[cfg_attr(feature = "schema", schema(default = 2, minimum = 1, maximum = 64))]
    pub min_paths: u32,
    /// How long, in seconds, adapters, ports and paths are waited for.
    #[serde(default = "a_minute")]
    #[cfg_attr(feature = "schema", schema(default = 60, minimum = 1, maximum = 3600))]
    pub wait: u64,
}

impl LunSpec {
    fn check(&self) -> Result<(), SpecError> {
        holds(MIN_PATHS.contains(&self.min_paths), || {
            format!("`target.lun.min_paths` must be {} to {}", MIN_PATHS.start(), MIN_PATHS.end())
        })?;
        holds(PATH_WAIT.contains(&self.wait), || {
            format!("`target.lun.wait` must be {} to {} seconds", PATH_WAIT.start(), PATH_WAIT.end())
        })?;
        holds(self.fcp.len() <= MAX_FCP, || format!("`target.lun.fcp` has more than {MAX_FCP} entries"))?;
        for (number, fcp) in self.fcp.iter().enumerate() {
            let twice = self.fcp[..number].contains(fcp);
            holds(!twice, || format!("`target.lun.fcp` names {} twice", fcp.adapter))?;
            holds(fcp.wwpn.is_some() == fcp.lun.is_some(), || {
                format!("`target.lun.fcp`: {} has a `wwpn` or a `lun` without the other", fcp.adapter)
            })?;
        }
        Ok(())
    }
}

/// One way to a LUN through a zFCP adapter: with NPIV and automatic LUN scanning the adapter alone, else also port and LUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FcpSpec {
    /// The adapter's bus id.
    pub adapter: BusId,
    /// The storage port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwpn: Option<Wwpn>,
    /// The LUN behind that port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<Lun>,
}

/// How an image lies on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// As it is, in the clear.
    #[default]
    Plain,
    /// All of it inside one LUKS2 container. No firmware can start it.
    Whole,
    /// The regions that the image says are encrypted, each inside LUKS2 in its own place; the rest in the clear.
    Split,
}

impl Layout {
    /// The word in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Plain => "plain",
            Layout::Whole => "whole",
            Layout::Split => "split",
        }
    }

    /// Whether it puts anything inside LUKS.
    pub fn encrypts(self) -> bool {
        self != Layout::Plain
    }
}

/// Whether a SCSI-3 persistent reservation (write exclusive, registrants only) guards the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reservation {
    /// It does, or nothing is written.
    Require,
    /// It does where the storage can; else the summary says that nothing guards it.
    Prefer,
    /// It does not.
    Off,
}

/// What becomes of a device beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = TailWish))]
#[serde(rename_all = "kebab-case")]
pub enum Tail {
    /// It reads as zeros.
    Zero,
    /// It keeps what it has, be that a previous tenant's data.
    Keep,
    /// The device is told that nobody needs it; what it reads as is the device's choice.
    Discard,
}

impl Tail {
    /// The word in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Tail::Zero => "zero",
            Tail::Keep => "keep",
            Tail::Discard => "discard",
        }
    }
}

fn two() -> u32 {
    2
}

fn a_minute() -> u64 {
    60
}
