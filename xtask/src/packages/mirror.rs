//! Where Debian packages come from: asked of this machine's own apt, so that no mirror is named here.

use crate::fail::{Fail, Outcome};
use crate::interrupt::interrupted;
use crate::shell::{capture, tool};

/// Does it for the suite by its code name and, unless that works or somebody interrupted, by its alias: mirrors that cache may have
/// an index under one name that does not fit the release file under that name, and be consistent under the other.
pub fn by_either_name<T>(suite: &'static str, mut attempt: impl FnMut(&'static str) -> Outcome<T>) -> Outcome<T> {
    match attempt(suite) {
        Err(fail) if !interrupted() => {
            let alias = alias(suite);
            eprintln!("xtask: {}\nonce more, asking for {alias}, in case the mirror is being updated", fail.message);
            attempt(alias)
        }
        outcome => outcome,
    }
}

/// The other name of a suite.
fn alias(suite: &'static str) -> &'static str {
    match suite {
        "bookworm" => "oldstable",
        "trixie" => "stable",
        "sid" => "unstable",
        other => other,
    }
}

/// The mirror this machine gets its main archive from.
///
/// Security and update archives may live elsewhere and carry other suites, so the target whose suite is not a
/// `-security` or `-updates` one is taken.
pub fn main_archive() -> Outcome<String> {
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
