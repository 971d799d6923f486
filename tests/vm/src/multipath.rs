//! udev and multipath-tools in a guest.

use crate::guest::Guest;

/// A configuration that fits tests: maps are named by WWID, failed paths are looked at every second, and when all are lost, I/O fails
/// after three such looks.
pub const CONFIGURATION: &str = r#"defaults {
    user_friendly_names no
    find_multipaths no
    path_grouping_policy multibus
    polling_interval 1
    max_polling_interval 1
    no_path_retry 3
    reservation_key file
    skip_kpartx yes
}
blacklist {
    devnode "^(vd|loop)"
}
"#;

/// udevd and multipathd at work. They end with the guest.
pub struct Multipath<'g> {
    guest: &'g Guest,
}

/// What a map says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// How many can be used.
    pub active: u32,
    /// How many cannot.
    pub failed: u32,
}

impl Guest {
    /// Starts udevd, and waits until it has looked at the devices that are there.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_udev(&self) {
        self.sh("mkdir -p /run/udev && /usr/lib/systemd/systemd-udevd --daemon && udevadm control --ping");
        self.sh("udevadm trigger --action=add --subsystem-match=block --subsystem-match=scsi && udevadm settle");
    }

    /// Starts udevd and multipathd with [`CONFIGURATION`].
    ///
    /// # Panics
    /// When one does not start.
    #[track_caller]
    pub fn start_multipath(&self) -> Multipath<'_> {
        self.start_multipath_with(CONFIGURATION)
    }

    /// Starts udevd and multipathd with another configuration.
    ///
    /// # Panics
    /// When one does not start.
    #[track_caller]
    pub fn start_multipath_with(&self, configuration: &str) -> Multipath<'_> {
        self.put("/etc/multipath.conf", 0o644, configuration);
        self.sh("modprobe -a dm-multipath dm-service-time scsi_dh_alua");
        self.start_udev();
        self.sh("multipathd");
        self.until("multipathd's first answer", 20, "multipathd show daemon >/dev/null");
        Multipath { guest: self }
    }
}

impl Multipath<'_> {
    /// Waits for the map of a WWID with so many usable paths, and returns its device, `/dev/mapper/WWID`.
    ///
    /// # Panics
    /// When it does not come within half a minute.
    #[track_caller]
    pub fn map(&self, wwid: &str, paths: u32) -> String {
        let device = format!("/dev/mapper/{wwid}");
        self.wait_for(wwid, Paths { active: paths, failed: 0 });
        self.guest.until("the map's device", 10, &format!("[ -b {device} ]"));
        device
    }

    /// Waits until a map has so many usable paths and so many others.
    ///
    /// # Panics
    /// When it has not within half a minute.
    #[track_caller]
    pub fn wait_for(&self, wwid: &str, paths: Paths) {
        let Paths { active, failed } = paths;
        // Two letters per path in the kernel's own line: major:minor, then A or F.
        let line = format!(
            "S=$(dmsetup status {wwid}); echo \"$S\"; \
             [ $(echo \"$S\" | grep -oE '[0-9]+:[0-9]+ A' | wc -l) -eq {active} ] && \
             [ $(echo \"$S\" | grep -oE '[0-9]+:[0-9]+ F' | wc -l) -eq {failed} ]"
        );
        self.guest.until(&format!("{paths:?} of {wwid}"), 30, &line);
    }

    /// All that multipathd says of its maps and paths, for a test that has failed.
    pub fn state(&self) -> String {
        let done = self.guest.run("multipath -ll; multipathd show paths; dmsetup table; dmsetup status").done();
        format!("{}{}", done.stdout, done.stderr)
    }
}
