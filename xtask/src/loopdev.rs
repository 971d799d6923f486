//! Loop devices that are detached on every way out.

use std::ffi::OsStr;
use std::path::Path;

use crate::fail::{Fail, Outcome};
use crate::shell::{capture, tool, undo};

/// An attached loop device.
pub struct Loop {
    /// `/dev/loopN`
    pub device: String,
}

impl Loop {
    /// Attaches a file; `options` are losetup's own.
    pub fn attach(file: &Path, options: &[&str]) -> Outcome<Self> {
        let mut losetup = tool("losetup");
        losetup.args(["--find", "--show"]).args(options).arg(file);
        let device = capture(&mut losetup)?.trim().to_string();
        if device.is_empty() {
            return Err(Fail::new(format!("`{}` named no device", crate::shell::line(&losetup))));
        }
        Ok(Self { device })
    }
}

impl AsRef<OsStr> for Loop {
    fn as_ref(&self) -> &OsStr {
        self.device.as_ref()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        undo(tool("losetup").arg("--detach").arg(&self.device));
    }
}

/// Only root may attach loop devices; says so before anything else is done.
pub fn demand_root(command: &str) -> Outcome<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Fail::usage(format!(
        "this attaches a loop device, which only root may do; run: sudo env \"PATH=$PATH\" {command}"
    )))
}
