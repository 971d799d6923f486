//! The benchmarks: release builds of everything, then the `benches` crate with the arguments as given.

use crate::fail::Outcome;
use crate::prerequisites::{Lane, ensure};
use crate::shell::{cargo, line, release_binary, run as run_tool};

/// The command line of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to the benchmarks as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Builds and runs the benchmarks.
pub fn run(options: &Options) -> Outcome<()> {
    ensure(Lane::Bench)?;
    let mut build = cargo();
    run_tool(build.args(["build", "--release", "-p", "imgstream", "-p", "provisioner", "-p", "benches"]))?;
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--release", "-p", "benches", "--"]).args(&options.arguments);
    bench.env("IMGSTREAM_BIN", release_binary("imgstream")?);
    bench.env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
    eprintln!("$ {}", line(&bench));
    run_tool(&mut bench)
}
