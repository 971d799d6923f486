//! Throughput benchmarks: `imgstream` beside the peers and beside what the machine's parts can do alone.
//!
//! The benchmarks drive command lines and link nothing of what they measure. `imgstream` is the one beside this
//! executable, or the one named by `IMGSTREAM_BIN`. Progress goes to stderr, the result to stdout.
//!
//! Exit codes: 0 measured and within every budget, 1 could not measure, 2 usage, 3 measured and a budget missed,
//! 130 interrupted.

mod all;
mod children;
mod failure;
mod guest;
mod lab;
mod limits;
mod machine;
mod measure;
mod memory;
mod ours;
mod pack;
mod peers;
mod report;
mod resume;
mod scaling;
mod server;
mod service;
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

/// Throughput benchmarks of imgstream, beside its peers. Without a command: all of them.
#[derive(Parser)]
#[command(
    name = "benches",
    args_conflicts_with_subcommands = true,
    after_help = "IMGSTREAM_BIN names the imgstream to measure; without it, the one beside this program.\n\
    Exit codes: 0 measured, within budget; 1 could not measure; 2 usage; 3 a budget was missed; 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: all::All,
}

#[derive(Subcommand)]
enum Command {
    /// Every benchmark below, one after the other; the image of the peer comparison is then 4 GiB
    All(all::All),
    /// A verified write from HTTP to a file, beside every peer and beside the limit
    Write(write::Write),
    /// From one core to all: our gain beside that of independent decoders
    Scaling(scaling::Scaling),
    /// A target that holds the image already: --resume beside device read and SHA-256
    Resume(resume::Resume),
    /// Packing beside zstd -T0
    Pack(pack::Pack),
    /// Peak memory and time of pack and write for images from 1 GiB to 1 TiB
    Memory(memory::Memory),
    /// The orchestrating service under load: agents that report, and those who watch them
    Service(service::Service),
    /// In an emulated guest: dm-crypt beside the plain device, two paths beside one
    Guest(guest::OfGuest),
    #[command(hide = true)]
    Tally { result: PathBuf, job: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = children::end_children_on_signals() {
        eprintln!("benches: {e}");
        return ExitCode::from(1);
    }
    let command = cli.command.unwrap_or(Command::All(cli.all));
    match dispatch(&command) {
        _ if children::interrupted() => {
            eprintln!("benches: interrupted");
            ExitCode::from(130)
        }
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(e) => {
            eprintln!("benches: {e}");
            ExitCode::from(1)
        }
    }
}

/// Runs one command; `false` means that a budget was missed.
fn dispatch(command: &Command) -> Result<bool> {
    match command {
        Command::All(options) => all(options),
        Command::Write(options) => one(write::run(options)?, &options.options),
        Command::Scaling(options) => one(scaling::run(options)?, &options.options),
        Command::Resume(options) => one(resume::run(options)?, &options.options),
        Command::Pack(options) => one(pack::run(options)?, &options.options),
        Command::Memory(options) => one(memory::run(options)?, &options.options),
        Command::Service(options) => one(service::run(options)?, &options.options),
        Command::Guest(options) => one(guest::run(options)?, &options.options),
        Command::Tally { result, job } => measure::tally(result, job).map(|()| true),
    }
}

fn one(report: Report, options: &Options) -> Result<bool> {
    show(&report, options);
    publish(&[report], options)
}

/// Every report is shown, and all so far are saved, as soon as there is another: an interruption loses only what it
/// interrupts.
fn all(options: &all::All) -> Result<bool> {
    let (mut reports, mut within) = (Vec::new(), true);
    all::run(options, |report| {
        show(&report, &options.options);
        reports.push(report);
        within = publish(&reports, &options.options)?;
        Ok(())
    })?;
    Ok(within)
}

fn show(report: &Report, options: &Options) {
    println!("{}", if options.markdown { report.markdown() } else { report.text() });
}

fn publish(reports: &[Report], options: &Options) -> Result<bool> {
    if let Some(path) = &options.json {
        report::save(path, reports)?;
    }
    Ok(reports.iter().all(|report| report.missed.is_empty()))
}
