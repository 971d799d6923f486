//! What IBM Z firmware, and QEMU's, finds on a SCSI disk: zIPL's boot record, and whether all that it leads to can be loaded
//! and is a Linux that can open its own containers.
//!
//! The way firmware goes: the record in block 0 leads to the program table, its first entry to the default program's component table,
//! each entry there to a chain of segment tables, these to runs of blocks that are loaded to an address; the last entry says
//! where execution begins. That is zIPL's loader (stage 3), which finds in its own parameters where kernel parameters and
//! initramfs were loaded. `format.rs` knows the bytes, `walk.rs` follows them within bounds, `program.rs` says what was
//! loaded.
//!
//! Sources: s390-tools' zipl/include/boot.h, zipl/src/bootmap.c and include/boot/loaders_layout.h (what is written);
//! QEMU's pc-bios/s390-ccw/bootmap.c, `ipl_scsi`, `zipl_run`, `zipl_load_segment` (how it is read). All integers
//! are big-endian.

mod format;
mod media;
mod program;
mod walk;

#[cfg(test)]
mod disk;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use imgstream::error::{Error, Result};
use imgstream::size::Size;

pub use media::{Media, ReadAt};
use walk::Walk;

/// What can be done about a disk that firmware could not start.
const REBUILD: &str = "run zipl again in the image build, after the last change to /boot, and pack the image anew";

/// What firmware starts on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Bytes of the kernel.
    pub kernel: u64,
    /// Bytes of the initramfs, where there is one.
    pub initramfs: Option<u64>,
    /// The kernel parameters as zIPL wrote them; empty where it wrote none.
    pub parameters: String,
    /// Programs that can be chosen from: 1 where there is only the default one.
    pub programs: usize,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel of {}", Size(self.kernel))?;
        match self.initramfs {
            Some(bytes) => write!(f, ", initramfs of {}", Size(bytes))?,
            None => f.write_str(", no initramfs")?,
        }
        if self.programs > 1 {
            write!(f, ", the default of {} programs", self.programs)?;
        }
        write!(f, ", parameters {:?}", self.parameters)
    }
}

/// Checks that firmware can start what lies on `disk`, whose logical blocks have `block_size` bytes. All that firmware loads
/// must lie in `allowed`: what is outside of these byte ranges is encrypted, and firmware has no key. `luks` are the UUIDs
/// of the containers that were made: where there are any, there must be an initramfs, and the kernel parameters must name one
/// of them, or nothing would open it.
///
/// Work is bounded whatever lies on the disk. For a thread that may wait.
///
/// # Errors
/// `Image` with what exactly is wrong; `Target` where firmware knows no such blocks; those of `disk`.
pub fn check(disk: &dyn ReadAt, block_size: u32, allowed: &[Range<u64>], luks: &[String]) -> Result<Boot> {
    // pc-bios/s390-ccw/virtio-blkdev.c, `virtio_ipl_disk_is_valid`; zipl.h, `MAXIMUM_PHYSICAL_BLOCKSIZE`.
    if !matches!(block_size, 512 | 1024 | 2048 | 4096) {
        let message = format!("the disk has logical blocks of {block_size} bytes, and firmware starts none such");
        return Err(Error::target(message).with_hint("use a disk with blocks of 512 or 4096 bytes"));
    }
    let mut walk = Walk::new(disk, block_size, allowed);
    let (programs, default) = walk.programs()?;
    let program = walk.program(default)?;
    program.check_entry()?;
    let kernel = program.kernel(&walk)?;
    let parameters = program.stage3(&walk)?;
    let text = program.text(&walk, &parameters)?;
    let initramfs = program.initramfs(&walk, &parameters)?;
    if !luks.is_empty() {
        opens_its_containers(initramfs, &text, luks)?;
    }
    Ok(Boot { kernel: parameters.kernel_len(kernel), initramfs, parameters: text, programs })
}

fn opens_its_containers(initramfs: Option<u64>, parameters: &str, luks: &[String]) -> Result<()> {
    if initramfs.is_none() {
        return Err(Error::image("there is no initramfs, and only one could open the LUKS container").with_hint(
            "give zipl the initramfs (`ramdisk =` in /etc/zipl.conf) in the image build, and pack the image anew",
        ));
    }
    let said = parameters.to_ascii_lowercase();
    if luks.iter().any(|uuid| said.contains(&uuid.to_ascii_lowercase())) {
        return Ok(());
    }
    let uuids = luks.join(", ");
    let message = format!("the kernel parameters do not name the LUKS container {uuids}: {parameters:?}");
    Err(Error::image(message).with_hint(format!(
        "give the kernel rd.luks.uuid={} (or what the image's initramfs takes) in /etc/zipl.conf, run zipl again in the image build, and pack the image anew",
        luks.first().map_or("", String::as_str)
    )))
}
