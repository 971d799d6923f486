//! On trees laid out like sysfs, where writing does what the kernel does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;

const WWPN: &str = "0x500507630300c562";
const LUN: &str = "0x4010403200000000";

fn fcp() -> Source {
    Source::Fcp { adapter: "0.0.1700".into(), wwpn: WWPN.into(), lun: LUN.into() }
}

fn ccw() -> Source {
    Source::Ccw { device: "0.0.1000".into() }
}

/// A machine that was started from a virtual CD with a boot menu.
struct Machine {
    root: TempDir,
    writes: Arc<Mutex<Vec<String>>>,
    /// Ends of the paths of attributes that refuse, and that do not take what is written.
    refusing: &'static str,
    deaf: &'static str,
}

impl Machine {
    fn new() -> Self {
        let machine =
            Machine { root: tempfile::tempdir().unwrap(), writes: Arc::default(), refusing: "none", deaf: "none" };
        let ccw = [("clear", "0\n"), ("device", "0.0.0002\n"), ("loadparm", "PROMPT\n"), ("parm", "\n")];
        let fcp = [
            ("clear", "0\n"),
            ("device", "0.0.0000\n"),
            ("wwpn", "0x0000000000000000\n"),
            ("lun", "0x0000000000000000\n"),
            ("bootprog", "3\n"),
            ("br_lba", "0\n"),
            ("loadparm", "\n"),
            ("scp_data", "console=ttyS0\0\0\0"),
        ];
        ccw.iter().for_each(|(name, text)| machine.has(&format!("reipl/ccw/{name}"), text));
        fcp.iter().for_each(|(name, text)| machine.has(&format!("reipl/fcp/{name}"), text));
        machine.has("reipl/reipl_type", "ccw\n");
        machine.has("shutdown_actions/on_reboot", "reipl\n");
        machine
    }

    fn path(&self, attribute: &str) -> PathBuf {
        self.root.path().join("sys/firmware").join(attribute)
    }

    fn has(&self, attribute: &str, text: &str) {
        fs::create_dir_all(self.path(attribute).parent().unwrap()).unwrap();
        fs::write(self.path(attribute), text).unwrap();
    }

    fn lacks(&self, attribute: &str) {
        fs::remove_file(self.path(attribute)).unwrap();
    }

