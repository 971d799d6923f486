//! FCP channels ("adapters"), their ports and LUNs, as sysfs shows them. Nothing here writes.
//!
//! Sources: drivers/s390/cio/device.c (`online`, `availability`, `cutype`), drivers/s390/scsi/zfcp_sysfs.c (everything
//! called `failed`, `in_recovery`, `access_denied`; `hba_id`, `wwpn`, `fcp_lun`), drivers/scsi/scsi_transport_fc.c
//! (`port_state`, `port_type`), and where chzdev of s390-tools looks (zdev/src/zfcp_host.c, zfcp_lun.c).

use std::path::Path;

use protocol::BusId;

use crate::cio::device_dir;
use crate::sysfs::{self, Roots};

/// Control unit type and model of an FCP channel (zfcp_ccw.c, `zfcp_ccw_device_id`).
pub(super) const FCP: &str = "1731/03";
/// What `port_type` says of a port that NPIV made.
const NPIV: &str = "NPIV VPORT";

/// What zFCP says of an adapter, a port or a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Recovery was tried and gave up.
    pub failed: bool,
    /// Recovery is under way.
    pub in_recovery: bool,
    /// Access was denied. Today's kernels say it of LUNs alone: another LPAR has it for itself.
    pub access_denied: bool,
}

/// One FCP channel of this LPAR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its bus id, such as `0.0.1900`.
    pub bus_id: String,
    /// Type and model of the control unit: `1731/03`; `0000/00` where the kernel could not ask.
    pub control_unit: String,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Whether it was set online.
    pub online: bool,
    /// `good`, `boxed`, `no path` or `no device`.
    pub availability: String,
    /// How zFCP finds it.
    pub health: Health,
    /// Its SCSI host, once it has been online.
    pub host: Option<FcHost>,
    /// The ports it has found, or was told of.
    pub ports: Vec<Port>,
    /// The SCSI devices behind it.
    pub devices: Vec<ScsiDevice>,
}

/// The adapter as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FcHost {
    /// The number of the SCSI host and of the `fc_host`.
    pub number: u32,
    /// Its WWPN: what zoning and LUN masking must know.
    pub port_name: String,
    /// `Online`, `Linkdown`, `Error` or `Unknown`.
    pub port_state: String,
    /// `NPIV VPORT`, `NPort (fabric via point-to-point)`, …
    pub port_type: String,
    /// Its speed in words, such as `32 Gbit`.
    pub speed: String,
}

/// A storage port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its WWPN.
    pub wwpn: String,
    /// How zFCP finds it.
    pub health: Health,
    /// What the FC transport says of it; nothing before the first login.
    pub state: Option<String>,
    /// The LUNs that somebody has added to it. LUNs that are found automatically are not among them.
    pub units: Vec<Unit>,
}

/// A LUN that was added by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its number, as zFCP writes it.
    pub lun: String,
    /// How zFCP finds it. It calls a unit without a SCSI device failed.
    pub health: Health,
}

/// A SCSI device behind an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiDevice {
    /// SCSI host, channel, target and LUN.
    pub address: String,
    /// The port it is reached by.
    pub wwpn: String,
    /// Its number, as zFCP writes it.
    pub lun: String,
    /// `running`, `blocked`, `offline`, …
    pub state: String,
    /// The SCSI peripheral type: `0` is a disk.
    pub kind: String,
    /// How zFCP finds it.
    pub health: Health,
    /// Its block device, such as `sda`.
    pub disk: Option<String>,
}

impl Adapter {
    /// Every adapter of this machine, online or not, in the order of their bus ids.
    pub(super) fn all(roots: &Roots) -> Vec<Adapter> {
        let is_bus_id = |name: &String| BusId::try_from(name.clone()).is_ok();
        let known = sysfs::names(&roots.sys("bus/ccw/devices")).into_iter().filter(is_bus_id);
        let adapters = known.filter_map(|bus_id| Adapter::read(roots, &bus_id));
        // A boxed one could not say what it is, but zFCP may have had it before.
        adapters.filter(|adapter| adapter.control_unit == FCP || adapter.driver.as_deref() == Some("zfcp")).collect()
    }

    /// The device `bus_id`, be it an adapter or not; `None` where the kernel does not know it.
    pub(super) fn read(roots: &Roots, bus_id: &str) -> Option<Adapter> {
        let dir = device_dir(roots, bus_id);
        if !dir.is_dir() {
            return None;
        }
        let names = sysfs::names(&dir);
        let number = names.iter().find_map(|name| name.strip_prefix("host")?.parse().ok());
        let wwpns = names.iter().filter(|name| is_long_hex(name));
        Some(Adapter {
            bus_id: bus_id.to_owned(),
            control_unit: text(&dir, "cutype"),
            driver: sysfs::link_name(&dir.join("driver")),
            online: sysfs::is_set(&dir.join("online")),
            availability: text(&dir, "availability"),
            health: Health::read(&dir, ""),
            host: number.map(|number| FcHost::read(roots, number)),
            ports: wwpns.map(|wwpn| Port::read(roots, &dir, wwpn, number)).collect(),
            devices: number.map(|number| ScsiDevice::behind(roots, bus_id, number)).unwrap_or_default(),
        })
    }

