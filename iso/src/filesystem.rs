//! The file system in memory: programs, libraries, modules and the agent in one compressed archive with a checksum, the seal after it,
//! and the slot. The same inputs give the same bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use initramfs::{Archive, closure, modules};
use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use crate::{SEAL, contents, slot};

/// Compression level: on this archive 19 takes ten times as long and saves a tenth.
const LEVEL: i32 = 15;

/// What a medium is made from.
#[derive(Debug)]
pub struct Filesystem<'a> {
    /// The root folder of the unpacked packages.
    pub packages: &'a Path,
    /// The agent's program for s390x.
    pub agent: &'a Path,
    /// multipathd's configuration.
    pub multipath_conf: &'a str,
    /// What the seal says: which medium this is.
    pub seal: &'a str,
}

/// A file system that was made.
#[derive(Debug)]
pub struct Made {
    /// The bytes that are handed to a kernel, slot included.
    pub bytes: Vec<u8>,
    /// The files that are taken from packages, as paths below their root folder.
    pub taken: Vec<String>,
    /// The kernel.
    pub kernel: PathBuf,
}

impl Filesystem<'_> {
    /// Makes it; `folder` is for what is written on the way.
    ///
    /// # Errors
    /// When a program, a library or a module is missing, or a tool is.
    pub fn make(&self, folder: &Path) -> io::Result<Made> {
        let version = modules::kernel_version(self.packages)?;
        let staged = folder.join("modules");
        modules::stage(self.packages, &version, contents::MODULES, &staged)?;
        let files = closure::of(self.packages, contents::wanted(self.packages)?)?;

        let plain = folder.join("archive");
        self.archive(&files, &staged, &plain)?;
        let mut bytes = compressed(&std::fs::read(&plain)?)?;
        // The kernel passes over zeros between archives; the next one must begin at a multiple of four.
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(self.seal(&folder.join("seal"))?);
        bytes.resize(bytes.len() + slot::SIZE, 0);

        let mut taken: Vec<String> =
            files.into_values().filter_map(|path| closure::below(self.packages, &path)).collect();
        taken.push(format!("boot/vmlinuz-{version}"));
        taken.push(format!("usr/lib/modules/{version}/modules.builtin"));
        std::fs::remove_dir_all(&staged)?;
        let kernel = self.packages.join("boot").join(format!("vmlinuz-{version}"));
        Ok(Made { bytes, taken, kernel })
    }

    fn archive(&self, files: &BTreeMap<String, PathBuf>, modules: &Path, to: &Path) -> io::Result<()> {
        let mut archive = Archive::create(to)?;
        // First of all the one that can say what is wrong with the rest.
        archive.file("usr/bin/z-provisioner", 0o755, &std::fs::read(self.agent)?)?;
        archive.link("init", "usr/bin/z-provisioner")?;
        contents::FOLDERS.iter().try_for_each(|path| archive.folder(path))?;
        contents::LINKS.iter().try_for_each(|(path, target)| archive.link(path, target))?;
        contents::TEXTS.iter().try_for_each(|(path, text)| archive.file(path, 0o644, text.as_bytes()))?;
        archive.file("etc/multipath.conf", 0o644, self.multipath_conf.as_bytes())?;
        for (path, source) in files {
            archive.copy(path, source)?;
        }
        archive.tree(modules, "usr/lib/modules")?;
        archive.finish()
    }

    /// Not compressed: the kernel unpacks it only when it has unpacked all before it and found its checksum right.
    fn seal(&self, to: &Path) -> io::Result<Vec<u8>> {
        let mut archive = Archive::create(to)?;
        archive.file(SEAL, 0o644, self.seal.as_bytes())?;
        archive.finish()?;
        std::fs::read(to)
    }
}

/// One frame with a checksum, which the kernel compares.
fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let broken = |code| io::Error::other(format!("compressing: {}", get_error_name(code)));
    let mut context = CCtx::create();
    for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ChecksumFlag(true)] {
        context.set_parameter(parameter).map_err(broken)?;
    }
    let mut frame = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).map_err(broken)?;
    Ok(frame)
}
