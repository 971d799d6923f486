//! Devices: udev, and multipathd, which listens to it and makes no map without. Drivers are loaded as devices ask for them, and the
//! kernel asks for the rest when it is used (ciphers, ESP, targets of the device mapper).
//!
//! Nobody waits here until all devices are there: the agent waits for those it needs, with a limit and a sentence for each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Trouble;
use super::children::Children;

/// What is needed before anybody asks for it: multipathd looks for both when it starts.
const MODULES: [&str; 2] = ["dm-mod", "dm-multipath"];

/// What may have been there before udev was: everything that a disk or a network lies behind. What appears later says so itself.
const SUBSYSTEMS: [&str; 5] = ["ccw", "virtio", "scsi", "block", "net"];

/// How long loading and asking may take.
const LIMIT: Duration = Duration::from_secs(60);
const STARTING: Duration = Duration::from_secs(10);

const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";
const UDEVADM: &str = "/usr/bin/udevadm";
const MODPROBE: &str = "/usr/sbin/modprobe";
const MULTIPATHD: &str = "/usr/sbin/multipathd";

/// Brings them up.
pub fn bring_up(children: &mut Children) -> Result<(), Trouble> {
    children.run(MODPROBE, &[&["-a"], MODULES.as_slice()].concat(), LIMIT)?;
    children.start_silently(UDEVD, &["--resolve-names=never"])?;
    // Before its control socket is there, events are for nobody.
    wait_for(Path::new("/run/udev/control"), "systemd-udevd")?;
    let subsystems: Vec<String> = SUBSYSTEMS.iter().map(|name| format!("--subsystem-match={name}")).collect();
    let trigger: Vec<&str> =
        ["trigger", "--action=add"].into_iter().chain(subsystems.iter().map(String::as_str)).collect();
    children.run(UDEVADM, &trigger, LIMIT)?;
    children.start_silently(MULTIPATHD, &["-d", "-s"])?;
    Ok(())
}

fn wait_for(path: &Path, whose: &str) -> Result<(), Trouble> {
    let rounds = STARTING.as_millis() / 20;
    for _ in 0..rounds {
        if fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = STARTING.as_secs();
    Err(Trouble::new(
        format!("{whose} has not started within {seconds} s"),
        "IPL again; if it stays so, make the medium anew",
    ))
}
