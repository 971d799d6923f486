//! What the drivers of channel-attached devices have in common: where a device is, whether the kernel was told not to look
//! at it (`cio_ignore=` on its command line, `/proc/cio_ignore` afterwards), and how it says that it is busy.
//!
//! Source: Documentation/arch/s390/common_io.rst, drivers/s390/cio/blacklist.c (`cio_ignore_proc_seq_show`): a bus id,
//! or two with a hyphen between, per line.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::sysfs::{self, Roots};

/// A bus id as three numbers, which sort as the kernel counts.
type Id = (u32, u32, u32);

/// Where the device `bus_id` is.
pub(crate) fn device_dir(roots: &Roots, bus_id: &str) -> PathBuf {
    roots.sys("bus/ccw/devices").join(bus_id)
}

/// Whether the kernel is at something else with the device (device.c, ccwgroup.c: `online_store`).
pub(crate) fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ResourceBusy)
}

/// Whether `bus_id` is ignored.
pub(crate) fn is_ignored(roots: &Roots, bus_id: &str) -> bool {
    let list = sysfs::read(&roots.proc("cio_ignore")).unwrap_or_default();
    parse(bus_id).is_some_and(|id| list.lines().any(|line| covers(line, id)))
}

fn covers(line: &str, id: Id) -> bool {
    let (from, to) = line.split_once('-').unwrap_or((line, line));
    matches!((parse(from), parse(to)), (Some(from), Some(to)) if (from..=to).contains(&id))
}

fn parse(bus_id: &str) -> Option<Id> {
    let mut parts = bus_id.trim().split('.').map(|part| u32::from_str_radix(part, 16).ok());
    let id = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_devices_and_ranges_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::at(dir.path(), dir.path());
        assert!(!is_ignored(&roots, "0.0.1900"));
        std::fs::write(dir.path().join("cio_ignore"), "0.0.0000-0.0.18ff\n0.0.1901\n0.1.0000-0.1.ffff\n").unwrap();
        let ignored = ["0.0.0000", "0.0.18ff", "0.0.1901", "0.1.1900"];
        assert!(ignored.into_iter().all(|bus_id| is_ignored(&roots, bus_id)));
        assert!(["0.0.1900", "0.0.1902", "0.2.0000"].into_iter().all(|bus_id| !is_ignored(&roots, bus_id)));
    }

    #[test]
    fn lines_that_make_no_sense_cover_nothing() {
        assert!(
            ["", "-", "0.0.1900-", "all", "0.0.1900-x", "1900"].into_iter().all(|line| !covers(line, (0, 0, 0x1900)))
        );
    }
}
