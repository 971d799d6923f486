//! An iSCSI initiator in a guest: open-iscsi's.

use crate::guest::Guest;

/// Short enough that a lost path is known to be lost within a test's patience.
const CONFIGURATION: &str = "node.startup = manual
node.session.timeo.replacement_timeout = 3
node.conn[0].timeo.login_timeout = 10
node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 2
node.session.err_timeo.abort_timeout = 5
node.session.err_timeo.lu_reset_timeout = 5
";

impl Guest {
    /// Logs in at a target through each of its addresses: one session, and so one path, for each.
    ///
    /// # Panics
    /// When it cannot log in.
    #[track_caller]
    pub fn iscsi_login(&self, initiator: &str, target: &str, addresses: &[&str]) {
        self.sh("modprobe -a iscsi_tcp sd_mod sg && mkdir -p /run/lock/iscsi /etc/iscsi/nodes /etc/iscsi/send_targets");
        self.put("/etc/iscsi/iscsid.conf", 0o600, CONFIGURATION);
        self.put("/etc/iscsi/initiatorname.iscsi", 0o600, format!("InitiatorName={initiator}\n"));
        self.sh("iscsid");
        for address in addresses {
            self.run(&format!("iscsiadm -m node -T {target} -p {address}:3260 -o new")).done().ok();
            self.run(&format!("iscsiadm -m node -T {target} -p {address}:3260 --login")).done().ok();
        }
        let line =
            format!("[ $(ls -d /sys/class/iscsi_session/*/device/target*/*/block/* | wc -l) -eq {} ]", addresses.len());
        self.until("a disk for each session", 30, &line);
    }
}
