//! The command `z-provisioner`. Reads arguments, sets the stage, does what was asked, and says how it ended.

#![forbid(unsafe_code)]

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
