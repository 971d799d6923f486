//! The real kernel's policies, in network namespaces of their own.

#![allow(clippy::unwrap_used)]

mod block;
mod kernel;

use std::process::Command;

/// Says that this is the process inside of a namespace.
const INSIDE: &str = "Z_TEST_IN_A_NAMESPACE";

/// Runs the test of this name once more, in a new network namespace after `set_up`, as root of a user namespace.
fn in_a_namespace(test: &str, set_up: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let script = format!("set -e; {set_up}\nexec \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("unshare");
    let ended = command.args(["-rn", "sh", "-c", &script]).arg(program).env(INSIDE, "1").output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    false
}
