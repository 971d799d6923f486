//! SG_IO: one SCSI command that reads, sent to a disk or through a multipath map, and how it ended.
//!
//! Source: the kernel's `include/scsi/sg.h` (interface version 3) and SPC-4 for status bytes and sense data.
#![allow(unsafe_code)] // one ioctl; the block says why it is sound

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long a device may take to answer. Multipath tries its other paths meanwhile.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Status bytes (SAM-5, 5.3.1).
const CHECK_CONDITION: u8 = 0x02;
const RESERVATION_CONFLICT: u8 = 0x18;
/// Sense keys (SPC-4, 4.5.6).
const ILLEGAL_REQUEST: u8 = 0x05;
const UNIT_ATTENTION: u8 = 0x06;

const SENSE_LEN: usize = 64;

/// `struct sg_io_hdr`.
#[repr(C)]
struct SgIoHeader {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: libc::c_uchar,
    mx_sb_len: libc::c_uchar,
    iovec_count: libc::c_ushort,
    dxfer_len: libc::c_uint,
    dxferp: *mut libc::c_void,
    cmdp: *const libc::c_uchar,
    sbp: *mut libc::c_uchar,
    timeout: libc::c_uint,
    flags: libc::c_uint,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: libc::c_uchar,
    masked_status: libc::c_uchar,
    msg_status: libc::c_uchar,
    sb_len_wr: libc::c_uchar,
    host_status: libc::c_ushort,
    driver_status: libc::c_ushort,
    resid: libc::c_int,
    duration: libc::c_uint,
    info: libc::c_uint,
}

const SG_DXFER_FROM_DEV: libc::c_int = -3;

mod ioctl {
    #![allow(missing_docs)]
    use super::SgIoHeader;
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, SgIoHeader);
}

/// Why a command gave no data.
#[derive(Debug)]
pub enum ScsiError {
    /// It could not be sent.
    Io(io::Error),
    /// It did not reach the device: the host adapter's and the driver's status.
    Transport(u16, u16),
    /// The device refused it: status, and sense key, code and qualifier where it gave them.
    Refused(u8, Option<[u8; 3]>),
}

impl ScsiError {
    /// Whether the device does not know the command at all.
    pub fn is_unsupported(&self) -> bool {
        match self {
            // "not a typewriter": no SCSI device is below.
            ScsiError::Io(error) => {
                matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP))
            }
            // Invalid command operation code, or invalid field in the command.
            ScsiError::Refused(_, Some([ILLEGAL_REQUEST, 0x20 | 0x24, _])) => true,
            _ => false,
        }
    }

    /// Whether the device only wanted to say that something has changed; the command may be sent again.
    fn is_unit_attention(&self) -> bool {
        matches!(self, ScsiError::Refused(_, Some([UNIT_ATTENTION, ..])))
    }
}

impl fmt::Display for ScsiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScsiError::Io(error) => write!(f, "{error}"),
            ScsiError::Transport(host, driver) => {
                write!(f, "not delivered (host status {host:#x}, driver status {driver:#x})")
            }
            ScsiError::Refused(RESERVATION_CONFLICT, _) => f.write_str("reservation conflict"),
            ScsiError::Refused(status, None) => write!(f, "SCSI status {status:#04x}"),
            ScsiError::Refused(_, Some([key, code, qualifier])) => {
                write!(f, "sense key {key:#x}, code {code:#04x}/{qualifier:#04x}")
            }
        }
    }
}

impl std::error::Error for ScsiError {}

/// Sends a command that reads into `into`, and returns how many bytes came. A unit attention (after a reset, after another
/// initiator preempted) is answered once per reason, so it is sent again a few times.
///
/// # Errors
/// [`ScsiError`].
pub(super) fn read(device: &File, command: &[u8], into: &mut [u8]) -> Result<usize, ScsiError> {
    const TRIES: usize = 4;
    let mut outcome = read_once(device, command, into);
    for _ in 1..TRIES {
        if !outcome.as_ref().is_err_and(ScsiError::is_unit_attention) {
            break;
        }
        outcome = read_once(device, command, into);
    }
    outcome
}

fn read_once(device: &File, command: &[u8], into: &mut [u8]) -> Result<usize, ScsiError> {
    let mut sense = [0u8; SENSE_LEN];
    let too_long = |_| ScsiError::Io(io::ErrorKind::InvalidInput.into());
    let len = libc::c_uint::try_from(into.len()).map_err(too_long)?;
    let mut header = SgIoHeader {
        interface_id: 'S' as libc::c_int,
        dxfer_direction: SG_DXFER_FROM_DEV,
        cmd_len: libc::c_uchar::try_from(command.len()).map_err(too_long)?,
        mx_sb_len: SENSE_LEN as libc::c_uchar,
        iovec_count: 0,
        dxfer_len: len,
        dxferp: into.as_mut_ptr().cast(),
        cmdp: command.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: TIMEOUT.as_millis() as libc::c_uint,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is what the kernel expects, its three pointers are to buffers of the lengths it states, all of which
    // outlive the call; the kernel writes at most `dxfer_len` bytes of data and `mx_sb_len` of sense, and keeps no pointer.
    unsafe { ioctl::sg_io(device.as_raw_fd(), &raw mut header) }.map_err(|errno| ScsiError::Io(errno.into()))?;
    match header.status {
        0 if header.host_status == 0 => {
            let missing = usize::try_from(header.resid).unwrap_or(0);
            Ok(into.len().saturating_sub(missing))
        }
        0 => Err(ScsiError::Transport(header.host_status, header.driver_status)),
        CHECK_CONDITION => {
            let sense = &sense[..usize::from(header.sb_len_wr).min(SENSE_LEN)];
            Err(ScsiError::Refused(CHECK_CONDITION, sense_of(sense)))
        }
        status => Err(ScsiError::Refused(status, None)),
    }
}

/// Sense key, additional code and qualifier, of fixed (0x70) and descriptor (0x72) format (SPC-4, 4.5).
fn sense_of(sense: &[u8]) -> Option<[u8; 3]> {
    match sense.first()? & 0x7f {
        0x70 | 0x71 => Some([sense.get(2)? & 0x0f, *sense.get(12)?, *sense.get(13)?]),
        0x72 | 0x73 => Some([sense.get(1)? & 0x0f, *sense.get(2)?, *sense.get(3)?]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_kernels_layout() {
        // include/scsi/sg.h on every 64-bit Linux.
        assert_eq!((size_of::<SgIoHeader>(), std::mem::offset_of!(SgIoHeader, status)), (88, 64));
    }

    #[test]
    fn sense_of_both_formats_is_understood() {
        let mut fixed = [0u8; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0x70, 0x06, 0x2a, 0x03);
        assert_eq!(sense_of(&fixed), Some([0x06, 0x2a, 0x03]));
        assert_eq!(sense_of(&[0x72, 0x05, 0x20, 0x00]), Some([0x05, 0x20, 0x00]));
        assert_eq!((sense_of(&[]), sense_of(&[0x70, 0]), sense_of(&[0x11; 20])), (None, None, None));
        assert!(ScsiError::Refused(2, Some([5, 0x20, 0])).is_unsupported());
        assert!(!ScsiError::Refused(2, Some([6, 0x29, 0])).is_unsupported());
    }

    #[test]
    fn what_is_no_scsi_device_is_said() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(&file, &[0x12, 0, 0, 0, 36, 0], &mut [0; 36]).unwrap_err().is_unsupported());
    }
}
