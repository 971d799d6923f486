//! What `cargo xtask test --vm` provides, and names in the environment.

use std::path::PathBuf;

/// The folder with QEMU's packages.
pub fn qemu() -> PathBuf {
    named("VM_QEMU_ROOT")
}

/// The kernel.
pub fn kernel() -> PathBuf {
    named("VM_KERNEL")
}

/// The archive every guest boots.
pub fn base() -> PathBuf {
    named("VM_INITRAMFS")
}

/// The archive that a gateway boots as well.
pub fn gateway() -> PathBuf {
    named("VM_GATEWAY")
}

/// The folder with the boot medium, in all its forms.
pub fn medium() -> PathBuf {
    named("VM_MEDIUM")
}

/// Raw images of an installed Debian: in the clear, and with a root file system that belongs into LUKS.
pub fn debian(split: bool) -> PathBuf {
    named(if split { "VM_DEBIAN_SPLIT" } else { "VM_DEBIAN" })
}

/// How the second one is packed.
pub fn split_pack_options() -> String {
    std::env::var("VM_DEBIAN_SPLIT_OPTIONS").expect("`cargo xtask test --vm` says how the image is packed")
}

/// The first process.
pub fn init() -> PathBuf {
    named("VM_INIT")
}

/// What is tested: a name in the guest, and the program for s390x.
pub fn programs() -> [(&'static str, PathBuf); 2] {
    [("imgstream", named("VM_IMGSTREAM")), ("z-provisioner", named("VM_Z_PROVISIONER"))]
}

/// Where the consoles of guests of failed tests are kept.
pub fn logs() -> PathBuf {
    let folder = named("VM_LOGS");
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("making {}: {error}", folder.display()));
    folder
}

fn named(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} is not set: guests are booted by `cargo xtask test --vm`"))
}
