//! Kernel modules: those that are wanted and those they depend on, decompressed (the kernel would do it at each boot), with the
//! tables by which modprobe finds them. All but the copying is kmod's and xz's work.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// The version of the one kernel in a root folder.
///
/// # Errors
/// When there is none, or more than one.
pub fn kernel_version(root: &Path) -> io::Result<String> {
    let names = std::fs::read_dir(root.join("boot"))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let mut versions = names.iter().flatten().filter_map(|name| name.strip_prefix("vmlinuz-"));
    match (versions.next(), versions.next()) {
        (Some(version), None) => Ok(version.into()),
        _ => Err(io::Error::other(format!("not one kernel in {}", root.join("boot").display()))),
    }
}

/// Lays them out in `folder`, as /lib/modules is.
///
/// # Errors
/// When one is missing, or a tool is.
pub fn stage(root: &Path, version: &str, wanted: &[&str], folder: &Path) -> io::Result<()> {
    // The packages bring no tables, and nothing may be written into their folder: two may be at it.
    let all = folder.join("all");
    let library = all.join("lib/modules").join(version);
    std::fs::create_dir_all(&library)?;
    let modules = root.join("usr/lib/modules").join(version);
    std::os::unix::fs::symlink(modules.join("kernel"), library.join("kernel"))?;
    let kept = folder.join(version);
    std::fs::create_dir(&kept)?;
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        std::fs::copy(modules.join(list), library.join(list))?;
        std::fs::copy(modules.join(list), kept.join(list))?;
    }
    run(tool("depmod").arg("--basedir").arg(&all).arg(version))?;
    for module in wanted {
        let mut modprobe = tool("modprobe");
        modprobe.arg("--dirname").arg(&all).args(["--set-version", version, "--show-depends", module]);
        for line in run(&mut modprobe)?.lines() {
            let Some(path) = line.strip_prefix("insmod ").and_then(|rest| rest.split(' ').next()) else { continue };
            let within = Path::new(path).strip_prefix(&library).map_err(io::Error::other)?;
            let plain = kept.join(within).with_extension("");
            if !plain.exists() {
                std::fs::create_dir_all(plain.parent().unwrap_or(&kept))?;
                run(tool("xz").args(["--decompress", "--stdout"]).arg(path).stdout(File::create(&plain)?))?;
            }
        }
    }
    std::fs::remove_dir_all(&all)?;
    // depmod looks for lib/modules/VERSION below what it is given.
    let base = folder.join("base");
    std::fs::create_dir_all(base.join("lib"))?;
    std::os::unix::fs::symlink(folder, base.join("lib/modules"))?;
    run(tool("depmod").arg("--basedir").arg(&base).arg(version))?;
    std::fs::remove_dir_all(&base)
}

/// Debian keeps these where a regular user's PATH does not look.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?} failed ({}): {}", output.status, said.trim())))
}
