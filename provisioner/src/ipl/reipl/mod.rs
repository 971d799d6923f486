//! What the next re-IPL starts: `/sys/firmware/reipl`, and where a disk is as firmware knows it.
//!
//! Sources: Linux, arch/s390/kernel/ipl.c (every attribute here; `__reipl_run` for what becomes of them) and
//! drivers/s390/scsi/zfcp_sysfs.c (`hba_id`, `wwpn`, `fcp_lun`); s390-tools' ipl_tools/chreipl.c.

mod order;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use imgstream::error::{Error, IoContext, Kind, Result};
use protocol::BusId;

use crate::sysfs::{self, Roots};
use order::Order;

/// Where firmware finds a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Behind an FCP channel.
    Fcp {
        /// The adapter's bus id.
        adapter: String,
        /// The storage port's WWPN.
        wwpn: String,
        /// The LUN's number behind it.
        lun: String,
    },
    /// A device of the channel subsystem: a DASD, or a virtio device. Behind one that is a SCSI controller, QEMU's firmware takes
    /// the first disk it finds.
    Ccw {
        /// Its bus id.
        device: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Fcp { adapter, wwpn, lun } => write!(f, "FCP adapter {adapter}, port {wwpn}, LUN {lun}"),
            Source::Ccw { device } => write!(f, "device {device}"),
        }
    }
}

/// Where firmware finds the disk with a kernel name such as `sda`.
///
/// # Errors
/// `Target` when there is no such disk, or firmware cannot start from where it is.
pub fn source_of(roots: &Roots, kernel_name: &str) -> Result<Source> {
    let device = roots.sys("block").join(kernel_name).join("device");
    let real = device.canonicalize().context(Kind::Target, || format!("looking where the disk {kernel_name} is"))?;
    let part = |name: &str| sysfs::read(&real.join(name)).filter(|text| !text.is_empty());
    if let Some(adapter) = part("hba_id") {
        let need = |name: &str| {
            part(name).ok_or_else(|| {
                let message = format!("{kernel_name} is behind FCP adapter {adapter}, but does not say its {name}");
                Error::target(message).with_hint("it may just be going away: look at lszfcp -D")
            })
        };
        let (wwpn, lun) = (need("wwpn")?, need("fcp_lun")?);
        return Ok(Source::Fcp { adapter, wwpn, lun });
    }
    only_one_behind(&real)?;
    channel_device(&real).map(|device| Source::Ccw { device }).ok_or_else(|| {
        let message = format!(
            "firmware cannot start {kernel_name}: it is {}, neither on zFCP nor a device of the channel subsystem",
            real.display()
        );
        Error::target(message).with_hint("set what the server starts at the HMC, or with chreipl")
    })
}

/// Behind a virtio SCSI controller firmware takes the first disk it finds: there must be no other, and no CD.
fn only_one_behind(disk: &Path) -> Result<()> {
    // …/virtio1/host0/target0:0:0/0:0:0:0
    let Some(controller) =
        disk.ancestors().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("host")))
    else {
        return Ok(());
    };
    let below = |path: &Path, start: &str| -> Vec<PathBuf> {
        sysfs::names(path).into_iter().filter(|name| name.starts_with(start)).map(|name| path.join(name)).collect()
    };
    let is_device =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().matches(':').count() == 3);
    let devices = below(controller, "target").iter().flat_map(|target| below(target, "")).filter(is_device).count();
    if devices <= 1 {
        return Ok(());
    }
    let message =
        format!("firmware would start the first of {devices} disks of a controller ({})", controller.display());
    Err(Error::target(message).with_hint("give the target a virtio SCSI controller of its own, or start it by hand"))
}

/// `…/css0/0.0.0003/0.0.1000` of a DASD, `…/css0/0.0.0002/0.0.1000/virtio1/…` of virtio.
fn channel_device(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_virtio = |part: &String| part.strip_prefix("virtio").is_some_and(|number| number.parse::<u32>().is_ok());
    let end = parts.iter().position(is_virtio).unwrap_or(parts.len());
    let device = parts.get(end.checked_sub(1)?)?;
    BusId::try_from(device.clone()).ok().map(|_| device.clone())
}

/// Has the next re-IPL start `source`, with cleared memory, from its boot record in block 0, its default program, and no
/// parameters but the program's own. All of it is read back.
///
/// # Errors
/// `Target` when this machine cannot re-IPL from there; `Device` when the kernel refuses a value or does not take it.
pub fn set(roots: &Roots, source: &Source) -> Result<()> {
    let reipl = roots.sys("firmware/reipl");
    if !reipl.join("reipl_type").exists() {
        let message = format!("the kernel cannot be told what to start next: there is no {}", reipl.display());
        return Err(Error::target(message).with_hint(
            "only Linux on IBM Z has it, in a container only where sysfs is that of the machine; else start the server at the HMC",
        ));
    }
    let kind = source.kind();
    if !reipl.join(kind).is_dir() {
        let message =
            format!("this machine offers no re-IPL of type {kind}: there is no {}", reipl.join(kind).display());
        return Err(Error::target(message).with_hint(format!("start the server from {source} at the HMC")));
    }
    if let Source::Fcp { adapter, .. } = source
        && !adapter.starts_with("0.0.")
    {
        // The kernel's format is "0.0.%llx".
        let message =
            format!("the kernel re-IPLs from FCP adapters of subchannel set 0 only, and {adapter} is in another");
        return Err(Error::target(message).with_hint("use an adapter whose bus id begins with 0.0, or the HMC"));
    }
    let orders = source.orders();
    orders.iter().try_for_each(|order| order.give(roots))?;
    orders.iter().try_for_each(|order| order.check(roots))
}

impl Source {
    fn kind(&self) -> &'static str {
        match self {
            Source::Fcp { .. } => "fcp",
            Source::Ccw { .. } => "ccw",
        }
    }

    /// What is set, in this order: the type last, so that a failure before leaves alone what another type was to start.
    fn orders(&self) -> Vec<Order> {
        let mut orders = match self {
            Source::Ccw { device } => vec![
                // Without it the agent's memory stays, keys included, and a guest of QEMU does not come back. What a kernel without the
                // attribute would do is nothing to rely on.
                Order::must("reipl/ccw/clear", "1"),
                Order::must("reipl/ccw/device", device),
                Order::blank("reipl/ccw/loadparm"),
                // Kernel parameters; under z/VM only.
                Order::blank("reipl/ccw/parm"),
            ],
            Source::Fcp { adapter, wwpn, lun } => vec![
                // `reipl_fcp_init`: a machine that does not have it, before z14, always clears memory.
                Order::may("reipl/fcp/clear", "1"),
                Order::must("reipl/fcp/device", adapter),
                Order::must("reipl/fcp/wwpn", wwpn),
                Order::must("reipl/fcp/lun", lun),
                Order::must("reipl/fcp/bootprog", "0"),
                Order::must("reipl/fcp/br_lba", "0"),
                Order::blank("reipl/fcp/loadparm"),
                // Kernel parameters, those that this system was started with where it was from FCP.
                Order::no_bytes("reipl/fcp/scp_data"),
            ],
        };
        orders.push(Order::must("reipl/reipl_type", self.kind()));
        // What a reboot does: it is so unless somebody changed it.
        orders.push(Order::may("shutdown_actions/on_reboot", "reipl"));
        orders
    }
}
