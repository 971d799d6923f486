//! Asking the LUN behind a map, path by path. A command sent to the map itself goes down one path and fails with that one, or with
//! a map that is being reloaded because a path has come or gone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use imgstream::error::{Error, IoContext, Result, Retry};

use super::multipath::Map;
use super::scsi::ScsiError;
use crate::block::{self, Number};

/// The kernel's names of the paths that run.
pub(super) fn running_paths(map: &Map) -> impl Iterator<Item = String> {
    let runs = |name: &String| block::attribute_of(name, "device/state").is_none_or(|state| state == "running");
    map.block.slaves().into_iter().filter(runs)
}

/// Opens a path to ask something.
///
/// # Errors
/// `Device`, which may pass.
pub(super) fn open_path(name: &str) -> Result<File> {
    let opening = || format!("opening /dev/{name} to ask it");
    // O_NONBLOCK: whether it is ready does not matter.
    let open =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(format!("/dev/{name}"));
    let device = open.device(opening).map_err(|error| error.with_retry(Retry::Temporary))?;
    let opened = Number::of_rdev(device.metadata().device(opening)?.rdev());
    if block::number_of(name) == Some(opened) {
        return Ok(device);
    }
    Err(Error::device(format!("/dev/{name} is {opened} and not what the kernel calls so now"))
        .with_retry(Retry::Temporary)
        .with_hint("devices come and go at this moment: run again when it is quiet"))
}

/// Asks the paths that run, one after the other, until one brings an answer. `None` is one too: the storage does not know the
/// command. For a thread that may wait.
///
/// # Errors
/// `Device`, which may pass, when no path brings an answer.
pub(super) fn first_answer<T>(
    map: &Map,
    asking: &str,
    question: impl Fn(&File) -> Result<T, ScsiError>,
) -> Result<Option<T>> {
    let mut unanswered = Error::device(format!("{asking}: multipath map {} has no path that runs", map.name));
    for name in running_paths(map) {
        let asked = open_path(&name).map(|device| question(&device));
        unanswered = match asked {
            Ok(Ok(answer)) => return Ok(Some(answer)),
            Ok(Err(error)) if error.is_unsupported() => return Ok(None),
            Ok(Err(error)) => Error::device(format!("{asking} through {name}: {error}")).with_source(error),
            Err(error) => error,
        };
    }
    Err(unanswered.with_retry(Retry::Temporary).with_hint("see its paths: multipath -ll"))
}
