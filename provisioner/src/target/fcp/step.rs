//! What can be done about a standing: one write to one attribute, and what undoing it takes.

use std::path::PathBuf;
use std::time::Duration;

use protocol::spec::FcpSpec;

use super::standing::{Seen, Standing};
use super::undo::Set;
use crate::cio::device_dir;
use crate::sysfs::Roots;

/// How long a LUN is given to appear by itself before it is added. A LUN that was mapped after the port's last scan
/// never does: zFCP looks when it logs in.
const BY_ITSELF: Duration = Duration::from_secs(5);
/// How long the SCSI layer is given to show a LUN that was added before it is looked for.
const SHOWN: Duration = Duration::from_secs(1);
/// How long until a LUN is looked for again; doubled each time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long until a device that was busy is ordered again.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// An order to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To look at the device at all.
    Free,
    /// To answer when all that is known of the channels has been dealt with.
    Settle,
    /// To set the adapter online.
    SetOnline,
    /// To try the adapter's recovery again.
    RecoverAdapter,
    /// To ask the fabric for ports.
    RescanPorts,
    /// To try the port's recovery again.
    RecoverPort,
    /// To add the LUN.
    AddLun,
    /// To look for the LUN again.
    LookForLun,
}

/// What helps at `standing`, where the way has stood for `stood`.
pub(super) fn helps(standing: &Standing, seen: &Seen, stood: Duration) -> Option<Step> {
    let is_offline = seen.adapter.as_ref().is_some_and(|adapter| !adapter.online);
    match standing {
        Standing::Ignored => Some(Step::Free),
        Standing::Unknown => Some(Step::Settle),
        // The kernel then asks the device again what it is (device.c, `online_store_recog_and_online`).
        Standing::Boxed if is_offline => Some(Step::SetOnline),
        Standing::Offline => Some(Step::SetOnline),
        Standing::Failed => Some(Step::RecoverAdapter),
        Standing::NoPorts | Standing::NoPort => Some(Step::RescanPorts),
        Standing::PortFailed => Some(Step::RecoverPort),
        Standing::LunAbsent { added: false } if !seen.finds_luns() || stood >= BY_ITSELF => Some(Step::AddLun),
        Standing::LunAbsent { added: true } if stood >= SHOWN => Some(Step::LookForLun),
        _ => None,
    }
}

impl Step {
    /// The attribute and what is written to it. `None` only where a way without a LUN is asked for its LUN.
    pub(super) fn attribute(self, way: &FcpSpec, roots: &Roots) -> Option<(PathBuf, String)> {
        let adapter = way.adapter.as_str();
        let dir = device_dir(roots, adapter);
        let port = || way.wwpn.as_ref().map(|wwpn| dir.join(wwpn.as_str()));
        let lun = || way.lun.as_ref().map(|lun| lun.as_str());
        Some(match self {
            Step::Free => (roots.proc("cio_ignore"), format!("free {adapter}")),
            Step::Settle => (roots.proc("cio_settle"), "1".into()),
            Step::SetOnline => (dir.join("online"), "1".into()),
            Step::RecoverAdapter => (dir.join("failed"), "0".into()),
            Step::RescanPorts => (dir.join("port_rescan"), "1".into()),
            Step::RecoverPort => (port()?.join("failed"), "0".into()),
            Step::AddLun => (port()?.join("unit_add"), lun()?.into()),
            // zfcp_sysfs_unit_failed_store: without a SCSI device this scans for one. chzdev does it too.
            Step::LookForLun => (port()?.join(lun()?).join("failed"), "0".into()),
        })
    }

    /// What it sets that was not so before, for undo.
    pub(super) fn sets(self, way: &FcpSpec) -> Option<Set> {
        let adapter = way.adapter.to_string();
        match self {
            Step::Free => Some(Set::Freed { adapter }),
            Step::SetOnline => Some(Set::Online { adapter }),
            Step::AddLun => {
                Some(Set::Lun { adapter, wwpn: way.wwpn.as_ref()?.to_string(), lun: way.lun.as_ref()?.to_string() })
            }
            _ => None,
        }
    }

    /// What the kernel does then.
    pub(super) fn doing(self, way: &FcpSpec) -> String {
        let lun = way.lun.as_ref().map_or("", |lun| lun.as_str());
        match self {
            Step::Free => "freeing it".into(),
            Step::Settle => "looking for it".into(),
            Step::SetOnline => "setting it online".into(),
            Step::RecoverAdapter | Step::RecoverPort => "recovering it".into(),
            Step::RescanPorts => "looking for ports".into(),
            Step::AddLun => format!("adding LUN {lun}"),
            Step::LookForLun => format!("looking for LUN {lun}"),
        }
    }

    /// Whether nothing can come of a way where this is refused.
    pub(super) fn is_needed(self) -> bool {
        matches!(self, Step::Free | Step::Settle | Step::SetOnline | Step::AddLun)
    }

    /// When it may be done again, after it was done `times`. A port scan is not: it burdens the fabric's name server,
    /// for which the kernel limits its own (zfcp.port_scan_ratelimit).
    pub(super) fn again(self, times: u32) -> Option<Duration> {
        (self == Step::LookForLun).then(|| LOOK_AGAIN * 2_u32.saturating_pow(times.saturating_sub(1)))
    }
}
