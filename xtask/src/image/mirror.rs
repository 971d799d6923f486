//! Where Debian packages come from: asked of this machine's own apt, so that no mirror is named here.

use std::path::Path;
use std::process::Command;

use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::interrupted;
use crate::shell::{capture, line, run, tool};

/// Fills `root` from packages of `suite` by the command that `mmdebstrap` makes of the archive's line. Mirrors move while one
/// reads them, so a failure is tried once more.
pub fn unpack(root: &Path, suite: &str, mmdebstrap: impl Fn(&str) -> Command) -> Outcome<()> {
    let source = format!("deb {} {suite} main", main_archive()?);
    let mut first = mmdebstrap(&source);
    eprintln!("$ {}", line(&first));
    match run(&mut first) {
        Err(fail) if !interrupted() => {
            eprintln!("xtask: {}\nonce more, in case the mirror was being updated", fail.message);
            if root.exists() {
                std::fs::remove_dir_all(root).tried("remove what the first attempt left")?;
            }
            run(&mut mmdebstrap(&source))
        }
        outcome => outcome,
    }
}

/// The mirror this machine gets its main archive from.
///
/// Security and update archives may live elsewhere and carry other suites, so the target whose suite is not a
/// `-security` or `-updates` one is taken.
fn main_archive() -> Outcome<String> {
    let mut apt = tool("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"]);
    let list = capture(&mut apt)?;
    pick(&list).map(str::to_string).ok_or_else(|| {
        Fail::usage(
            "apt knows no Debian mirror on this machine: add one to /etc/apt/sources.list and run apt-get update",
        )
    })
}

fn pick(list: &str) -> Option<&str> {
    let mut lines = list.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, suite)| !suite.contains('-')).map(|(uri, _)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_and_security_are_not_the_main_archive() {
        let list =
            "http://a.example/ bookworm-security\nhttp://b.example/ bookworm\nhttp://c.example/ bookworm-updates\n";
        assert_eq!(pick(list), Some("http://b.example/"));
        assert_eq!(pick("http://c.example/ bookworm-updates\n"), None);
    }
}
