//! What makes a root this machine's: names, the password, what is not started, the initramfs, what is mounted.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::fail::{Fail, Outcome, Tried};
use crate::image::chroot;
use crate::image::debian::{BOOT_ID, LUKS_UUID, ROOT_ID};
use crate::shell::{capture, tool};

/// What the initramfs holds instead of every driver: what finds a disk. That makes it a third of the size, and faster to
/// boot. None is loaded unless its device is there. What opens a container is added by cryptsetup's own hook, but for
/// the processor's AES.
const MODULES: &str = "virtio_blk virtio_scsi sd_mod zfcp ext4 aes_s390";

const MACHINE_ID: &str = "7a70727600004000800000000000000f\n";

/// Units that look after a machine in the long run, or after a new one, or mount what nobody asks for here: each costs
/// every start of the machine time.
const MASKED: &str = "dev-hugepages.mount dev-mqueue.mount dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer getty-static.service kmod-static-nodes.service ldconfig.service \
    modprobe@configfs.service modprobe@drm.service modprobe@fuse.service proc-sys-fs-binfmt_misc.automount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    systemd-binfmt.service systemd-creds.socket systemd-firstboot.service systemd-hibernate-clear.service \
    systemd-hostnamed.socket systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-machine-id-commit.service systemd-pstore.service systemd-sysext.socket systemd-tmpfiles-clean.timer \
    systemd-udev-load-credentials.service systemd-update-done.service";

/// Takes the LUN that the machine was started from, whichever it is: the firmware says so.
const FCP: &str = include_str!("fcp-ipl.sh");

/// Where a disk's root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// In its partition.
    Plain,
    /// In a LUKS container in its partition.
    InLuks,
}

/// What is settled here.
pub fn recipe() -> String {
    format!("modules {MODULES}\nmasked {MASKED}\n{FCP}")
}

/// What the kernel is told.
pub fn parameters(root: Root) -> String {
    match root {
        Root::Plain => format!("root=UUID={ROOT_ID} ro console=ttysclp0 quiet"),
        Root::InLuks => {
            let container = format!("cryptopts=target=cr_root,source=UUID={LUKS_UUID}");
            format!("{container} root=/dev/mapper/cr_root ro console=ttysclp0 quiet")
        }
    }
}

/// Everything but what is mounted.
pub fn settle(root: &Path) -> Outcome<()> {
    put(root, "etc/hostname", "z-demo\n")?;
    put(root, "etc/hosts", "127.0.0.1 localhost z-demo\n")?;
    put(root, "etc/machine-id", MACHINE_ID)?;
    put(root, "etc/issue", "z-provisioner demo image: log in as root, password demo\n\n")?;
    password(root)?;
    let units = root.join("etc/systemd/system");
    for unit in MASKED.split_whitespace() {
        symlink("/dev/null", units.join(unit)).tried(format_args!("mask {unit}"))?;
    }
    let target = symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target"));
    target.tried("choose what is started")?;
    initramfs(root)
}

fn initramfs(root: &Path) -> Outcome<()> {
    let config = "etc/initramfs-tools";
    // Most of it is compressed already.
    put(root, &format!("{config}/conf.d/small"), "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\nRESUME=none\n")?;
    let hook = "#!/bin/sh\nif [ \"$1\" = prereqs ]; then exit 0; fi\n. /usr/share/initramfs-tools/hook-functions\n";
    program(root, &format!("{config}/hooks/modules"), &format!("{hook}manual_add_modules {MODULES}\n"))?;
    program(root, &format!("{config}/scripts/local-top/fcp-ipl"), FCP)?;

    let kernel = newest_kernel(&root.join("boot"))?;
    // Before there is an /etc/crypttab: one initramfs opens what the kernel's command line names, or nothing.
    capture(&mut chroot::inside(root, r#"chroot "$root" update-initramfs -c -k "$1""#, [&kernel]))?;
    for name in ["vmlinuz", "initrd.img"] {
        let file = format!("{name}-{kernel}");
        if !root.join("boot").join(&file).is_file() {
            return Err(Fail::new(format!("there is a kernel {kernel} in /boot, but no {file}")));
        }
        symlink(&file, root.join("boot").join(name)).tried(format_args!("link /boot/{name}"))?;
    }
    Ok(())
}

/// What is mounted, and what is opened for that.
pub fn mounts(root: &Path, kind: Root) -> Outcome<()> {
    let (device, crypttab) = match kind {
        Root::Plain => (format!("UUID={ROOT_ID}"), "# <target name> <source device> <key file> <options>\n".into()),
        Root::InLuks => ("/dev/mapper/cr_root".into(), format!("cr_root UUID={LUKS_UUID} none luks,initramfs\n")),
    };
    put(root, "etc/crypttab", &crypttab)?;
    // Neither is checked: a machine's first start is from a disk that has just been proven.
    let fstab = format!("{device} / ext4 errors=remount-ro 0 0\nUUID={BOOT_ID} /boot ext4 defaults 0 0\n");
    put(root, "etc/fstab", &fstab)?;
    // Newer than /usr: nothing needs to be brought up to date at the first start.
    put(root, "etc/.updated", "")?;
    put(root, "var/.updated", "")
}

fn put(root: &Path, path: &str, text: &str) -> Outcome<()> {
    let file = root.join(path);
    let folder = file.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)).tried(format_args!("write /{path}"))
}

fn program(root: &Path, path: &str, text: &str) -> Outcome<()> {
    put(root, path, text)?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root.join(path), executable).tried(format_args!("make /{path} executable"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_which_container_to_open() {
        assert!(!parameters(Root::Plain).contains("crypt"));
        let told = parameters(Root::InLuks);
        assert!(told.contains(&format!("source=UUID={LUKS_UUID} root=/dev/mapper/cr_root ")), "{told}");
    }
}
