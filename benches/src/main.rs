//! Throughput benchmarks: `imgstream` beside the peers and beside what the machine's parts can do alone.
//!
//! The benchmarks drive command lines and link nothing of what they measure. `imgstream` is the one beside this
//! executable, or the one named by `IMGSTREAM_BIN`. Progress goes to stderr, the result to stdout.
//!
//! Exit codes: 0 measured and within every budget, 1 could not measure, 2 usage, 3 measured and a budget missed,
//! 130 interrupted.

mod children;
mod failure;
mod lab;
mod limits;
mod machine;
mod measure;
mod memory;
mod ours;
mod pack;
mod peers;
mod report;
mod server;
mod stats;
mod subject;
mod target;
mod tools;
mod units;
mod way;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Result;
use crate::lab::Options;
use crate::report::Report;

/// Throughput benchmarks of imgstream, beside its peers.
#[derive(Parser)]
#[command(
    name = "benches",
    after_help = "IMGSTREAM_BIN names the imgstream to measure; without it, the one beside this program.\n\
    Exit codes: 0 measured, within budget; 1 could not measure; 2 usage; 3 a budget was missed; 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A verified write from HTTP to an O_DIRECT file, beside curl | zstd -dc | dd, and the limits
    Write(write::Write),
    /// Peak memory of pack and write for images from 1 GiB to 1 TiB
    Memory(memory::Memory),
    /// Packing beside zstd -T0
    Pack(pack::Pack),
    #[command(hide = true)]
    Tally { result: PathBuf, job: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = children::end_children_on_signals() {
        eprintln!("benches: {e}");
        return ExitCode::from(1);
    }
    match dispatch(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(e) => {
            eprintln!("benches: {e}");
            ExitCode::from(if children::interrupted() { 130 } else { 1 })
        }
    }
}

/// Runs one command; `false` means that a budget was missed.
fn dispatch(command: &Command) -> Result<bool> {
    match command {
        Command::Write(options) => publish(&write::run(options)?, &options.options),
        Command::Memory(options) => publish(&memory::run(options)?, &options.options),
        Command::Pack(options) => publish(&pack::run(options)?, &options.options),
        Command::Tally { result, job } => measure::tally(result, job).map(|()| true),
    }
}

fn publish(report: &Report, options: &Options) -> Result<bool> {
    println!("{}", if options.markdown { report.markdown() } else { report.text() });
    if let Some(path) = &options.json {
        report.save(path)?;
    }
    Ok(report.missed.is_empty())
}
