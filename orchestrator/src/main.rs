//! The command `z-orchestrator`. Reads arguments, does what was asked, and says how it ended.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    orchestrator::command::main()
}
