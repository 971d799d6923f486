//! One attribute below `/sys/firmware`: what it is to say, and whether it does.

use std::path::PathBuf;

use imgstream::error::{Error, IoContext, Result};

use crate::sysfs::Roots;

/// What an attribute is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    attribute: &'static str,
    wanted: String,
    /// What is written for it.
    written: String,
    required: bool,
}

impl Order {
    /// Must be there, and say this.
    pub(super) fn must(attribute: &'static str, wanted: &str) -> Self {
        Order { attribute, wanted: wanted.to_owned(), written: wanted.to_owned(), required: true }
    }

    /// Must say this where it is there.
    pub(super) fn may(attribute: &'static str, wanted: &str) -> Self {
        Order { required: false, ..Self::must(attribute, wanted) }
    }

    /// Must say nothing where it is there. Writing nothing would not reach the kernel (fs/sysfs/file.c, `sysfs_kf_write`): an
    /// empty line does, and means the same.
    pub(super) fn blank(attribute: &'static str) -> Self {
        Order { written: "\n".to_owned(), ..Self::may(attribute, "") }
    }

    /// As [`Order::blank`], of bytes: the kernel pads what is written with zeros, and ignores zeros at the end
    /// (arch/s390/kernel/ipl.c, `reipl_fcp_scpdata_write`; arch/s390/boot/ipl_parm.c, `scpdata_length`).
    pub(super) fn no_bytes(attribute: &'static str) -> Self {
        Order { written: "\0".to_owned(), ..Self::may(attribute, "") }
    }

    /// Writes it, where it does not say so already.
    pub(super) fn give(&self, roots: &Roots) -> Result<()> {
        let path = self.path(roots);
        let Some(found) = self.found(roots) else {
            if !self.required {
                return Ok(());
            }
            let message = format!("there is no {}, where {:?} is wanted", path.display(), self.wanted);
            return Err(Error::target(message).with_hint(
                "the running kernel is too old to be told so: boot the agent with a current one, or start the server at the HMC",
            ));
        };
        if found == self.wanted {
            return Ok(());
        }
        let writing = || format!("writing {:?} to {}, which says {found:?}", self.wanted, path.display());
        roots.write(&path, &self.written).device(writing).map_err(|error| {
            error.with_hint(
                "run as root, in a container with the machine's sysfs writable; or start the server at the HMC",
            )
        })
    }

    /// Whether it says so.
    pub(super) fn check(&self, roots: &Roots) -> Result<()> {
        let found = self.found(roots);
        if found.as_ref().map_or(!self.required, |found| *found == self.wanted) {
            return Ok(());
        }
        let (path, found) = (self.path(roots), found.unwrap_or_default());
        let message = format!("{} says {found:?} after {:?} was written", path.display(), self.wanted);
        Err(Error::device(message)
            .with_hint("the next re-IPL is not set: start the server at the HMC, or see who else sets it"))
    }

    fn path(&self, roots: &Roots) -> PathBuf {
        roots.sys("firmware").join(self.attribute)
    }

    /// What it says, without white space and zeros around it; `None` where it is not there, or cannot be read.
    fn found(&self, roots: &Roots) -> Option<String> {
        let bytes = std::fs::read(self.path(roots)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_ascii_lowercase())
    }
}
