//! FCP channels of the simulated machine: what they have behind them, and how zFCP shows it.

use std::time::Duration;

use nix::errno::Errno;

use crate::kernel::State;

/// From when on something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    After(u64),
    Never,
}

/// A channel as the machine has it.
#[derive(Clone, Debug)]
pub struct Channel {
    pub bus_id: &'static str,
    pub control_unit: &'static str,
    pub driver: Option<&'static str>,
    pub availability: &'static str,
    pub npiv: bool,
    pub link: bool,
    pub recovers: bool,
    pub storage: Vec<Storage>,
}

/// A storage port.
#[derive(Clone, Debug)]
pub struct Storage {
    pub wwpn: &'static str,
    pub zoned: When,
    pub lets_in: bool,
    pub luns: Vec<(&'static str, When)>,
}

const RECOVERY: Duration = Duration::from_millis(300);
const LOGIN: Duration = Duration::from_millis(200);
const SCAN: Duration = Duration::from_millis(150);
const PROBE: Duration = Duration::from_millis(100);
/// How long a port may be away before its SCSI devices are taken down.
const DEV_LOSS: Duration = Duration::from_secs(60);

const UNIT: &[(&str, &str)] = &[
    ("access_denied", "0"),
    ("access_readonly", "0"),
    ("access_shared", "0"),
    ("failed", "1"),
    ("in_recovery", "0"),
    ("status", "0x00000000"),
];

impl When {
    fn is_now(self, state: &State) -> bool {
        match self {
            When::Always => true,
            When::After(seconds) => state.start.elapsed() >= Duration::from_secs(seconds),
            When::Never => false,
        }
    }
}

impl State {
    fn ccw(&self, number: usize) -> String {
        format!("sys/devices/css0/0.0.{number:04x}/{}", self.channels[number].bus_id)
    }

    fn host(&self, number: usize) -> String {
        format!("{}/host{number}", self.ccw(number))
    }

    /// Where a port's remote port is, by the port's place.
    fn rport(&self, number: usize, wwpn: &str) -> (String, String) {
        let place = self.channels[number].storage.iter().position(|port| port.wwpn == wwpn).unwrap();
        let name = format!("rport-{number}:0-{place}");
        (format!("{}/{name}", self.host(number)), name)
    }

    pub fn register(&mut self, number: usize) {
        let (channel, dir) = (self.channels[number].clone(), self.ccw(number));
        if self.tree.exists(&dir) {
            return;
        }
        let attributes = [
            ("availability", channel.availability),
            ("cmb_enable", "0"),
            ("cutype", channel.control_unit),
            ("devtype", "1732/03"),
            ("modalias", "ccw:t1731m03dt1732dm03"),
            ("online", "0"),
        ];
        self.tree.attributes(&dir, &attributes);
        self.tree.link(&format!("sys/bus/ccw/devices/{}", channel.bus_id), &dir);
        if let Some(driver) = channel.driver {
            self.tree.dir(&format!("sys/bus/ccw/drivers/{driver}"));
            self.tree.link(&format!("sys/bus/ccw/drivers/{driver}/{}", channel.bus_id), &dir);
            self.tree.link(&format!("{dir}/driver"), &format!("sys/bus/ccw/drivers/{driver}"));
        }
    }

    pub fn unregister(&mut self, number: usize) {
        let channel = self.channels[number].clone();
        self.tree.remove(&format!("sys/bus/ccw/devices/{}", channel.bus_id));
        self.tree.remove(&format!("sys/bus/ccw/drivers/{}/{}", channel.driver.unwrap_or("none"), channel.bus_id));
        self.tree.remove(&format!("sys/class/fc_host/host{number}"));
        self.tree.remove(&format!("sys/bus/scsi/devices/host{number}"));
        for port in &channel.storage {
            self.tree.remove(&format!("sys/class/fc_remote_ports/{}", self.rport(number, port.wwpn).1));
        }
        self.tree.remove(&format!("sys/devices/css0/0.0.{number:04x}"));
    }