    fn roots(&self) -> Roots {
        let (firmware, writes) = (self.path(""), Arc::clone(&self.writes));
        let (refusing, deaf) = (self.refusing, self.deaf);
        let store = move |path: &Path, value: &str| {
            assert!(path.exists(), "sysfs makes no file: {}", path.display());
            let attribute = path.strip_prefix(&firmware).unwrap();
            if attribute.ends_with(refusing) {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            writes.lock().unwrap().push(format!("{} {value:?}", attribute.display()));
            if attribute.ends_with(deaf) {
                return Ok(());
            }
            fs::write(path, if value == "\0" { "\0".repeat(8) } else { format!("{}\n", value.trim_end()) })
        };
        Roots::at(self.root.path().join("sys"), "/nowhere").with_store(Arc::new(store))
    }

    fn set(&self, source: &Source) -> Vec<String> {
        set(&self.roots(), source).unwrap();
        std::mem::take(&mut self.writes.lock().unwrap())
    }

    fn refuses(&self, source: &Source) -> Error {
        let error = set(&self.roots(), source).unwrap_err();
        assert!(error.hint().is_some(), "{error:?}");
        error
    }

    /// A disk with a device at `below` the devices, and these attributes there.
    fn disk(&self, name: &str, below: &str, attributes: &[(&str, &str)]) {
        let sys = self.root.path().join("sys");
        let device = sys.join("devices").join(below);
        fs::create_dir_all(&device).unwrap();
        attributes.iter().for_each(|(name, text)| fs::write(device.join(name), format!("{text}\n")).unwrap());
        fs::create_dir_all(sys.join("block").join(name)).unwrap();
        symlink(device, sys.join("block").join(name).join("device")).unwrap();
    }
}

#[test]
fn a_channel_device_is_set_with_cleared_memory_and_without_a_menu() {
    let machine = Machine::new();
    let expected = [r#"reipl/ccw/clear "1""#, r#"reipl/ccw/device "0.0.1000""#, r#"reipl/ccw/loadparm "\n""#];
    assert_eq!(machine.set(&ccw()), expected);
    assert_eq!(machine.set(&ccw()), [""; 0], "all of it is so already");
}

#[test]
fn a_lun_is_set_and_the_parameters_of_the_running_system_go() {
    let machine = Machine::new();
    let expected = [
        r#"reipl/fcp/clear "1""#.to_owned(),
        r#"reipl/fcp/device "0.0.1700""#.to_owned(),
        format!("reipl/fcp/wwpn {WWPN:?}"),
        format!("reipl/fcp/lun {LUN:?}"),
        r#"reipl/fcp/bootprog "0""#.to_owned(),
        r#"reipl/fcp/scp_data "\0""#.to_owned(),
        r#"reipl/reipl_type "fcp""#.to_owned(),
    ];
    assert_eq!(machine.set(&fcp()), expected);
}

#[test]
fn attributes_that_only_some_machines_have_may_be_missing() {
    let machine = Machine::new();
    for attribute in
        ["reipl/ccw/parm", "reipl/ccw/loadparm", "reipl/fcp/clear", "reipl/fcp/scp_data", "shutdown_actions/on_reboot"]
    {
        machine.lacks(attribute);
    }
    assert_eq!(machine.set(&fcp()).len(), 5);
    assert_eq!(machine.set(&ccw()).len(), 3);
}

#[test]
fn a_reboot_that_would_do_something_else_is_set_right() {
    let machine = Machine::new();
    machine.has("shutdown_actions/on_reboot", "stop\n");
    assert_eq!(machine.set(&ccw()).last().unwrap(), r#"shutdown_actions/on_reboot "reipl""#);
}

#[test]
fn a_channel_device_is_not_started_with_memory_kept() {
    let machine = Machine::new();
    machine.lacks("reipl/ccw/clear");
    let error = machine.refuses(&ccw());
    assert!(
        error.kind() == Kind::Target && error.to_string().ends_with("reipl/ccw/clear, where \"1\" is wanted"),
        "{error}"
    );
    assert!(machine.writes.lock().unwrap().is_empty());
}

#[test]
fn what_a_machine_does_not_offer_is_named() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("reipl/fcp")).unwrap();
    let error = machine.refuses(&fcp());
    assert!(error.to_string().starts_with("this machine offers no re-IPL of type fcp"), "{error}");
    assert!(error.hint().unwrap().contains("port 0x500507630300c562"));
    fs::remove_dir_all(machine.path("reipl")).unwrap();
    let error = machine.refuses(&ccw());
    assert!(error.kind() == Kind::Target && error.to_string().ends_with("/sys/firmware/reipl"), "{error}");
    let other = Source::Fcp { adapter: "0.1.1700".into(), wwpn: WWPN.into(), lun: LUN.into() };
    assert!(Machine::new().refuses(&other).to_string().contains("subchannel set 0 only"));
}

#[test]
fn an_attribute_that_refuses_is_named_with_what_it_says() {
    for (refusing, source, says) in [
        ("ccw/device", ccw(), r#"writing "0.0.1000" to "#),
        ("fcp/lun", fcp(), r#"writing "0x4010403200000000" to "#),
        ("reipl_type", fcp(), r#"writing "fcp" to "#),
    ] {
        let error = Machine { refusing, ..Machine::new() }.refuses(&source);
        let text = error.to_string();
        assert!(error.kind() == Kind::Device && text.starts_with(says) && text.contains(", which says \""), "{text}");
        assert!(text.ends_with("permission denied"), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_without_a_simulation_too() {
    let machine = Machine::new();
    // As root no mode refuses; a directory does.
    machine.lacks("reipl/ccw/clear");
    fs::create_dir(machine.path("reipl/ccw/clear")).unwrap();
    let roots = Roots::at(machine.root.path().join("sys"), "/nowhere");
    assert!(set(&roots, &ccw()).unwrap_err().to_string().contains("reipl/ccw/clear"));
}

#[test]
fn a_value_that_is_not_taken_is_found_out() {
    for (deaf, source, says) in [
        ("ccw/clear", ccw(), r#"reipl/ccw/clear says "0" after "1" was written"#),
        ("ccw/loadparm", ccw(), r#"reipl/ccw/loadparm says "prompt" after "" was written"#),
        ("fcp/scp_data", fcp(), r#"reipl/fcp/scp_data says "console=ttys0" after "" was written"#),
        ("reipl_type", fcp(), r#"reipl/reipl_type says "ccw" after "fcp" was written"#),
    ] {
        let error = Machine { deaf, ..Machine::new() }.refuses(&source);
        assert!(error.kind() == Kind::Device && error.to_string().ends_with(says), "{error}");
    }
}

#[test]
fn a_controller_with_more_than_the_disk_is_refused_since_firmware_takes_the_first() {
    let machine = Machine::new();
    machine.disk("sda", "css0/0.0.0002/0.0.1000/virtio1/host1/target1:0:0/1:0:0:0", &[]);
    machine.disk("sdb", "css0/0.0.0002/0.0.1000/virtio1/host1/target1:0:1/1:0:1:0", &[]);
    let error = source_of(&machine.roots(), "sdb").unwrap_err();
    assert!(error.to_string().contains("firmware would start the first of 2 disks of a controller"), "{error}");
}

#[test]
fn a_disk_is_found_where_firmware_looks_for_it() {
    let machine = Machine::new();
    let lun = "css0/0.0.0015/0.0.1700/host0/rport-0:0-1/target0:0:1/0:0:1:1077035025";
    machine.disk("sda", lun, &[("hba_id", "0.0.1700"), ("wwpn", WWPN), ("fcp_lun", LUN)]);
    machine.disk("sdb", "css0/0.0.0002/0.0.1000/virtio1/host1/target1:0:0/1:0:0:0", &[("model", "QEMU")]);
    machine.disk("vda", "css0/0.0.0003/0.0.1000/virtio12", &[]);
    machine.disk("dasda", "css0/0.0.0004/0.0.1000", &[]);
    let roots = machine.roots();
    assert_eq!(source_of(&roots, "sda").unwrap(), fcp());
    for name in ["sdb", "vda", "dasda"] {
        assert_eq!(source_of(&roots, name).unwrap(), ccw(), "{name}");
    }
    assert_eq!(fcp().to_string(), "FCP adapter 0.0.1700, port 0x500507630300c562, LUN 0x4010403200000000");
    assert_eq!(ccw().to_string(), "device 0.0.1000");
}

#[test]
fn a_disk_that_firmware_cannot_start_is_named_with_its_place() {
    let machine = Machine::new();
    machine.disk("sda", "pci0000:00/0000:00:01.0/virtio1/host1/target1:0:0/1:0:0:0", &[]);
    machine.disk("sdb", "platform/host2/session1/target2:0:0/2:0:0:1", &[]);
    machine.disk("sdc", "css0/0.0.0015/0.0.1700/host0/0:0:1:1", &[("hba_id", "0.0.1700"), ("wwpn", WWPN)]);
    let refused = |name| {
        let error = source_of(&machine.roots(), name).unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        error.to_string()
    };
    assert!(refused("sda").starts_with("firmware cannot start sda: it is "));
    assert!(refused("sdb").contains("session1") && refused("none").starts_with("looking where the disk none is"));
    assert_eq!(refused("sdc"), "sdc is behind FCP adapter 0.0.1700, but does not say its fcp_lun");
}
