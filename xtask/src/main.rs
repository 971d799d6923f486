//! `cargo xtask`: every chore of the project, one place, no make and no maze of shell scripts.

mod bench;
mod build;
mod cache;
mod cluster;
mod containers;
mod counts;
mod demo;
mod fail;
mod fuzz;
mod image;
mod interrupt;
mod iso;
mod loopdev;
mod openbao;
mod packages;
mod page;
mod peers;
mod prerequisites;
mod python;
mod s390x;
mod scratch;
mod server;
mod shell;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fail::Outcome;
use crate::prerequisites::{Lane, ensure};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of z-provisioner", arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 this machine or the command line is not ready, \
    3 measured and a goal missed, 130 interrupted")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Take a disk image the whole way: pack, sign, serve, stream, verify, write, prove
    Demo(demo::Options),
    /// Build the demo's raw image (or find it in the cache) and print where it is
    Image {
        /// The small image instead of the Debian one
        #[arg(long)]
        quick: bool,
        /// The Debian one whose root belongs inside LUKS; how to pack it is said on standard error
        #[arg(long, conflicts_with = "quick")]
        split: bool,
        /// Build it again even if it is in the cache
        #[arg(long)]
        again: bool,
    },
    /// Build the release programs, for this machine or for s390x
    Build(build::Options),
    /// Build the boot medium for IBM Z
    Iso(iso::Options),
    /// Build the container images of the agent and the service
    Containers(containers::Options),
    /// Run unit, property, documentation and end-to-end tests, and print what ran
    Test(test::Options),
    /// Make the Python environment that tests use (or find it in the cache) and print its interpreter, for Z_PYTHON
    Python,
    /// Fetch OpenBao, which tests keep keys in (or find it in the cache), and print its program, for Z_BAO
    Openbao,
    /// Look at the service's page in a browser, or take its screenshots
    Page(page::Options),
    /// Boot an s390x guest and run the lines of standard input in it
    Guest(vm::Options),
    /// Build a Kubernetes control plane (or find it in the cache) and print where it is
    Cluster,
    /// Record which Debian packages the lanes for s390x and Kubernetes are made of: today's newest
    Lock(packages::Options),
    /// Count the instructions of decoding, reading an index, packing, and compare them with the baseline
    Counts(counts::Options),
    /// Fuzz every reader of untrusted bytes, guided by coverage (needs a nightly toolchain)
    Fuzz(fuzz::Options),
    /// Measure throughput, ours beside the peers'
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = interrupt::take_over().and_then(|()| match cli.chore {
        Chore::Demo(options) => demo::run(&options),
        Chore::Image { quick, split, again } => image(quick, split, again),
        Chore::Build(options) => build::run(&options),
        Chore::Iso(options) => iso::run(&options),
        Chore::Containers(options) => containers::run(&options),
        Chore::Test(options) => test::run(&options),
        Chore::Python => python(),
        Chore::Openbao => openbao(),
        Chore::Page(options) => page::run(&options),
        Chore::Guest(options) => vm::run(&options),
        Chore::Cluster => cluster::run(),
        Chore::Lock(options) => packages::record(&options),
        Chore::Counts(options) => counts::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Bench(options) => bench::run(&options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            eprintln!("xtask: {}", fail.message);
            ExitCode::from(fail.code)
        }
    }
}

fn python() -> Outcome<()> {
    ensure(Lane::Python)?;
    println!("{}", python::ensure()?.display());
    Ok(())
}

fn openbao() -> Outcome<()> {
    ensure(Lane::Python)?;
    println!("{}", openbao::ensure()?.display());
    Ok(())
}

fn image(quick: bool, split: bool, again: bool) -> Outcome<()> {
    let (lane, kind) = match (quick, split) {
        (true, _) => (Lane::DemoQuick, image::Kind::Quick),
        (false, true) => (Lane::Demo, image::Kind::DebianSplit),
        (false, false) => (Lane::Demo, image::Kind::Debian),
    };
    ensure(lane)?;
    let raw = image::raw(kind, again)?;
    if split {
        eprintln!("pack it with: {}", image::split_pack_options().join(" "));
    }
    println!("{}", raw.display());
    Ok(())
}
