//! The target: past the interlocks, opened for this run alone, and large enough. Nothing is written yet.

use std::fmt;

use imgstream::error::{Error, Result};
use imgstream::manifest::Descriptor;
use imgstream::sink::{OpenOptions, Target, open_patiently};
use imgstream::size::Size;
use protocol::event::TargetFacts;
use protocol::spec::{Engine, Place, RunSpec};
use tokio_util::sync::CancellationToken;

/// A target that is ours.
#[derive(Debug)]
pub struct Taken {
    target: Target,
    facts: TargetFacts,
    direct: bool,
}

/// Opens the target that `spec` names for the image that `descriptor` describes.
///
/// # Errors
/// `Target`, with what stands against it and the remedy; `Cancelled` while it is busy.
pub async fn open(spec: &RunSpec, descriptor: &Descriptor, cancel: &CancellationToken) -> Result<Taken> {
    // Never created: a target that is not there is a mistake in the spec, not a wish for a new file.
    let options =
        OpenOptions { buffered: spec.options.engine == Engine::Buffered, create: false, raw_size: descriptor.raw_size };
    let Some(Place::Device(path)) = spec.target.place() else {
        return Err(Error::usage("`target.lun` is not known here"));
    };
    let device = open_patiently(path, options, cancel).await.map_err(|error| match error.hint() {
        Some(_) => error,
        None => error.with_hint("`target.device` must name a whole block device, or a regular file that exists"),
    })?;
    device.check_fits(descriptor.raw_size, descriptor.sector_size)?;
    let facts = TargetFacts {
        device: device.name(),
        size: device.facts().size,
        layout: spec.target.layout.name().into(),
        paths: None,
        reservation: None,
        containers: Vec::new(),
        wiped: Vec::new(),
    };
    let direct = device.is_direct();
    Ok(Taken { target: Target::single(device, descriptor.raw_size), facts, direct })
}

impl Taken {
    /// What the summary tells of it.
    pub fn facts(&self) -> TargetFacts {
        self.facts.clone()
    }

    /// The target itself.
    pub fn into_target(self) -> Target {
        self.target
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.direct { "O_DIRECT" } else { "through the page cache" };
        write!(f, "{}, {}, ours alone, {how}", self.facts.device, Size(self.facts.size))
    }
}