    /// The port `wwpn`.
    pub fn port(&self, wwpn: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.wwpn == wwpn)
    }

    /// The SCSI device behind LUN `lun` of the port `wwpn`.
    pub fn device(&self, wwpn: &str, lun: &str) -> Option<&ScsiDevice> {
        self.devices.iter().find(|device| device.wwpn == wwpn && device.lun == lun)
    }

    /// Whether it has a port of its own in the fabric, so that zFCP may look for LUNs by itself.
    pub fn is_npiv(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.port_type == NPIV)
    }
}

impl Port {
    /// Whether this LPAR is logged in there. `Marginal` is a port that multipathd trusts less; it works.
    pub fn is_online(&self) -> bool {
        self.state.as_deref().is_some_and(|state| matches!(state, "Online" | "Marginal"))
    }

    /// The unit `lun`.
    pub fn unit(&self, lun: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.lun == lun)
    }

    fn read(roots: &Roots, adapter: &Path, wwpn: &str, host: Option<u32>) -> Port {
        let dir = adapter.join(wwpn);
        let units = sysfs::names(&dir).into_iter().filter(|name| is_long_hex(name));
        let units = units.map(|lun| Unit { health: Health::read(&dir.join(&lun), ""), lun }).collect();
        let state = host.and_then(|host| remote_port_state(roots, host, wwpn));
        Port { wwpn: wwpn.to_owned(), health: Health::read(&dir, ""), state, units }
    }
}

impl FcHost {
    fn read(roots: &Roots, number: u32) -> FcHost {
        let dir = roots.sys(&format!("class/fc_host/host{number}"));
        FcHost {
            number,
            port_name: text(&dir, "port_name"),
            port_state: text(&dir, "port_state"),
            port_type: text(&dir, "port_type"),
            speed: text(&dir, "speed"),
        }
    }
}

impl ScsiDevice {
    fn behind(roots: &Roots, bus_id: &str, host: u32) -> Vec<ScsiDevice> {
        let dir = roots.sys("bus/scsi/devices");
        let on_host = format!("{host}:");
        let addresses = sysfs::names(&dir).into_iter().filter(|name| name.starts_with(&on_host));
        let read = |address: String| {
            let dir = dir.join(&address);
            (text(&dir, "hba_id") == bus_id).then(|| ScsiDevice {
                wwpn: text(&dir, "wwpn"),
                lun: text(&dir, "fcp_lun"),
                state: text(&dir, "state"),
                kind: text(&dir, "type"),
                health: Health::read(&dir, "zfcp_"),
                disk: sysfs::names(&dir.join("block")).into_iter().next(),
                address,
            })
        };
        addresses.filter_map(read).collect()
    }
}

impl Health {
    fn read(dir: &Path, prefix: &str) -> Health {
        let is_set = |name: &str| sysfs::is_set(&dir.join(format!("{prefix}{name}")));
        Health { failed: is_set("failed"), in_recovery: is_set("in_recovery"), access_denied: is_set("access_denied") }
    }
}

/// Whether zFCP looks for LUNs by itself behind NPIV ports.
pub(super) fn scans_luns(roots: &Roots) -> bool {
    sysfs::read(&roots.sys("module/zfcp/parameters/allow_lun_scan")).is_some_and(|allowed| allowed == "Y")
}

/// The way to the SCSI disk `sd_name`: adapter, WWPN and LUN, or else its SCSI address, or else its name.
pub(super) fn way_of(roots: &Roots, sd_name: &str) -> String {
    let device = roots.sys("block").join(sd_name).join("device");
    let part = |name: &str| sysfs::read(&device.join(name));
    if let (Some(adapter), Some(wwpn), Some(lun)) = (part("hba_id"), part("wwpn"), part("fcp_lun")) {
        return format!("{adapter} {wwpn} {lun}");
    }
    let address = sysfs::link_name(&device).filter(|name| name.split(':').count() == 4);
    address.unwrap_or_else(|| sd_name.to_owned())
}

fn remote_port_state(roots: &Roots, host: u32, wwpn: &str) -> Option<String> {
    let dir = roots.sys("class/fc_remote_ports");
    let on_host = format!("rport-{host}:");
    let ports = sysfs::names(&dir).into_iter().filter(|name| name.starts_with(&on_host)).map(|name| dir.join(name));
    let port = ports.into_iter().find(|port| text(port, "port_name") == wwpn)?;
    sysfs::read(&port.join("port_state"))
}

fn text(dir: &Path, name: &str) -> String {
    sysfs::read(&dir.join(name)).unwrap_or_default()
}

/// Whether it is a WWPN or a LUN as zFCP names directories after: `0x%016llx`.
fn is_long_hex(name: &str) -> bool {
    name.len() == 18 && name.starts_with("0x")
}
