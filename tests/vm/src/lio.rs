//! LIO, the kernel's own SCSI target: disks with real persistent reservations, which QEMU's do not have. Inside one guest they are
//! reached through loopback adapters, from another one by iSCSI.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::guest::Guest;
use crate::scsi::Path;

const TARGET: &str = "/sys/kernel/config/target";

/// A logical unit.
pub struct Lun<'g> {
    guest: &'g Guest,
    /// Its folder below the target's.
    store: String,
    wwid: String,
}

/// A loopback adapter with a logical unit behind it: an initiator of its own, and one path.
pub struct Loopback<'g> {
    guest: &'g Guest,
    path: Path<'g>,
}

impl Guest {
    /// A logical unit in a file in the guest's memory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn lun_in_memory(&self, mib: u64) -> Lun<'_> {
        self.load_target();
        let (number, bytes) = (next(), mib << 20);
        self.sh(&format!("truncate -s {bytes} /run/lun{number}"));
        self.lun(number, "fileio", &format!("fd_dev_name=/run/lun{number},fd_dev_size={bytes}"))
    }

    /// A logical unit on a block device of the guest.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn lun_on(&self, device: &str) -> Lun<'_> {
        self.load_target();
        self.lun(next(), "iblock", &format!("udev_path={device}"))
    }

    #[track_caller]
    fn load_target(&self) {
        // Reservations that are to survive a loss of power are refused if the folder is not there.
        self.sh("modprobe -a target_core_mod tcm_loop iscsi_target_mod sd_mod sg && mkdir -p /var/target/pr");
        self.sh(&format!("[ -d {TARGET} ] || mount -t configfs configfs /sys/kernel/config"));
    }

    #[track_caller]
    fn lun(&self, number: u32, kind: &str, control: &str) -> Lun<'_> {
        let store = format!("core/{kind}_{number}/lun{number}");
        let serial = format!("{number:08x}-7a76-4000-8000-000000000000");
        self.sh(&format!(
            "set -e; cd {TARGET}; mkdir -p {store}; echo {control} >{store}/control; \
             echo {serial} >{store}/wwn/vpd_unit_serial; echo 1 >{store}/enable"
        ));
        // NAA 6, LIO's vendor number, and as many digits of the serial number as there is room for.
        let digits: String = serial.chars().filter(char::is_ascii_hexdigit).take(25).collect();
        Lun { guest: self, store, wwid: format!("36001405{digits}") }
    }
}

impl<'g> Lun<'g> {
    /// The name multipath knows it by.
    pub fn wwid(&self) -> &str {
        &self.wwid
    }

    /// The file that holds it, where it is one in memory.
    pub fn file(&self) -> String {
        format!("/run/{}", self.store.rsplit('/').next().unwrap_or_default())
    }

    /// Connects a new loopback adapter to it. Each is an initiator that can register and reserve for itself.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn loopback(&self) -> Loopback<'g> {
        let number = next();
        let (target, initiator) = (format!("naa.6001405{number:09x}"), format!("naa.6001406{number:09x}"));
        // The initiator's name first: there are no commands without one.
        let address = self.guest.sh(&format!(
            "set -e; cd {TARGET}; T=loopback/{target}/tpgt_1; mkdir -p $T; echo {initiator} >$T/nexus; \
             mkdir $T/lun/lun_0; ln -s {TARGET}/{} $T/lun/lun_0/store; cat $T/address",
            self.store
        ));
        let path = Path::new(self.guest, format!("{address}:0"));
        path.name();
        Loopback { guest: self.guest, path }
    }

    /// Offers it by iSCSI, at these addresses of the guest, to one initiator. Both are named as iSCSI demands,
    /// `iqn.2026-01.example:NAME`.
    ///
    /// # Panics
    /// When it cannot be offered.
    #[track_caller]
    pub fn offer(&self, target: &str, initiator: &str, addresses: &[&str]) {
        let portals: String = addresses.iter().map(|address| format!("mkdir $T/np/{address}:3260; ")).collect();
        self.guest.sh(&format!(
            "set -e; cd {TARGET}; T=iscsi/{target}/tpgt_1; mkdir -p $T; {portals} \
             mkdir $T/lun/lun_0; ln -s {TARGET}/{} $T/lun/lun_0/store; echo 0 >$T/attrib/authentication; \
             mkdir -p $T/acls/{initiator}/lun_0; ln -s {TARGET}/$T/lun/lun_0 $T/acls/{initiator}/lun_0/lun; \
             echo 1 >$T/enable",
            self.store
        ));
    }
}

impl Lun<'_> {
    /// Takes the place of what is offered by [`Lun::offer`] under this name, as if somebody mapped it there at the storage. The
    /// initiator keeps its session and its disk.
    ///
    /// # Panics
    /// When it cannot be exchanged.
    #[track_caller]
    pub fn offer_instead(&self, target: &str, initiator: &str) {
        self.guest.sh(&format!(
            "set -e; cd {TARGET}; T=iscsi/{target}/tpgt_1; rm $T/acls/{initiator}/lun_0/lun; rmdir $T/acls/{initiator}/lun_0; \
             rm $T/lun/lun_0/store; ln -s {TARGET}/{} $T/lun/lun_0/store; \
             mkdir -p $T/acls/{initiator}/lun_0; ln -s {TARGET}/$T/lun/lun_0 $T/acls/{initiator}/lun_0/lun",
            self.store
        ));
    }
}

impl<'g> Loopback<'g> {
    /// Its path.
    pub fn path(&self) -> &Path<'g> {
        &self.path
    }

    /// Lets udev, and so multipath, know the disk as another one: `NODE-WWID`. Paths of the same node make a map of their own, as on
    /// another machine that shares the disk. To be told before udev is started.
    ///
    /// # Panics
    /// When the rule cannot be written.
    #[track_caller]
    pub fn on_node(&self, node: &str) {
        let rule = format!(
            "SUBSYSTEM==\"block\", KERNELS==\"{}\", ENV{{ID_SERIAL}}==\"?*\", ENV{{ID_SERIAL}}=\"{node}-$env{{ID_SERIAL}}\"",
            self.path.address()
        );
        let line = "cat >>/etc/udev/rules.d/61-nodes.rules";
        self.guest.run(line).stdin(format!("{rule}\n")).done().ok();
    }
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