    pub fn set_online(&mut self, number: usize) -> Result<(), Errno> {
        let online = format!("{}/online", self.ccw(number));
        let availability = format!("{}/availability", self.ccw(number));
        if self.tree.read(&availability) == "boxed" {
            // It is asked again what it is (online_store_recog_and_online).
            if self.channels[number].availability == "boxed" {
                return Err(Errno::EAGAIN);
            }
            self.tree.set(&availability, self.channels[number].availability);
        }
        if self.tree.read(&online) == "1" || self.channels[number].driver != Some("zfcp") {
            return Err(Errno::EINVAL);
        }
        self.tree.set(&online, "1");
        self.make_host(number);
        self.recover(number);
        Ok(())
    }

    fn make_host(&mut self, number: usize) {
        let (ccw, host) = (self.ccw(number), self.host(number));
        let adapter =
            [("failed", "0"), ("in_recovery", "0"), ("port_remove", ""), ("port_rescan", ""), ("status", "0x5400000a")];
        if self.tree.exists(&host) {
            return;
        }
        self.tree.attributes(&ccw, &adapter);
        let port_type = if self.channels[number].npiv { "NPIV VPORT" } else { "NPort (fabric via point-to-point)" };
        let name = format!("0xc05076ffe500{}", &self.channels[number].bus_id[4..]);
        let attributes =
            [("port_name", name.as_str()), ("port_state", "Unknown"), ("port_type", port_type), ("speed", "unknown")];
        let fc_host = format!("{host}/fc_host/host{number}");
        self.tree.attributes(&fc_host, &attributes);
        self.tree.link(&format!("sys/class/fc_host/host{number}"), &fc_host);
        self.tree.link(&format!("sys/bus/scsi/devices/host{number}"), &host);
    }

    /// Opens the adapter, and looks for ports.
    pub fn recover(&mut self, number: usize) {
        let (ccw, channel) = (self.ccw(number), self.channels[number].clone());
        let fc_host = format!("{}/fc_host/host{number}", self.host(number));
        self.tree.set(&format!("{ccw}/in_recovery"), "1");
        self.tree.set(&format!("{ccw}/failed"), "0");
        self.after(RECOVERY, move |state| {
            if state.tree.read(&format!("{ccw}/online")) != "1" {
                return;
            }
            let (port_state, failed) = match channel.link {
                false => ("Linkdown", "1"),
                true if !channel.recovers => ("Error", "1"),
                true => ("Online", "0"),
            };
            state.tree.set(&format!("{fc_host}/port_state"), port_state);
            state.tree.set(&format!("{fc_host}/speed"), if channel.link { "32 Gbit" } else { "unknown" });
            state.tree.set(&format!("{ccw}/failed"), failed);
            state.tree.set(&format!("{ccw}/in_recovery"), "0");
            state.scan_ports(number);
            for port in channel.storage {
                if let When::After(seconds) = port.zoned {
                    // The fabric tells of a change, and zFCP looks again.
                    let later = Duration::from_secs(seconds).saturating_sub(state.start.elapsed());
                    state.after(later, move |state| state.scan_ports(number));
                }
            }
        });
    }

    pub fn scan_ports(&mut self, number: usize) {
        let (ccw, channel) = (self.ccw(number), self.channels[number].clone());
        let is_open = self.tree.read(&format!("{}/fc_host/host{number}/port_state", self.host(number))) == "Online";
        for port in channel.storage {
            let dir = format!("{ccw}/{}", port.wwpn);
            if !is_open || !port.zoned.is_now(self) {
                continue;
            }
            if !self.tree.exists(&dir) {
                let attributes = [
                    ("access_denied", "0"),
                    ("failed", "0"),
                    ("in_recovery", "0"),
                    ("status", "0x54000001"),
                    ("unit_add", ""),
                    ("unit_remove", ""),
                ];
                self.tree.attributes(&dir, &attributes);
            }
            self.log_in(number, port.wwpn);
        }
    }

