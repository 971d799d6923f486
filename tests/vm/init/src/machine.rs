//! What a kernel does not set up by itself, and the channel to the harness.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::unistd::sethostname;

/// The name of the virtio-serial port.
const PORT: &str = "harness";

/// How long the port may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// File system, where it is mounted, options.
const MOUNTS: [(&str, &str, &str); 7] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
];

/// Mounts the kernel's file systems.
pub fn set_up() -> io::Result<()> {
    for (kind, at, options) in MOUNTS {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
            .map_err(|error| io::Error::other(format!("mounting {kind} at {at}: {error}")))?;
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(target, Path::new("/dev").join(link))?;
    }
    fs::create_dir_all("/run/lock")?;
    Ok(sethostname("guest")?)
}

/// Opens the channel.
pub fn channel() -> io::Result<File> {
    let began = Instant::now();
    loop {
        match port()? {
            Some(device) => return File::options().read(true).write(true).open(Path::new("/dev").join(device)),
            None if began.elapsed() > PATIENCE => {
                let message = format!("no virtio-serial port named {PORT} within {PATIENCE:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn port() -> io::Result<Option<std::ffi::OsString>> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
            return Ok(Some(entry.file_name()));
        }
    }
    Ok(None)
}
