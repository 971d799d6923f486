//! Control groups: a command that gets only so much of a device or of the processors.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::command::{Run, tool};
use crate::loopdev::demand_root;

const ROOT: &str = "/sys/fs/cgroup";

/// A control group of its own. Removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// One that writes at most `bytes` per second to a device.
    ///
    /// # Panics
    /// When there are no control groups for that.
    pub fn with_writes_of(device: &Path, bytes: u64) -> Self {
        let number = fs::metadata(device).expect("the device").rdev();
        let number = format!("{}:{}", libc::major(number), libc::minor(number));
        Self::limited(
            ("blkio", "blkio.throttle.write_bps_device", format!("{number} {bytes}")),
            ("io", "io.max", format!("{number} wbps={bytes}")),
        )
    }

    /// One that gets so many percent of one core.
    ///
    /// # Panics
    /// When there are no control groups for that.
    pub fn with_cores(percent: u64) -> Self {
        // Short periods: a run of a tenth of a second shall feel it, too.
        let (quota, period) = (percent * 100, 10_000);
        let group = Self::limited(
            ("cpu", "cpu.cfs_period_us", period.to_string()),
            ("cpu", "cpu.max", format!("{quota} {period}")),
        );
        let quota_file = group.0.join("cpu.cfs_quota_us");
        if quota_file.exists() {
            fs::write(quota_file, quota.to_string()).expect("limiting the processors");
        }
        group
    }

    /// Version 1 has a tree per controller, version 2 one for all; each with its own file and words.
    fn limited(one: (&str, &str, String), two: (&str, &str, String)) -> Self {
        demand_root();
        let name = format!("e2e-{}-{:?}", std::process::id(), std::thread::current().id());
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let unified = Path::new(ROOT).join("cgroup.controllers");
        let (parent, (controller, file, text)) = if unified.exists() {
            let (controller, ..) = two;
            let enabled = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"));
            enabled.unwrap_or_else(|error| panic!("{}", remedy(controller, &error)));
            (PathBuf::from(ROOT), two)
        } else {
            (Path::new(ROOT).join(one.0), one)
        };
        let group = Cgroup(parent.join(name));
        fs::create_dir(&group.0).unwrap_or_else(|error| panic!("{}", remedy(controller, &error)));
        fs::write(group.0.join(file), text).unwrap_or_else(|error| panic!("{}", remedy(controller, &error)));
        group
    }

    /// A command in it from its beginning.
    pub fn run(&self, binary: &Path) -> Run {
        let enter = r#"echo $$ > "$1" && shift && exec "$@""#;
        let members = self.0.join("cgroup.procs");
        Run::tool("sh").args(["-c", enter, "sh"]).arg(members).arg(binary)
    }

    /// `imgstream` in it.
    pub fn imgstream(&self) -> Run {
        drop(tool("sh"));
        self.run(&crate::command::binary("imgstream", "IMGSTREAM_BIN"))
    }
}

fn remedy(controller: &str, error: &std::io::Error) -> String {
    format!(
        "no control group for {controller} ({error}): these tests need {ROOT}, version 1 or 2, writable, with the controllers \
         cpu and blkio or io (in a container: --privileged --cgroupns=host)"
    )
}

impl Drop for Cgroup {
    /// A group can be removed when its last process is gone, which takes the kernel a moment.
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} stays", self.0.display());
    }
}
