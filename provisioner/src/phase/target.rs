//! The target: past the interlocks, opened for this run alone, and large enough. Nothing is written yet.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use imgstream::error::{Error, Result};
use imgstream::manifest::Descriptor;
use imgstream::sink::{Device, OpenOptions, Target};
use imgstream::size::Size;
use protocol::event::TargetFacts;
use protocol::spec::{Engine, RunSpec};
use tokio_util::sync::CancellationToken;

/// How long a busy target is waited for. The kernel closes the files of a process that was killed, an io_uring's above all,
/// a moment after it is gone; a run that follows at once must not fail for that.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

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
    let device = open_patiently(&spec.target.device, options, cancel).await.map_err(|error| match error.hint() {
        Some(_) => error,
        None => error.with_hint("`target.device` must name a whole block device, or a regular file that exists"),
    })?;
    device.check_fits(descriptor.raw_size, descriptor.sector_size)?;
    let facts = TargetFacts { device: device.name(), size: device.facts().size };
    let direct = device.is_direct();
    Ok(Taken { target: Target::single(device, descriptor.raw_size), facts, direct })
}

async fn open_patiently(path: &Path, options: OpenOptions, cancel: &CancellationToken) -> Result<Device> {
    let since = Instant::now();
    loop {
        match Device::open(path, options) {
            Err(error) if is_busy(&error) && since.elapsed() < PATIENCE => tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = cancel.cancelled() => return Err(Error::cancelled("waiting for the busy target")),
            },
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ResourceBusy)
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
