//! Why a way stands still, in words: what is known, what to check, and with which tool.
//!
//! docs/operating.md has every sentence; tests compare them with it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use imgstream::error::{Error, Retry};
use protocol::spec::FcpSpec;

use super::adapter::FCP;
use super::standing::{Seen, Standing};

/// What there is to say of a way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// How far it has come, and what is missing.
    pub(super) state: String,
    /// What to check.
    pub(super) check: String,
    /// How to do that.
    pub(super) hint: String,
    /// Whether the same can succeed later without anybody changing anything.
    pub(super) retry: Retry,
}

/// A way that stands still at `standing`.
pub(super) fn words(way: &FcpSpec, standing: &Standing, seen: &Seen) -> Words {
    let adapter = way.adapter.as_str();
    let (state, check) = match standing {
        Standing::NoChannels
        | Standing::Ignored
        | Standing::Unknown
        | Standing::Foreign(_)
        | Standing::Boxed
        | Standing::NoPath
        | Standing::NoDevice
        | Standing::NoDriver(_)
        | Standing::Offline => of_the_device(adapter, standing),
        Standing::Recovering
        | Standing::NoHost
        | Standing::LinkDown
        | Standing::Failed
        | Standing::HostIs(_)
        | Standing::NoPorts
        | Standing::NoLogin(_)
        | Standing::NothingAppears(_) => of_the_channel(standing),
        _ => of_the_lun(way, standing),
    };
    let (hint, retry) = (hint(way, standing, seen), retry(standing));
    Words { state, check, hint, retry }
}

impl Words {
    /// The same, while the kernel has not answered the order it is `doing`.
    pub(super) fn while_doing(self, doing: &str) -> Words {
        Words {
            state: format!("{}, the kernel has not finished {doing}", self.state),
            check: "look at the kernel log".into(),
            ..self
        }
    }

    /// The same, since the kernel refused the order it was `doing`.
    pub(super) fn refused(self, doing: &str, error: &io::Error) -> Words {
        let state = format!("{}, {doing} failed: {error}", self.state);
        let (check, hint, retry) = match error.kind() {
            ErrorKind::PermissionDenied => ("run as root", "the agent must be root to attach LUNs", Retry::Permanent),
            ErrorKind::ReadOnlyFilesystem => (
                "sysfs is read-only here",
                "run the container privileged, or have the platform attach the LUN and leave `target.lun.fcp` empty",
                Retry::Permanent,
            ),
            _ => ("look at the kernel log", self.hint.as_str(), Retry::Temporary),
        };
        Words { state, check: check.into(), hint: hint.to_owned(), retry }
    }

    /// One sentence, after a wait of `waited` where waiting was tried.
    pub(super) fn sentence(&self, adapter: &str, waited: Option<Duration>) -> String {
        let waited = waited.map_or(String::new(), |waited| format!(" after {} s", waited.as_secs()));
        format!("{adapter}: {}{waited}: {}", self.state, self.check)
    }
}

/// One error of what is to be said of several ways: it can pass only if all of it can.
pub(super) fn error(ways: &[(String, Words)]) -> Error {
    let passes = ways.iter().all(|(_, words)| words.retry == Retry::Temporary);
    let sentences = each_once(ways.iter().map(|(sentence, _)| sentence.clone()));
    let hints = each_once(ways.iter().map(|(_, words)| words.hint.clone()));
    let error = Error::target(sentences).with_hint(hints);
    error.with_retry(if passes { Retry::Temporary } else { Retry::Permanent })
}

/// One line of what may say the same several times: ways have adapters in common.
pub(super) fn each_once(texts: impl Iterator<Item = String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for text in texts {
        if !once.contains(&text) {
            once.push(text);
        }
    }
    once.join("; ")
}

fn of_the_device(adapter: &str, standing: &Standing) -> (String, String) {
    let (state, check): (&str, &str) = match standing {
        Standing::NoChannels => ("this machine has no channels", "zFCP is on IBM Z and LinuxONE alone"),
        Standing::Ignored => ("ignored by the kernel (cio_ignore)", "free it"),
        Standing::Unknown => ("no such device", "look on the HMC, or in the IOCDS, whether this LPAR has it"),
        Standing::Boxed => ("boxed (it does not answer)", "look at the FCP channel on the HMC"),
        Standing::NoPath => ("no path (its channel path is offline)", "look at the CHPID here and on the HMC"),
        Standing::NoDevice => ("gone (the machine has taken it away)", "look at the FCP channel on the HMC"),
        Standing::NoDriver(None) => ("no driver has it", "load the module zfcp"),
        Standing::Foreign(kind) => {
            let state = format!("a device of type {kind}, not an FCP channel ({FCP})");
            return (state, "correct `target.lun.fcp`".into());
        }
        Standing::NoDriver(Some(driver)) => {
            return (format!("the driver {driver} has it instead of zfcp"), format!("free {adapter} from {driver}"));
        }
        _ => ("still offline", "look at the kernel log"),
    };
    (state.into(), check.into())
}

