//! `cargo xtask build`: the release programs for this machine, or, with `--s390x`, those that belong on IBM Z, and how large they are.

use std::path::PathBuf;

use crate::counts;
use crate::fail::{Fail, Outcome, Tried};
use crate::s390x;
use crate::shell::{cargo, release_binary, run as run_tool, target_folder};

/// The command line of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Options {
    /// For s390x instead: static, and not larger than a boot medium has room for
    #[arg(long)]
    s390x: bool,
}

/// The programs that are released.
pub const PROGRAMS: [&str; 2] = ["imgstream", "z-provisioner"];

/// What each may have for s390x, in bytes. The agent lies in the memory of a machine that boots into it.
const LIMITS: [u64; 2] = [10 << 20, 8 << 20];

/// Builds and says where everything is.
pub fn run(options: &Options) -> Outcome<()> {
    if options.s390x {
        let toolchain = s390x::Toolchain::ensure()?;
        println!("{}", toolchain.versions()?);
        return programs_for_s390x(&toolchain).map(drop);
    }
    programs()?;
    for name in PROGRAMS {
        println!("{}", told(&release_binary(name)?)?);
    }
    Ok(())
}

/// The release programs for this machine.
pub fn programs() -> Outcome<()> {
    run_tool(cargo().args(["build", "--quiet", "--release"]).args(counts::PACKAGES))
}

/// The service for this machine, as tests build it: optimising it takes minutes, and finds nothing more.
pub fn service() -> Outcome<PathBuf> {
    // As the tests of the workspace build it, features included: after them there is nothing left to build. A test program is what makes
    // cargo build the program beside it.
    run_tool(cargo().args(["test", "--quiet", "--workspace", "--no-run", "--test", "descriptors"]))?;
    Ok(target_folder()?.join("debug/z-orchestrator"))
}

/// The release programs for s390x, each within its limit.
pub fn programs_for_s390x(toolchain: &s390x::Toolchain) -> Outcome<[PathBuf; 2]> {
    let mut build = toolchain.release_build()?;
    run_tool(build.args(["--quiet", "-p", "imgstream", "-p", "provisioner", "--bins"]))?;
    for (name, limit) in PROGRAMS.iter().zip(LIMITS) {
        let program = toolchain.release_binary(name)?;
        println!("{}", told(&program)?);
        let size = size(&program)?;
        if size > limit {
            return Err(Fail::new(format!("{name} for s390x is {size} bytes, and may not be more than {limit}")));
        }
    }
    Ok([toolchain.release_binary(PROGRAMS[0])?, toolchain.release_binary(PROGRAMS[1])?])
}

fn told(program: &std::path::Path) -> Outcome<String> {
    Ok(format!("{:5.2} MiB  {}", size(program)? as f64 / f64::from(1 << 20), program.display()))
}

fn size(program: &std::path::Path) -> Outcome<u64> {
    let facts = std::fs::metadata(program).tried(format_args!("look at {}", program.display()))?;
    Ok(facts.len())
}
