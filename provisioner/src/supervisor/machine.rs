//! What a kernel does not set up by itself: its file systems, randomness; and whether the medium is whole.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount as mount_one};
use nix::unistd::sethostname;

use super::Trouble;

/// File system, where it is mounted, options.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
];

/// How long the kernel may take to gather randomness.
const RANDOMNESS: Duration = Duration::from_secs(60);

const REMEDY: &str =
    "the medium is damaged, or was changed: compare it with its SHA-256, upload or burn it again, and IPL again";

/// Mounts the kernel's file systems.
pub fn mount() -> Result<(), Trouble> {
    for (kind, at, options) in MOUNTS {
        let mounted = fs::create_dir_all(at).map_err(|error| error.to_string()).and_then(|()| {
            let flags = MsFlags::MS_NOSUID;
            mount_one(Some(kind), at, Some(kind), flags, Some(options)).map_err(|error| error.to_string())
        });
        mounted.map_err(|error| Trouble::new(format!("mounting {kind} at {at}: {error}"), REMEDY))?;
    }
    let links = [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (link, target) in links {
        // A kernel that makes them itself has done so.
        let _ = symlink(target, Path::new("/dev").join(link));
    }
    let made = fs::create_dir_all("/run/lock").and_then(|()| fs::create_dir_all("/run/cryptsetup"));
    made.map_err(|error| Trouble::new(format!("making folders in /run: {error}"), REMEDY))?;
    let _ = sethostname("z-provisioner");
    Ok(())
}

/// What the seal says: it is unpacked after everything else, so where it is, the kernel has unpacked everything and found the
/// checksum right.
pub fn seal() -> Result<String, Trouble> {
    let path = Path::new("/").join(iso::SEAL);
    let text = fs::read_to_string(path).map_err(|_| {
        let said =
            "the kernel could not unpack all of the medium (its own words: `dmesg`, \"Initramfs unpacking failed\")";
        Trouble::new(said, REMEDY)
    })?;
    Ok(text.trim_end().to_owned())
}

/// The running kernel's release.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_owned()
}

/// What the kernel was told.
pub fn command_line() -> String {
    fs::read_to_string("/proc/cmdline").unwrap_or_default()
}

/// Keys are made from the kernel's randomness: nothing begins before it has some.
pub fn wait_for_randomness() -> Result<(), Trouble> {
    let since = Instant::now();
    let nonblocking = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/random");
    let mut source = nonblocking.map_err(|error| Trouble::new(format!("opening /dev/random: {error}"), REMEDY))?;
    loop {
        match source.read(&mut [0]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && since.elapsed() < RANDOMNESS => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                let what = format!("the kernel has no randomness after {} s: {error}", since.elapsed().as_secs());
                return Err(Trouble::new(
                    what,
                    "give the machine a source of it (CPACF's TRNG, virtio-rng), and IPL again",
                ));
            }
        }
    }
}
