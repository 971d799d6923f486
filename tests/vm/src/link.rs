//! A cable between two guests.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::guest::Guest;

/// A cable. Each of its two ends belongs into one guest; what is sent while nobody is at the other end is lost.
#[derive(Clone)]
pub struct Link {
    folder: Arc<TempDir>,
}

/// One end of a cable, and the address it has there.
#[derive(Clone)]
pub(crate) struct LinkEnd {
    pub(crate) link: Link,
    pub(crate) end: u8,
    pub(crate) address: String,
}

impl LinkEnd {
    /// The hardware address of a guest's interface with this number.
    pub(crate) fn mac(&self, index: usize) -> String {
        format!("52:54:00:00:{:02x}:{:02x}", 0x10 + index, self.end)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A new one.
    ///
    /// # Panics
    /// When its folder cannot be made.
    pub fn new() -> Self {
        // A socket's path may not be longer than about a hundred bytes.
        let folder = tempfile::Builder::new().prefix("vm-link-").tempdir().expect("a folder for a link");
        Self { folder: Arc::new(folder) }
    }

    /// Whether this is the same cable.
    pub(crate) fn is(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.folder, &other.folder)
    }

    /// QEMU's option for one end.
    pub(crate) fn netdev(&self, id: &str, end: u8) -> String {
        let path = |end: u8| self.folder.path().join(end.to_string()).display().to_string();
        format!("dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}", path(end), path(1 - end))
    }
}

impl Guest {
    /// Pulls a cable out of this guest, or (`up`) puts it back. The other guest's end stays up.
    ///
    /// # Panics
    /// When this guest has no such cable.
    #[track_caller]
    pub fn set_link(&self, link: &Link, up: bool) {
        let index = self.builder.links.iter().position(|end| end.link.is(link)).expect("a cable of this guest");
        self.qmp("set_link", json!({"name": format!("link{index}"), "up": up}));
    }
}
