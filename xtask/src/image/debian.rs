//! A Debian disk for s390x: GPT, /boot, root, systemd, kernel, a small initramfs, and zipl's boot record. Made
//! from packages alone with mmdebstrap and qemu-user.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fail::{Fail, Outcome, Tried};
use crate::image::disk::{self, EPOCH, Part};
use crate::image::zipl;
use crate::packages::mirror;
use crate::shell::{capture, line, run, tool};

const SUITE: &str = "trixie";
const PACKAGES: &str =
    "linux-image-s390x,systemd-sysv,udev,s390-tools,initramfs-tools,e2fsprogs,login,passwd,kmod,zstd";

/// Change this whenever the steps below change what comes out.
const STEPS: u32 = 1;

/// The initramfs holds what finds a disk, instead of every driver: a third of the size, and faster to boot.
const MODULES: &str = "virtio_blk virtio_scsi sd_mod zfcp ext4";

/// Fixed, so that two builds from the same packages differ as little as possible.
const DISK_ID: &str = "7a707276-0000-4000-8000-000000000000";
const BOOT_ID: &str = "7a707276-0000-4000-8000-000000000001";
const ROOT_ID: &str = "7a707276-0000-4000-8000-000000000002";
const MACHINE_ID: &str = "7a70727600004000800000000000000f\n";

/// "Linux root (s390x)" of the discoverable partitions specification.
const ROOT_TYPE: &str = "5EEAD9A9-FE09-4A1E-A1D7-520D00531306";

/// What the image depends on: the key of the cache.
pub fn recipe() -> String {
    format!("{SUITE} {PACKAGES}\nmodules {MODULES}\nsteps {STEPS}\n")
}

/// Builds `folder/file`.
pub fn build(folder: &Path, file: &str) -> Outcome<()> {
    crate::loopdev::demand_root("cargo xtask demo")?;
    zipl::ensure_qemu_user()?;
    let (root, boot, image) = (folder.join("root"), folder.join("boot"), folder.join(file));
    mirror::by_either_name(SUITE, |suite| unpack(&root, suite))?;
    configure(&root)?;

    // Each folder becomes one partition.
    let made = std::fs::rename(root.join("boot"), &boot).and_then(|()| std::fs::create_dir(root.join("boot")));
    made.tried("take /boot out of the root")?;
    let boot_mib = disk::fitted(disk::used(&boot)?);
    let root_mib = disk::fitted(disk::used(&root)?);
    let parts = [
        Part { name: "boot", kind: "L", uuid: BOOT_ID, mib: boot_mib, files: &boot },
        Part { name: "root", kind: ROOT_TYPE, uuid: ROOT_ID, mib: root_mib, files: &root },
    ];
    eprintln!("laying out the disk: boot {boot_mib} MiB, root {root_mib} MiB");
    disk::make(&image, DISK_ID, &parts)?;
    zipl::write_boot_record(&root, &image, boot_mib, &parameters())?;
    disk::check_boot_record(&image)?;
    disk::check(&image, &parts)?;
    eprintln!("checked: boot record in place, partition table and both file systems sound");

    for done in [&root, &boot] {
        std::fs::remove_dir_all(done).tried(format_args!("remove {}", done.display()))?;
    }
    Ok(())
}

fn unpack(root: &Path, suite: &str) -> Outcome<()> {
    if root.exists() {
        std::fs::remove_dir_all(root).tried("remove what the first attempt left")?;
    }
    let mut mmdebstrap = mmdebstrap(root, suite, &format!("deb {} {suite} main", mirror::main_archive()?));
    eprintln!("$ {}", line(&mmdebstrap));
    run(&mut mmdebstrap)?;
    let release = std::fs::read_to_string(root.join("etc/os-release")).tried("read the image's /etc/os-release")?;
    // An alias is given to the next suite one day.
    if release.lines().any(|line| line == format!("VERSION_CODENAME={SUITE}")) {
        return Ok(());
    }
    Err(Fail::new(format!("{suite} is not {SUITE} any more")))
}

