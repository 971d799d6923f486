//! The command `z-provisioner`. Reads arguments, sets the stage, does what was asked, and says how it ended.

#![forbid(unsafe_code)]

mod command;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "lease") {
        return provisioner::network::lease_script();
    }
    command::main()
}
