//! The boot record: zipl of the image's own Debian, run under qemu-user in its root, on loop devices.

use std::ffi::OsStr;
use std::path::Path;

use crate::fail::{Fail, Outcome, Tried};
use crate::image::chroot;
use crate::image::disk::{FIRST, MIB};
use crate::loopdev::Loop;
use crate::shell::{capture, run, tool};

const ZIPL: &str = r#"
boot=$1 disk=$2 first=$3 parameters=$4
mount -t ext4 "$boot" "$root/boot"
chroot "$root" /sbin/zipl --target /boot --targetbase "$disk" --targettype SCSI --targetblocksize 512 \
    --targetoffset "$first" --image /boot/vmlinuz --ramdisk /boot/initrd.img --parameters "$parameters"
umount "$root/boot"
"#;

/// Writes the boot record of `disk`, whose first partition of `boot_mib` is /boot; `root` is a root's folder with zipl
/// and an empty `boot` in it.
///
/// zipl is told all it would otherwise find out from a disk's geometry, which a loop device does not have.
pub fn write_boot_record(root: &Path, disk: &Path, boot_mib: u64, parameters: &str) -> Outcome<()> {
    let whole = Loop::attach(disk, &[])?;
    let (offset, size) = (FIRST.to_string(), (boot_mib * MIB).to_string());
    let boot = Loop::attach(disk, &["--offset", &offset, "--sizelimit", &size])?;
    let first = (FIRST / 512).to_string();
    let arguments: [&OsStr; 4] = [boot.as_ref(), whole.as_ref(), first.as_ref(), parameters.as_ref()];
    capture(&mut chroot::inside(root, ZIPL, arguments))
        .map_err(|fail| Fail { message: short(&fail.message), ..fail })?;
    capture(tool("blockdev").arg("--flushbufs").arg(&whole))?;
    Ok(())
}

/// The script's text says nothing that its output does not; only the output is kept.
fn short(message: &str) -> String {
    let said = message.rsplit_once("` failed").map_or(message, |(_, said)| said);
    format!("could not write the boot record with zipl, under qemu-user in the image's root{said}")
}

/// Lets the kernel run s390x programs, through qemu-user. Stays until the machine is restarted, as with Debian's
/// own service for it.
pub fn ensure_qemu_user() -> Outcome<()> {
    if capture(tool("arch-test").arg("s390x")).is_ok() {
        return Ok(());
    }
    let registered = Path::new("/proc/sys/fs/binfmt_misc");
    if !registered.join("register").exists() {
        run(tool("mount").args(["-t", "binfmt_misc", "binfmt_misc"]).arg(registered))?;
    }
    let format = "/usr/lib/binfmt.d/qemu-s390x.conf";
    let text = std::fs::read_to_string(format).tried(format_args!("read {format} (package qemu-user-static)"))?;
    if !registered.join("qemu-s390x").exists() {
        let register = std::fs::write(registered.join("register"), text.trim_end());
        register.tried("register qemu-user for s390x with the kernel (binfmt_misc)")?;
    }
    capture(tool("arch-test").arg("s390x")).map(drop).map_err(|_| {
        Fail::usage("s390x programs cannot be run here although qemu-user is registered: see `arch-test s390x`")
    })
}
