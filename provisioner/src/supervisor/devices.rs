//! Devices: modules, udev, multipathd. udev because multipathd listens to it, and makes no map without.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Trouble;
use super::children::Children;
use super::console::Console;

/// Loaded for all: what no device asks for. What one does ask for is udev's business.
const MODULES: [&str; 9] =
    ["dm-mod", "dm-multipath", "dm-crypt", "xts", "algif_skcipher", "sd_mod", "scsi_dh_alua", "xfrm_user", "esp4"];

/// Loaded where the machine has a use for them; a kernel that has not refuses.
const WISHED: [&str; 3] = ["zfcp", "esp6", "aes_s390"];

/// How long devices may take to settle. A storage network that does not answer is the agent's to explain.
const SETTLING: Duration = Duration::from_secs(120);
const LOADING: Duration = Duration::from_secs(60);

const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";
const UDEVADM: &str = "/usr/bin/udevadm";
const MODPROBE: &str = "/usr/sbin/modprobe";

/// Brings them up.
pub fn bring_up(children: &mut Children, console: &Console) -> Result<(), Trouble> {
    // udev's rules for disks run the coldplug's work in parallel; modules first, so that its events find drivers.
    children.run(MODPROBE, &[&["-a"], MODULES.as_slice()].concat(), LOADING)?;
    for module in WISHED {
        let loading = children.start_silently(MODPROBE, &["-q", module])?;
        children.wait(loading, Some(LOADING));
    }
    children.start_silently(UDEVD, &["--resolve-names=never"])?;
    // Its control socket: before it is there, triggers are for nobody.
    wait_for(Path::new("/run/udev/control"), "systemd-udevd")?;
    children.run(UDEVADM, &["trigger", "--type=subsystems", "--action=add"], LOADING)?;
    children.run(UDEVADM, &["trigger", "--type=devices", "--action=add"], LOADING)?;
    let seconds = format!("--timeout={}", SETTLING.as_secs());
    let settling = children.start_silently(UDEVADM, &["settle", &seconds])?;
    if children.wait(settling, Some(SETTLING + LOADING)) != Some(0) {
        console.say("devices have not settled; going on with what is there");
    }
    children.start_silently("/usr/sbin/multipathd", &["-d", "-s"])?;
    Ok(())
}

fn wait_for(path: &Path, whose: &str) -> Result<(), Trouble> {
    for _ in 0..500 {
        if fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Trouble::new(
        format!("{whose} has not started within 10 s"),
        "the medium is damaged: make it anew, and IPL again",
    ))
}
