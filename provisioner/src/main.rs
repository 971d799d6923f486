//! The command `z-provisioner`. Reads arguments, sets the stage, does what was asked, and says how it ended.

#![forbid(unsafe_code)]

mod command;

use std::path::Path;
use std::process::ExitCode;

use provisioner::{network, supervisor};

/// On the boot medium this program has other names as well: that of the first process, and that of udhcpc's script.
fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if supervisor::is_first_process(&name) {
        supervisor::main();
    }
    if Path::new(&name).file_name().is_some_and(|name| name == "lease") {
        return network::lease_script();
    }
    command::main()
}