fn mmdebstrap(root: &Path, suite: &str, source: &str) -> Command {
    let mut command = tool("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", EPOCH).stdin(Stdio::null());
    command.args(["--variant=essential", "--mode=root", "--architectures=s390x", "--format=directory"]);
    // Signatures are still checked; only a clock that is ahead of the mirror is forgiven.
    command.arg(r#"--aptopt=Acquire::Check-Valid-Until "false""#);
    command.arg(r#"--aptopt=APT::Install-Recommends "false""#);
    for unread in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    let lists = r#"mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d""#;
    command.arg(format!("--essential-hook={lists}"));
    command.arg(r#"--essential-hook=echo MODULES=list >"$1/etc/initramfs-tools/conf.d/small""#);
    let write = format!(r#"printf '%s\n' {MODULES} >"$1/usr/share/initramfs-tools/modules.d/boot-disk""#);
    command.arg(format!("--essential-hook={write}"));
    command.arg(format!("--include={PACKAGES}")).arg(suite).arg(root).arg(source);
    command
}

fn parameters() -> String {
    format!("root=UUID={ROOT_ID} ro console=ttysclp0 quiet")
}

fn configure(root: &Path) -> Outcome<()> {
    let put = |path: &str, text: &str| std::fs::write(root.join(path), text).tried(format_args!("write /{path}"));
    put("etc/hostname", "z-demo\n")?;
    put("etc/hosts", "127.0.0.1 localhost z-demo\n")?;
    put("etc/machine-id", MACHINE_ID)?;
    let mounts = [(ROOT_ID, "/", "errors=remount-ro 0 1"), (BOOT_ID, "/boot", "defaults 0 2")];
    put("etc/fstab", &mounts.map(|(id, at, how)| format!("UUID={id} {at} ext4 {how}\n")).concat())?;
    put("etc/issue", "z-provisioner demo image: log in as root, password demo\n\n")?;
    let parameters = parameters();
    put(
        "etc/zipl.conf",
        &format!(
            "[defaultboot]\ndefaultmenu=menu\n:menu\ntarget=/boot\n1=debian\ndefault=1\nprompt=0\ntimeout=0\n\
         [debian]\ntarget=/boot\nimage=/boot/vmlinuz\nramdisk=/boot/initrd.img\nparameters=\"{parameters}\"\n"
        ),
    )?;
    password(root)?;

    let kernel = newest_kernel(&root.join("boot"))?;
    for name in ["vmlinuz", "initrd.img"] {
        let file = format!("{name}-{kernel}");
        if !root.join("boot").join(&file).is_file() {
            return Err(Fail::new(format!("the packages put a kernel {kernel} into /boot, but no {file}")));
        }
        symlink(&file, root.join("boot").join(name)).tried(format_args!("link /boot/{name}"))?;
    }
    Ok(())
}

/// The demo image's password is no secret: it is printed on its login prompt. The salt is fixed like the rest.
fn password(root: &Path) -> Outcome<()> {
    let hash = capture(tool("openssl").args(["passwd", "-6", "-salt", "zprovisioner", "demo"]))?;
    let path = root.join("etc/shadow");
    let shadow = std::fs::read_to_string(&path).tried("read the image's /etc/shadow")?;
    let set = shadow.lines().map(|line| match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
        Some((_, rest)) => format!("root:{}:{rest}\n", hash.trim()),
        None => format!("{line}\n"),
    });
    std::fs::write(&path, set.collect::<String>()).tried("write the image's /etc/shadow")
}

fn newest_kernel(boot: &Path) -> Outcome<String> {
    let entries = std::fs::read_dir(boot).tried("read the image's /boot")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let versions = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_string));
    versions.max().ok_or_else(|| Fail::new("the packages left no kernel in /boot"))
}
