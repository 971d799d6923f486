//! The command `z-orchestrator`.
fn main() {}
