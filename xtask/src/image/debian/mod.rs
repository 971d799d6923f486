//! Two disks of one Debian for s390x: GPT, /boot, root, systemd, kernel, initramfs, and zipl's boot record. Made from
//! packages alone with mmdebstrap and qemu-user.
//!
//! The root of one is a file system; that of the other is meant to be put inside LUKS. Kernel and initramfs are the
//! same; what the kernel is told, /etc/fstab and /etc/crypttab differ.

mod settle;
mod unpack;

use std::path::Path;
use std::time::Instant;

use crate::fail::{Outcome, Tried};
use crate::image::disk::{self, Part};
use crate::image::zipl;
use crate::packages::mirror;
use crate::shell::{capture, tool};

/// The disk whose root is a file system.
pub const PLAIN: &str = "disk.img";
/// The disk whose root belongs inside LUKS.
pub const SPLIT: &str = "split.img";

/// The container that the split disk's kernel is told to open.
pub const LUKS_UUID: &str = "7a707276-0000-4000-8000-000000000004";
/// What is left free for its header at the end of the split disk's root.
pub const LUKS_HEADER_MIB: u64 = 2;

/// Change this whenever the steps below change what comes out.
const STEPS: u32 = 2;

/// Fixed, so that two builds from the same packages differ as little as possible.
const DISK_ID: &str = "7a707276-0000-4000-8000-000000000000";
const SPLIT_DISK_ID: &str = "7a707276-0000-4000-8000-000000000003";
const BOOT_ID: &str = "7a707276-0000-4000-8000-000000000001";
const ROOT_ID: &str = "7a707276-0000-4000-8000-000000000002";

/// "Linux root (s390x)" of the discoverable partitions specification.
const ROOT_TYPE: &str = "5EEAD9A9-FE09-4A1E-A1D7-520D00531306";

/// What the images depend on: the key of the cache.
pub fn recipe() -> String {
    format!("{}{}steps {STEPS}\n", unpack::recipe(), settle::recipe())
}

/// Options with which `imgstream pack` marks the root of the split disk, as its kernel expects it.
pub fn pack_options() -> [String; 6] {
    let header = format!("{LUKS_HEADER_MIB}MiB");
    let uuid = format!("root={LUKS_UUID}");
    ["--encrypt-region".into(), "root=2".into(), "--luks-header".into(), header, "--luks-uuid".into(), uuid]
}

/// Builds both disks in `folder`.
pub fn build(folder: &Path) -> Outcome<()> {
    crate::loopdev::demand_root("cargo xtask image")?;
    zipl::ensure_qemu_user()?;
    let (root, boot, zipl) = (folder.join("root"), folder.join("boot"), folder.join(unpack::ZIPL));
    timed("packages unpacked and configured", || {
        mirror::by_either_name(unpack::SUITE, |suite| unpack::unpack(&root, suite))
    })?;
    timed("initramfs made", || settle::settle(&root))?;

    // Each folder becomes one partition.
    let made = std::fs::rename(root.join("boot"), &boot).and_then(|()| std::fs::create_dir(root.join("boot")));
    made.tried("take /boot out of the root")?;
    let sizes = Sizes { boot: disk::fitted(disk::used(&boot)?), root: disk::fitted(disk::used(&root)?) };
    eprintln!("laying out the disks: boot {} MiB, root {} MiB", sizes.boot, sizes.root);
    let disks = [
        (PLAIN, DISK_ID, settle::Root::Plain, sizes.parts(&root, &boot, 0)),
        (SPLIT, SPLIT_DISK_ID, settle::Root::InLuks, sizes.parts(&root, &boot, LUKS_HEADER_MIB)),
    ];
    timed("disks filled", || {
        disks.iter().try_for_each(|(file, id, kind, parts)| {
            settle::mounts(&root, *kind)?;
            disk::make(&folder.join(file), id, parts)
        })
    })?;

    // The image itself has no zipl: it brings Perl, GLib and curl, and nobody changes this kernel. Both roots are on disk.
    capture(tool("dpkg-deb").arg("--extract").args([&zipl, &root]))?;
    timed("boot records written and all of it checked", || {
        disks.iter().try_for_each(|(file, _, kind, parts)| {
            let image = folder.join(file);
            zipl::write_boot_record(&root, &image, sizes.boot, &settle::parameters(*kind))?;
            disk::check_boot_record(&image)?;
            disk::check(&image, parts)
        })
    })?;

    std::fs::remove_file(&zipl).tried(format_args!("remove {}", zipl.display()))?;
    for done in [&root, &boot] {
        std::fs::remove_dir_all(done).tried(format_args!("remove {}", done.display()))?;
    }
    Ok(())
}

/// The partitions' file systems in MiB.
struct Sizes {
    boot: u64,
    root: u64,
}

impl Sizes {
    fn parts<'a>(&self, root: &'a Path, boot: &'a Path, free: u64) -> [Part<'a>; 2] {
        [
            Part { name: "boot", kind: "L", uuid: BOOT_ID, mib: self.boot, free: 0, files: boot },
            Part { name: "root", kind: ROOT_TYPE, uuid: ROOT_ID, mib: self.root, free, files: root },
        ]
    }
}

/// Says how long a step took: this runs for minutes, on machines that nobody watches.
fn timed(done: &str, step: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let began = Instant::now();
    step()?;
    eprintln!("{done} in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
