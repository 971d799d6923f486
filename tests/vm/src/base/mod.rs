//! What a guest boots into: programs of Debian's packages, whose versions are recorded, with the libraries and kernel modules they
//! need, in an archive that stays, and what differs from guest to guest in a second one after it.

mod contents;

use std::io;
use std::path::{Path, PathBuf};

use initramfs::{Archive, closure, modules};

/// What a guest boots from, in the folder where it was made.
pub struct Base {
    /// The kernel.
    pub kernel: PathBuf,
    /// The archive, not compressed.
    pub archive: PathBuf,
    /// What a gateway has besides: an archive to follow the first one.
    pub gateway: PathBuf,
}

impl Base {
    /// Where they are in `folder`.
    pub fn of(folder: &Path) -> Self {
        Self { kernel: folder.join("kernel"), archive: folder.join("base.cpio"), gateway: folder.join("gateway.cpio") }
    }

    /// Makes them from a root folder of unpacked packages.
    ///
    /// # Errors
    /// When a program, a library or a module is missing, or kmod's tools are.
    pub fn make(root: &Path, folder: &Path) -> io::Result<Self> {
        let base = Self::of(folder);
        let version = modules::kernel_version(root)?;
        std::fs::copy(root.join("boot").join(format!("vmlinuz-{version}")), &base.kernel)?;
        let staged = folder.join("modules");
        modules::stage(root, &version, contents::MODULES, &staged)?;

        let mut archive = Archive::create(&base.archive)?;
        contents::FOLDERS.iter().try_for_each(|path| archive.folder(path))?;
        contents::LINKS.iter().try_for_each(|(path, target)| archive.link(path, target))?;
        contents::TEXTS.iter().try_for_each(|(path, text)| archive.file(path, 0o644, text.as_bytes()))?;
        contents::APPLETS
            .split_whitespace()
            .try_for_each(|applet| archive.link(&format!("usr/bin/{applet}"), "busybox"))?;
        let files = closure::of(root, contents::wanted(root)?)?;
        for (path, source) in &files {
            archive.copy(path, source)?;
        }
        archive.tree(&staged, "usr/lib/modules")?;
        archive.finish()?;

        let mut gateway = Archive::create(&base.gateway)?;
        contents::GATEWAY_FOLDERS.iter().try_for_each(|path| gateway.folder(path))?;
        let more = closure::of(root, contents::GATEWAY.iter().map(|path| (*path).to_owned()).collect())?;
        for (path, source) in more.iter().filter(|(path, _)| !files.contains_key(*path)) {
            gateway.copy(path, source)?;
        }
        gateway.finish()?;
        std::fs::remove_dir_all(&staged)?;
        Ok(base)
    }
}

/// What the base depends on besides the packages: the key of a cache.
pub fn recipe() -> String {
    format!("{}steps 2\n", contents::recipe())
}
