//! The command `z-provisioner`. Reads arguments, sets the stage, does what was asked, and says how it ended.

#![forbid(unsafe_code)]

mod command;

use std::process::ExitCode;

use provisioner::supervisor;

fn main() -> ExitCode {
    if std::env::args().next().is_some_and(|name| supervisor::is_first_process(&name)) {
        supervisor::main();
    }
    command::main()
}