    pub fn log_in(&mut self, number: usize, wwpn: &str) {
        let dir = format!("{}/{wwpn}", self.ccw(number));
        let lets_in = self.channels[number].storage.iter().any(|port| port.wwpn == wwpn && port.lets_in);
        self.tree.set(&format!("{dir}/in_recovery"), "1");
        let wwpn = wwpn.to_owned();
        self.after(LOGIN, move |state| {
            state.tree.set(&format!("{dir}/failed"), if lets_in { "0" } else { "1" });
            state.tree.set(&format!("{dir}/in_recovery"), "0");
            if lets_in {
                state.logged_in(number, &wwpn);
            }
        });
    }

    /// The remote port is online: LUNs are looked for, those that were added and, with NPIV, all.
    fn logged_in(&mut self, number: usize, wwpn: &str) {
        let (rport, name) = self.rport(number, wwpn);
        let class = format!("{rport}/fc_remote_ports/{name}");
        if !self.tree.exists(&class) {
            self.tree.attributes(&class, &[("port_name", wwpn), ("roles", "FCP Target")]);
            self.tree.link(&format!("sys/class/fc_remote_ports/{name}"), &class);
        }
        self.tree.set(&format!("{class}/port_state"), "Online");
        let luns = self.storage(number, wwpn).luns;
        luns.iter().for_each(|(lun, _)| self.scan_lun(number, wwpn, lun));
    }

    fn storage(&self, number: usize, wwpn: &str) -> Storage {
        self.channels[number].storage.iter().find(|port| port.wwpn == wwpn).unwrap().clone()
    }

    pub fn add_unit(&mut self, number: usize, wwpn: &str, lun: &str) -> Result<(), Errno> {
        let unit = format!("{}/{wwpn}/{lun}", self.ccw(number));
        if lun.len() != 18 {
            return Err(Errno::EINVAL);
        }
        if self.tree.exists(&unit) {
            return Err(Errno::EEXIST);
        }
        self.tree.attributes(&unit, UNIT);
        self.scan_lun(number, wwpn, lun);
        Ok(())
    }

    pub fn remove_unit(&mut self, number: usize, wwpn: &str, lun: &str) -> Result<(), Errno> {
        let unit = format!("{}/{wwpn}/{lun}", self.ccw(number));
        if !self.tree.exists(&unit) {
            return Err(Errno::EINVAL);
        }
        if let Some(address) = self.device_of(number, wwpn, lun) {
            self.delete_device(&address);
        }
        self.tree.remove(&unit);
        Ok(())
    }

    /// A SCSI device comes where the storage has the LUN for us now, and somebody wants it.
    pub fn scan_lun(&mut self, number: usize, wwpn: &str, lun: &str) {
        let unit = format!("{}/{wwpn}/{lun}", self.ccw(number));
        let scans = self.channels[number].npiv && self.tree.read("sys/module/zfcp/parameters/allow_lun_scan") == "Y";
        let port = self.storage(number, wwpn);
        let has_lun = port.luns.iter().any(|(known, mapped)| *known == lun && mapped.is_now(self));
        let (rport, name) = self.rport(number, wwpn);
        let is_online = self.tree.read(&format!("{rport}/fc_remote_ports/{name}/port_state")) == "Online";
        if has_lun && is_online && (scans || self.tree.exists(&unit)) {
            let (wwpn, lun) = (wwpn.to_owned(), lun.to_owned());
            self.after(SCAN, move |state| state.make_device(number, &wwpn, &lun));
        }
    }

