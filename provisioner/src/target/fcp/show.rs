//! Adapters for people and for machines: what `z-provisioner adapters` shows.

use std::fmt;

use serde_json::{Value, json};

use super::adapter::{Adapter, Health, Port, ScsiDevice};

/// A machine's adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing(pub Vec<Adapter>);

impl Listing {
    /// For machines: one object.
    pub fn to_json(&self) -> Value {
        json!({ "event": "adapters", "adapters": self.0.iter().map(adapter_json).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no FCP channels on this machine");
        }
        let lines: Vec<String> = self.0.iter().flat_map(lines).collect();
        f.write_str(&lines.join("\n"))
    }
}

fn lines(adapter: &Adapter) -> Vec<String> {
    let mut words = vec![if adapter.online { "online".to_owned() } else { "offline".to_owned() }];
    words.extend((adapter.availability != "good").then(|| adapter.availability.clone()));
    words.extend(adapter.driver.is_none().then(|| "no driver".to_owned()));
    words.extend(health_words(adapter.health));
    if let Some(host) = &adapter.host {
        words.extend([format!("host{}", host.number), host.port_name.clone(), host.port_type.clone()]);
        // Of an adapter that is offline the kernel shows what was last.
        words.extend(adapter.online.then(|| host.port_state.clone()));
        words.extend((adapter.online && host.speed != "unknown").then(|| host.speed.clone()));
    }
    let mut lines = vec![format!("{}  {}", adapter.bus_id, words.join(", "))];
    for port in &adapter.ports {
        let state = port.state.as_deref().unwrap_or("never logged in").to_owned();
        let words: Vec<String> = std::iter::once(state).chain(health_words(port.health)).collect();
        lines.push(format!("  port {}  {}", port.wwpn, words.join(", ")));
        lines.extend(luns(adapter, port));
    }
    lines
}

/// Units first, then what was found automatically.
fn luns(adapter: &Adapter, port: &Port) -> Vec<String> {
    let units = port.units.iter().map(|unit| match adapter.device(&port.wwpn, &unit.lun) {
        Some(device) => format!("    LUN {}  {}", unit.lun, device_words(device)),
        None => format!("    LUN {}  no SCSI device", unit.lun),
    });
    units
        .chain(
            found(adapter, port)
                .map(|device| format!("    LUN {}  {}, found automatically", device.lun, device_words(device))),
        )
        .collect()
}

fn found<'a>(adapter: &'a Adapter, port: &'a Port) -> impl Iterator<Item = &'a ScsiDevice> {
    adapter.devices.iter().filter(|device| device.wwpn == port.wwpn && port.unit(&device.lun).is_none())
}

fn device_words(device: &ScsiDevice) -> String {
    let disk = device.disk.clone().unwrap_or_else(|| format!("no disk (SCSI type {})", device.kind));
    let words = [device.address.clone(), disk, device.state.clone()];
    words.into_iter().chain(health_words(device.health)).collect::<Vec<_>>().join(", ")
}

fn health_words(health: Health) -> impl Iterator<Item = String> {
    let words =
        [(health.failed, "failed"), (health.in_recovery, "in recovery"), (health.access_denied, "access denied")];
    words.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word.to_owned())
}

fn adapter_json(adapter: &Adapter) -> Value {
    let ports = adapter.ports.iter().map(|port| {
        json!({
            "wwpn": port.wwpn,
            "state": port.state,
            "failed": port.health.failed,
            "in_recovery": port.health.in_recovery,
            "access_denied": port.health.access_denied,
            "luns": luns_json(adapter, port),
        })
    });
    json!({
        "bus_id": adapter.bus_id,
        "online": adapter.online,
        "availability": adapter.availability,
        "driver": adapter.driver,
        "failed": adapter.health.failed,
        "in_recovery": adapter.health.in_recovery,
        "fc_host": adapter.host.as_ref().map(|host| json!({
            "number": host.number,
            "port_name": host.port_name,
            "port_state": host.port_state,
            "port_type": host.port_type,
            "npiv": adapter.is_npiv(),
            "speed": host.speed,
        })),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn luns_json(adapter: &Adapter, port: &Port) -> Vec<Value> {
    let device_json = |device: &ScsiDevice| {
        json!({
            "address": device.address,
            "state": device.state,
            "type": device.kind,
            "disk": device.disk,
            "failed": device.health.failed,
            "in_recovery": device.health.in_recovery,
            "access_denied": device.health.access_denied,
        })
    };
    let units = port.units.iter().map(|unit| {
        let device = adapter.device(&port.wwpn, &unit.lun).map(device_json);
        json!({ "lun": unit.lun, "added": true, "scsi_device": device })
    });
    let found = found(adapter, port)
        .map(|device| json!({ "lun": device.lun, "added": false, "scsi_device": device_json(device) }));
    units.chain(found).collect()
}
