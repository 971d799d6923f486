//! How a device or file is opened: past the interlocks, exclusively, with O_DIRECT where it works.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::interlock::{self, Host};
use crate::buffer::ALIGNMENT;
use crate::error::{Error, IoContext, Kind, Result, Retry};

/// How to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Go through the page cache even where O_DIRECT works.
    pub buffered: bool,
    /// Create a regular file where nothing is.
    pub create: bool,
    /// Length of the image that will be written, in bytes: a created file's length.
    pub raw_size: u64,
}

/// Refuses to make a file where a device was meant.
pub(super) fn check_name(path: &Path) -> Result<()> {
    if lies_below_dev(path) {
        // A mistyped device would become a file in memory, and writing it would "succeed".
        let missing = Error::target(format!("{} does not exist", path.display()));
        return Err(missing.with_hint("lsblk lists this machine's devices"));
    }
    Ok(())
}

/// Whether a file made at `path` would be one among the devices, however the path is spelled.
fn lies_below_dev(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.starts_with("/dev") || parent.canonicalize().is_ok_and(|parent| parent.starts_with("/dev"))
}

/// Whether O_DIRECT's padding after the image would overwrite what follows it in a longer regular file.
fn padding_would_hurt(path: &Path, options: OpenOptions) -> bool {
    let longer = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > options.raw_size);
    longer && !options.raw_size.is_multiple_of(ALIGNMENT as u64)
}

/// The interlocks. Returns the device number that was checked; 0 for a regular file.
pub(super) fn check(path: &Path) -> Result<u64> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(path).context(Kind::Target, || format!("looking at {}", path.display()))?;
    if metadata.file_type().is_block_device() {
        Host::default().check(&path.display().to_string(), &interlock::number_text(metadata.rdev()))?;
        return Ok(metadata.rdev());
    }
    if !metadata.file_type().is_file() {
        return Err(Error::target(format!("{} is neither a block device nor a regular file", path.display())));
    }
    Host::default().check_file(path)?;
    Ok(0)
}

/// Opens with O_EXCL (on a block device: nobody else has it mounted, mapped or open exclusively), with O_DIRECT where it works.
pub(super) fn open_file(path: &Path, options: OpenOptions, fresh: bool) -> Result<(File, bool)> {
    let exclusive = if fresh || path.is_file() { 0 } else { libc::O_EXCL };
    let open = |flags: i32| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(fresh)
            .custom_flags(flags | libc::O_CLOEXEC | exclusive)
            .open(path)
    };
    let opened = match (options.buffered || padding_would_hurt(path, options), fresh) {
        (true, _) => open(0).map(|file| (file, false)),
        // O_DIRECT refused on a new file would leave it behind; so create it first and ask again.
        (false, true) => open(0).map(|file| {
            let direct = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
                .open(path);
            direct.map_or((file, false), |file| (file, true))
        }),
        (false, false) => match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0).map(|file| (file, false)),
            other => other.map(|file| (file, true)),
        },
    };
    opened.map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::EBUSY) => "somebody else uses it: find out with lsblk and fuser",
            Some(libc::EACCES | libc::EPERM) => "run as root, or as a user who may write this device",
            Some(libc::EROFS) => "it is read-only: make it writable first",
            _ => "check the path",
        };
        let retry = if error.raw_os_error() == Some(libc::EBUSY) { Retry::Temporary } else { Retry::Permanent };
        Error::target(format!("opening {} for writing: {error}", path.display()))
            .with_source(error)
            .with_retry(retry)
            .with_hint(hint)
    })
}