    fn make_device(&mut self, number: usize, wwpn: &str, lun: &str) {
        let unit = format!("{}/{wwpn}/{lun}", self.ccw(number));
        if self.device_of(number, wwpn, lun).is_some() {
            return;
        }
        let (rport, name) = self.rport(number, wwpn);
        let target = name.rsplit('-').next().unwrap().to_owned();
        let value = u64::from_str_radix(&lun[2..], 16).unwrap().to_be_bytes();
        // scsilun_to_int: pairs of bytes, the first the least.
        let pairs = value
            .chunks(2)
            .enumerate()
            .map(|(place, pair)| (u64::from(pair[0]) << 8 | u64::from(pair[1])) << (16 * place));
        let address = format!("{number}:0:{target}:{}", pairs.sum::<u64>());
        let dir = format!("{rport}/target{number}:0:{target}/{address}");
        let attributes = [
            ("delete", ""),
            ("fcp_lun", lun),
            ("hba_id", self.channels[number].bus_id),
            ("state", "running"),
            ("type", "0"),
            ("wwpn", wwpn),
            ("zfcp_access_denied", "0"),
            ("zfcp_failed", "0"),
            ("zfcp_in_recovery", "0"),
        ];
        self.tree.attributes(&dir, &attributes);
        self.tree.link(&format!("sys/bus/scsi/devices/{address}"), &dir);
        if self.tree.exists(&unit) {
            self.tree.set(&format!("{unit}/failed"), "0");
        }
        self.after(PROBE, move |state| state.make_disk(&dir, &address));
    }

    fn make_disk(&mut self, dir: &str, address: &str) {
        if !self.tree.exists(dir) {
            return;
        }
        let used = self.tree.names("sys/block", "sd");
        let name = ('a'..='z').map(|letter| format!("sd{letter}")).find(|name| !used.contains(name)).unwrap();
        let block = format!("{dir}/block/{name}");
        self.tree.attributes(&block, &[("ro", "0")]);
        self.tree.link(&format!("{block}/device"), dir);
        self.tree.link(&format!("sys/block/{name}"), &block);
        assert!(self.tree.exists(&format!("sys/bus/scsi/devices/{address}")));
    }

    fn device_of(&self, number: usize, wwpn: &str, lun: &str) -> Option<String> {
        let read = |address: &str, name: &str| self.tree.read(&format!("sys/bus/scsi/devices/{address}/{name}"));
        let mut addresses = self.tree.names("sys/bus/scsi/devices", &format!("{number}:")).into_iter();
        addresses.find(|address| read(address, "wwpn") == wwpn && read(address, "fcp_lun") == lun)
    }

    pub fn delete_device(&mut self, address: &str) {
        let link = format!("sys/bus/scsi/devices/{address}");
        let read = |name: &str| self.tree.read(&format!("{link}/{name}"));
        let unit = format!("sys/bus/ccw/devices/{}/{}/{}", read("hba_id"), read("wwpn"), read("fcp_lun"));
        for name in self.tree.names(&format!("{link}/block"), "sd") {
            self.tree.remove(&format!("sys/block/{name}"));
        }
        let real = std::fs::canonicalize(self.tree.path(&link)).unwrap();
        // The target goes with its last device.
        std::fs::remove_dir_all(&real).unwrap();
        let _ = std::fs::remove_dir(real.parent().unwrap());
        self.tree.remove(&link);
        if self.tree.exists(&unit) {
            self.tree.set(&format!("{unit}/failed"), "1");
        }
    }

    /// Host and ports stay; devices that were not deleted wait for the port, and go a minute later.
    pub fn set_offline(&mut self, number: usize) -> Result<(), Errno> {
        let ccw = self.ccw(number);
        if ["no path", "no device"].contains(&self.channels[number].availability) {
            self.unregister(number);
            return Ok(());
        }
        self.tree.set(&format!("{ccw}/online"), "0");
        self.tree.set(&format!("{}/fc_host/host{number}/port_state", self.host(number)), "Unknown");
        for port in self.channels[number].storage.clone() {
            let (rport, name) = self.rport(number, port.wwpn);
            let state = format!("{rport}/fc_remote_ports/{name}/port_state");
            if !self.tree.exists(&state) {
                continue;
            }
            self.tree.set(&state, "Blocked");
            self.after(DEV_LOSS, move |kernel| {
                if kernel.tree.read(&state) == "Blocked" {
                    kernel.tree.set(&state, "Not Present");
                    let addresses = kernel.tree.names("sys/bus/scsi/devices", &format!("{number}:"));
                    addresses.iter().for_each(|address| kernel.delete_device(address));
                }
            });
        }
        Ok(())
    }
}