fn of_the_channel(standing: &Standing) -> (String, String) {
    let log = "look at the kernel log, and at the FCP channel on the HMC";
    let (state, check): (&str, &str) = match standing {
        Standing::LinkDown => ("link down", "check the cable and the switch's port"),
        Standing::Failed => ("its recovery failed", log),
        Standing::NoHost => ("not registered with SCSI", log),
        Standing::NoPorts => ("no storage port in the fabric", "check zoning"),
        Standing::NoLogin(ports) => {
            let state = format!("online, logged in at none of {ports} storage ports");
            return (state, "check zoning, and the storage's ports".into());
        }
        Standing::HostIs(state) => return (format!("online, its fc_host is `{state}`"), log.into()),
        Standing::NothingAppears(why) => {
            let check = "name `wwpn` and `lun`, or give this LPAR NPIV";
            return (format!("online, LUNs do not appear by themselves ({why})"), check.into());
        }
        _ => ("still in recovery", log),
    };
    (format!("online, {state}"), check.into())
}

fn of_the_lun(way: &FcpSpec, standing: &Standing) -> (String, String) {
    let (wwpn, lun) = named(way);
    let masking = "check zoning and LUN masking";
    let storage = "check zoning, and the storage's port";
    let (state, check): (String, &str) = match standing {
        Standing::NoPort => {
            return (format!("online, port {wwpn} not in the fabric"), "check the WWPN and zoning".into());
        }
        Standing::PortDenied => ("access denied".into(), "check the access control of the FCP channel"),
        Standing::PortFailed => ("its recovery failed".into(), storage),
        Standing::PortRecovering => ("still in recovery".into(), storage),
        Standing::NotLoggedIn(Some(state)) => (format!("not logged in ({state})"), storage),
        Standing::NotLoggedIn(None) => ("not logged in".into(), storage),
        Standing::LunDenied => (format!("LUN {lun} denied"), "the kernel log says which LPAR has it"),
        Standing::LunFailed => (format!("LUN {lun} failed"), masking),
        Standing::LunRecovering => (format!("LUN {lun} still in recovery"), "look at the kernel log"),
        Standing::NoScsiDevice => (format!("LUN {lun} open, no SCSI device"), "look at the kernel log"),
        Standing::NotRunning { address, state } => {
            (format!("LUN {lun} is SCSI device {address} and `{state}`"), "look at the kernel log")
        }
        Standing::NoDisk { address, kind } => {
            let check = if kind == "0" { "load the module sd_mod" } else { "correct the LUN: this one is no disk" };
            (format!("LUN {lun} is SCSI device {address} of type {kind}, no disk"), check)
        }
        _ => (format!("LUN {lun} not reported"), masking),
    };
    (format!("online, port {wwpn} present, {state}"), check.into())
}

fn hint(way: &FcpSpec, standing: &Standing, seen: &Seen) -> String {
    let adapter = way.adapter.as_str();
    let (wwpn, lun) = named(way);
    let host = seen.adapter.as_ref().and_then(|adapter| adapter.host.as_ref());
    let initiator = host.map_or(String::new(), |host| format!("; {adapter} itself is {}", host.port_name));
    match standing {
        Standing::NoChannels => "where somebody else attaches the LUN, leave `target.lun.fcp` empty".into(),
        Standing::Ignored => format!("`cio_ignore -r {adapter}`"),
        Standing::Unknown | Standing::Foreign(_) => "`lszdev zfcp-host` lists the FCP channels of this LPAR".into(),
        Standing::NoDriver(_) => format!("`modprobe zfcp`, then `lszdev zfcp-host {adapter} --info`"),
        Standing::NoPath => "`lschp` shows the CHPID; `chchp -v 1 CHPID` and the HMC set it online".into(),
        Standing::Boxed | Standing::NoDevice | Standing::Offline => {
            format!("`lszdev zfcp-host {adapter} --info`; by hand: `chzdev -a -e zfcp-host {adapter}`")
        }
        Standing::Recovering
        | Standing::NoHost
        | Standing::LinkDown
        | Standing::Failed
        | Standing::HostIs(_)
        | Standing::NothingAppears(_) => format!("`lszfcp -Ha -b {adapter}` shows the adapter"),
        Standing::NoPorts
        | Standing::NoLogin(_)
        | Standing::NoPort
        | Standing::PortDenied
        | Standing::PortFailed
        | Standing::PortRecovering
        | Standing::NotLoggedIn(_) => format!("`lszfcp -P -e -b {adapter}` lists the ports it sees{initiator}"),
        _ => {
            let by_hand = format!("`chzdev -a -e zfcp-lun {adapter}:{wwpn}:{lun}`");
            format!("`lszfcp -D -e -b {adapter}` lists the LUNs; by hand: {by_hand}{initiator}")
        }
    }
}

fn retry(standing: &Standing) -> Retry {
    match standing {
        Standing::NoChannels
        | Standing::Unknown
        | Standing::Foreign(_)
        | Standing::NoDriver(_)
        | Standing::NothingAppears(_) => Retry::Permanent,
        Standing::NoDisk { kind, .. } if kind != "0" => Retry::Permanent,
        _ => Retry::Temporary,
    }
}

fn named(way: &FcpSpec) -> (&str, &str) {
    (way.wwpn.as_ref().map_or("", |wwpn| wwpn.as_str()), way.lun.as_ref().map_or("", |lun| lun.as_str()))
}
