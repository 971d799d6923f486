//! From a configured device to the name that the kernel gave its interface.

use std::cell::RefCell;
use std::path::Path;

use imgstream::error::{Error, Kind, Result};

use super::ip::ip;
use super::qeth::Card;
use super::wait::Patience;
use crate::cio::device_dir;
use crate::medium::config::{Device, Interface};
use crate::sysfs::{self, Roots};
use crate::tool::Tool;

/// The interface of `device`, by the name it has now. A qeth device is set online, and noted in `online`.
pub(super) async fn find(
    roots: &Roots,
    device: &Device,
    patience: &Patience<'_>,
    tell: &dyn Fn(String),
    online: &RefCell<Vec<Card>>,
) -> Result<String> {
    match device {
        Device::Qeth { channels, port } => {
            let card = Card::new(roots, channels, *port);
            // Noted before it is done: also what comes online only later is set offline again.
            online.borrow_mut().push(card.clone());
            card.set_online(patience.left(), tell).await
        }
        Device::Mac(mac) => by_mac(roots, mac, patience).await,
        Device::Ccw(bus_id) => by_ccw(roots, bus_id, patience).await,
    }
}

/// Loads the driver of qeth devices, where there are to be any. udev does it when it sees the devices; those that the kernel
/// ignores it does not see.
pub(super) async fn load_drivers<'a>(mut devices: impl Iterator<Item = &'a Device>) -> Result<()> {
    if !devices.any(|device| matches!(device, Device::Qeth { .. })) {
        return Ok(());
    }
    let load = Tool::new("modprobe").args(["-a", "qeth", "qeth_l2"]).kind(Kind::Source);
    let hint = "the medium must have the modules qeth and qeth_l2 of the kernel that runs";
    load.run().await.map(drop).map_err(|error| error.with_hint(hint))
}

async fn by_mac(roots: &Roots, mac: &str, patience: &Patience<'_>) -> Result<String> {
    let look = || Some(with_mac(roots, mac)).filter(|names| !names.is_empty());
    match patience.until(&format!("an interface with the address {mac}"), look).await.as_deref() {
        Some([name]) => Ok(name.clone()),
        Some(names) => {
            Err(Error::new(Kind::Source, format!("{} have the address {mac}, all of them", names.join(", ")))
                .with_hint("name the device by its device number (`ccw`) instead"))
        }
        None => {
            let there = sysfs::names(&roots.sys("class/net"));
            let address = |name: &String| sysfs::read(&roots.sys("class/net").join(name).join("address"));
            let there: Vec<_> = there.iter().filter_map(|name| Some(format!("{name} {}", address(name)?))).collect();
            Err(Error::source_failed(format!("no interface with the address {mac} in {} s", patience.seconds()))
                .with_hint(format!("there are: {}; correct `device.mac`, or load the driver", there.join(", "))))
        }
    }
}

/// Interfaces with an address, but for those on top of others (VLANs, bridges), which take over theirs.
fn with_mac(roots: &Roots, mac: &str) -> Vec<String> {
    let dir = roots.sys("class/net");
    let is_on_top = |path: &Path| sysfs::names(path).iter().any(|name| name.starts_with("lower_"));
    let has = |name: &String| {
        let path = dir.join(name);
        sysfs::read(&path.join("address")).as_deref() == Some(mac) && !is_on_top(&path)
    };
    sysfs::names(&dir).into_iter().filter(has).collect()
}

async fn by_ccw(roots: &Roots, bus_id: &str, patience: &Patience<'_>) -> Result<String> {
    let dir = device_dir(roots, bus_id);
    let virtio = || sysfs::names(&dir).into_iter().find(|name| name.starts_with("virtio"));
    let interface = || sysfs::names(&dir.join(virtio()?).join("net")).into_iter().next();
    if let Some(name) = patience.until(&format!("the interface of {bus_id}"), interface).await {
        return Ok(name);
    }
    let waited = patience.seconds();
    Err(if !dir.is_dir() {
        Error::source_failed(format!("{bus_id}: no such device in {waited} s"))
            .with_hint("look whether the guest's definition has a virtio network device with this number (`devno`)")
    } else if virtio().is_none() {
        Error::source_failed(format!("{bus_id}: no virtio device in {waited} s"))
            .with_hint("an OSA or HiperSockets device is configured as `qeth`; else load the module virtio_ccw")
    } else {
        Error::source_failed(format!("{bus_id}: no interface in {waited} s"))
            .with_hint("look whether it is a network device, and load the module virtio_net")
    })
}

/// Gives interfaces their configured names. `found` are the kernel's, in the order of `interfaces`.
///
/// One may have the name that another shall get, so each that is to be renamed first gets one that nobody has.
pub(super) async fn rename(roots: &Roots, interfaces: &[Interface], found: &[String]) -> Result<()> {
    for (number, name) in found.iter().enumerate() {
        if let Some(other) = found[..number].iter().position(|other| other == name) {
            let (one, two) = (&interfaces[other].name, &interfaces[number].name);
            return Err(Error::new(Kind::Source, format!("{one} and {two} are the same device: {name}"))
                .with_hint("correct one's `device`"));
        }
    }
    let renamed = || interfaces.iter().zip(found).enumerate().filter(|(_, (wanted, now))| wanted.name != **now);
    for (_, (wanted, _)) in renamed() {
        let is_taken = roots.sys("class/net").join(&wanted.name).exists() && !found.contains(&wanted.name);
        if is_taken {
            return Err(Error::new(Kind::Source, format!("another interface is called {} already", wanted.name))
                .with_hint("configure another `name`"));
        }
    }
    for (number, (_, now)) in renamed() {
        ip(&format!("link set dev {now} down")).await?;
        ip(&format!("link set dev {now} name zp-rename{number}")).await?;
    }
    for (number, (wanted, _)) in renamed() {
        ip(&format!("link set dev zp-rename{number} name {}", wanted.name)).await?;
    }
    Ok(())
}
