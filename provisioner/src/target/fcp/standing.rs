//! How far a way has come, and what it stands still at: a pure function of what sysfs shows.

use protocol::spec::FcpSpec;

use super::adapter::{Adapter, FCP, Health, Port, ScsiDevice};

/// What there is to see of a way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whether this machine has channels at all.
    pub(super) channels: bool,
    /// Whether the kernel was told to ignore the adapter.
    pub(super) ignored: bool,
    /// Whether zFCP may look for LUNs by itself.
    pub(super) scans_luns: bool,
    /// The adapter, where the kernel knows it.
    pub(super) adapter: Option<Adapter>,
}

impl Seen {
    /// Whether LUNs appear without being added (zfcp_scsi.c, `slave_alloc`: `allow_lun_scan && npiv`).
    pub(super) fn finds_luns(&self) -> bool {
        self.scans_luns && self.adapter.as_ref().is_some_and(Adapter::is_npiv)
    }
}

/// Where a way stands, from the machine down to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// This machine has no channels.
    NoChannels,
    /// The kernel ignores the adapter.
    Ignored,
    /// There is no such device.
    Unknown,
    /// It is something else than an FCP channel: this type.
    Foreign(String),
    /// It does not answer.
    Boxed,
    /// Its channel path is offline.
    NoPath,
    /// It went away.
    NoDevice,
    /// zFCP does not drive it; another driver may.
    NoDriver(Option<String>),
    /// It is not online.
    Offline,
    /// It is being recovered.
    Recovering,
    /// It is not registered with SCSI.
    NoHost,
    /// There is no light.
    LinkDown,
    /// Its recovery was given up.
    Failed,
    /// Its `fc_host` is in this state.
    HostIs(String),
    /// It sees no storage port.
    NoPorts,
    /// It is logged in at none of this many storage ports.
    NoLogin(usize),
    /// LUNs would have to be added, and none is named. Why they do not appear by themselves.
    NothingAppears(String),
    /// It does not see the port.
    NoPort,
    /// The port denies access.
    PortDenied,
    /// The port's recovery was given up.
    PortFailed,
    /// The port is being recovered.
    PortRecovering,
    /// This LPAR is not logged in at the port, which is in this state.
    NotLoggedIn(Option<String>),
    /// There is no SCSI device, since nobody has added the LUN or the port does not have it for us.
    LunAbsent {
        /// Whether somebody has added it.
        added: bool,
    },
    /// Somebody else has the LUN.
    LunDenied,
    /// The LUN's recovery was given up.
    LunFailed,
    /// The LUN is being recovered.
    LunRecovering,
    /// The LUN is open and has no SCSI device.
    NoScsiDevice,
    /// Its SCSI device is in this state.
    NotRunning {
        /// The SCSI device.
        address: String,
        /// Its state.
        state: String,
    },
    /// Its SCSI device has no block device.
    NoDisk {
        /// The SCSI device.
        address: String,
        /// Its peripheral type.
        kind: String,
    },
    /// It can be used.
    Up,
}

/// Where `way` stands.
pub(super) fn standing(way: &FcpSpec, seen: &Seen) -> Standing {
    match &seen.adapter {
        None if !seen.channels => Standing::NoChannels,
        None if seen.ignored => Standing::Ignored,
        None => Standing::Unknown,
        Some(adapter) => channel(adapter).unwrap_or_else(|| match (&way.wwpn, &way.lun) {
            (Some(wwpn), Some(lun)) => named(adapter, wwpn.as_str(), lun.as_str()),
            _ => any(adapter, seen),
        }),
    }
}

/// What the channel stands still at; `None` where it is ready.
fn channel(adapter: &Adapter) -> Option<Standing> {
    let host = adapter.host.as_ref();
    let host_state = host.map_or("", |host| host.port_state.as_str());
    Some(match adapter.availability.as_str() {
        "boxed" => Standing::Boxed,
        "no path" => Standing::NoPath,
        "no device" => Standing::NoDevice,
        _ if adapter.control_unit != FCP => Standing::Foreign(adapter.control_unit.clone()),
        _ if adapter.driver.as_deref() != Some("zfcp") => Standing::NoDriver(adapter.driver.clone()),
        _ if !adapter.online => Standing::Offline,
        _ if adapter.health.in_recovery => Standing::Recovering,
        _ if host.is_none() => Standing::NoHost,
        // Before `failed`, which it brings about: recovery is tried again by itself when there is light.
        _ if host_state == "Linkdown" => Standing::LinkDown,
        _ if adapter.health.failed => Standing::Failed,
        _ if host_state != "Online" => Standing::HostIs(host_state.to_owned()),
        _ => return None,
    })
}

/// A way that names no LUN: which one has to appear is not known here.
fn any(adapter: &Adapter, seen: &Seen) -> Standing {
    match &adapter.host {
        _ if adapter.ports.is_empty() => Standing::NoPorts,
        _ if !adapter.ports.iter().any(Port::is_online) => Standing::NoLogin(adapter.ports.len()),
        Some(host) if adapter.devices.is_empty() && !seen.finds_luns() => {
            let npiv = adapter.is_npiv();
            Standing::NothingAppears(if npiv { "zfcp.allow_lun_scan is off".into() } else { host.port_type.clone() })
        }
        _ => Standing::Up,
    }
}

/// A way that names a LUN.
fn named(adapter: &Adapter, wwpn: &str, lun: &str) -> Standing {
    let Some(port) = adapter.port(wwpn) else { return Standing::NoPort };
    match port.health {
        Health { access_denied: true, .. } => return Standing::PortDenied,
        Health { in_recovery: true, .. } => return Standing::PortRecovering,
        Health { failed: true, .. } => return Standing::PortFailed,
        _ if !port.is_online() => return Standing::NotLoggedIn(port.state.clone()),
        _ => {}
    }
    match (adapter.device(wwpn, lun), port.unit(lun)) {
        (Some(device), _) => disk(device),
        (None, None) => Standing::LunAbsent { added: false },
        (None, Some(unit)) => match unit.health {
            Health { access_denied: true, .. } => Standing::LunDenied,
            Health { in_recovery: true, .. } => Standing::LunRecovering,
            // zfcp_sysfs_unit_failed_show: a unit that has no SCSI device is called failed.
            Health { failed: true, .. } => Standing::LunAbsent { added: true },
            _ => Standing::NoScsiDevice,
        },
    }
}

fn disk(device: &ScsiDevice) -> Standing {
    let address = device.address.clone();
    match device.health {
        Health { access_denied: true, .. } => Standing::LunDenied,
        Health { in_recovery: true, .. } => Standing::LunRecovering,
        Health { failed: true, .. } => Standing::LunFailed,
        _ if device.state != "running" => Standing::NotRunning { address, state: device.state.clone() },
        _ if device.disk.is_none() => Standing::NoDisk { address, kind: device.kind.clone() },
        _ => Standing::Up,
    }
}
