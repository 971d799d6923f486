//! Opening a target that somebody else is just letting go.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::open::OpenOptions;
use crate::error::{Error, Result, Retry};

/// How long a busy target is waited for. The kernel closes the files of a process that was killed, and an io_uring's above
/// all, some time after the process is gone; whoever follows at once must not fail for that.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// [`Device::open`], again and again for [`PATIENCE`] while what stands against it may pass.
///
/// # Errors
/// Those of [`Device::open`], the last one saying how long was waited; `Cancelled`.
pub async fn open_patiently(path: &Path, options: OpenOptions, cancel: &CancellationToken) -> Result<Device> {
    let since = Instant::now();
    let mut told = false;
    loop {
        let error = match Device::open(path, options) {
            Err(error) if error.retry() == Retry::Temporary => error,
            outcome => return outcome,
        };
        if since.elapsed() >= PATIENCE {
            return Err(error.in_addition(&format!("waited {} s", PATIENCE.as_secs())));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("{error}; waiting up to {} s for it", PATIENCE.as_secs());
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => return Err(Error::cancelled("waiting for the busy target")),
        }
    }
}
