//! Programs of an image's own, run in its root under qemu-user.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::shell::tool;

/// Mounts happen in a namespace of their own, so none can outlive this script, however it ends.
const MOUNTS: &str = r#"
set -eu
root=$1
shift
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
"#;

/// A shell script that finds /dev, /proc and /sys mounted below `$root`; its arguments are `$1` and so on.
pub fn inside<A: AsRef<OsStr>>(root: &Path, script: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut unshare = tool("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{MOUNTS}{script}"), "inside"]);
    unshare.arg(root).args(arguments);
    unshare
}
