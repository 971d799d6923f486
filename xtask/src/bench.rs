//! The benchmarks: release builds of everything, then the `benches` crate with the arguments as given; without any, it
//! measures everything. The peers are installed first, unless what is measured has none.

use std::process::Command;

use crate::fail::{Fail, Outcome};
use crate::peers;
use crate::prerequisites::{Lane, ensure};
use crate::shell::{cargo, line, release_binary, run as run_tool, status};
use crate::vm;

/// The command line of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to the benchmarks as they are (--help tells them); without any: everything
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// What says that no peer will be run.
const WITHOUT_PEERS: [&str; 8] = ["scaling", "resume", "pack", "memory", "service", "help", "--help", "-h"];

/// The exit code of the benchmarks when everything was measured and something missed its goal.
const MISSED: i32 = 3;

/// Builds and runs the benchmarks.
pub fn run(options: &Options) -> Outcome<()> {
    if is_in_guest(&options.arguments) {
        return in_guest(&options.arguments);
    }
    if is_of_service(&options.arguments) {
        return of_service(&options.arguments);
    }
    ensure(Lane::Bench)?;
    let mut build = cargo();
    run_tool(build.args(["build", "--release", "-p", "imgstream", "-p", "provisioner", "-p", "benches"]))?;
    let mut bench = benches(&options.arguments);
    bench.env("IMGSTREAM_BIN", release_binary("imgstream")?);
    bench.env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
    if has_peers(&options.arguments) {
        let peers = peers::install()?;
        bench.env("PATH", peers.path).env("BENCHES_NOT_INSTALLED", peers.missing);
    }
    measure(bench)
}

/// The same for what is measured in a guest, which needs other things.
fn in_guest(arguments: &[String]) -> Outcome<()> {
    let mut bench = benches(arguments);
    vm::provide(&mut bench)?;
    measure(bench)
}

/// The same for the orchestrating service, which needs nothing but itself. It is built alone: what it needs of the crates that it shares
/// must not get into other programs.
fn of_service(arguments: &[String]) -> Outcome<()> {
    run_tool(cargo().args(["build", "--release", "-p", "orchestrator"]))?;
    run_tool(cargo().args(["build", "--release", "-p", "benches"]))?;
    let mut bench = benches(arguments);
    bench.env("Z_ORCHESTRATOR_BIN", release_binary("z-orchestrator")?);
    measure(bench)
}

fn benches(arguments: &[String]) -> Command {
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--release", "-p", "benches", "--"]).args(arguments);
    bench
}

fn is_in_guest(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|word| word == "guest")
}

fn is_of_service(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|word| word == "service")
}

fn measure(mut bench: Command) -> Outcome<()> {
    eprintln!("$ {}", line(&bench));
    let ended = status(&mut bench)?;
    match ended.code() {
        Some(0) => Ok(()),
        Some(MISSED) => Err(Fail { message: "measured; what missed its goal is named above".into(), code: 3 }),
        _ => Err(Fail::new(format!("the benchmarks failed ({ended}); their own message is above"))),
    }
}

fn has_peers(arguments: &[String]) -> bool {
    !arguments.iter().any(|argument| WITHOUT_PEERS.contains(&argument.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_for_the_comparison_alone() {
        let told = |words: &[&str]| has_peers(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert!(told(&[]) && told(&["write", "--quick"]) && told(&["--size", "1GiB"]));
        assert!(!told(&["pack"]) && !told(&["write", "--help"]) && !told(&["service", "--agents", "100"]));
    }
}
