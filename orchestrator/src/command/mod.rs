//! The command line: arguments, a module per group of commands, and how all of it is shown.
//!
//! People read stderr; what was asked for is on stdout, with `--json` as one object per line.

mod certificate;
mod logging;
mod run;
mod screen;
mod serve;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Context, Error, Kind, Result};
use screen::Screen;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  usage: the command line, the configuration or a file makes no sense
  4  refused by the service, or because it would not be safe
  5  the service was not reached, or cannot do it now
  6  this machine failed: a file, a folder
  8  interrupted

`run watch` and `run create --watch` end with what became of the run: 0 succeeded, 8 cancelled, else its agent's exit
code, or 1 where it has none. docs/operating.md says what to do about each.";

#[derive(Parser)]
#[command(
    name = "z-orchestrator",
    version,
    about = "Schedules runs of z-provisioner, and says what each is waiting for"
)]
#[command(after_help = EXIT_CODES, max_term_width = 120)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service
    #[command(after_help = EXIT_CODES)]
    Serve(serve::Args),
    /// Asks a service about its runs, and to do something with them
    #[command(after_help = EXIT_CODES)]
    Run(Box<run::Args>),
    /// Issues a client certificate for a person, by the authority of a service
    #[command(after_help = EXIT_CODES)]
    Certificate(certificate::Args),
    /// Writes a script to stdout that completes this command's arguments in a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    fn verbose(&self) -> u8 {
        match self {
            Command::Serve(args) => args.verbose,
            Command::Run(args) => args.verbose(),
            Command::Certificate(_) | Command::Completions { .. } => 0,
        }
    }

    fn carry_out(&self, screen: &Screen) -> Result<ExitCode> {
        match self {
            Command::Serve(args) => serve::run(args, screen),
            Command::Run(args) => run::run(args, screen),
            Command::Certificate(args) => certificate::run(args, screen),
            Command::Completions { shell } => completions(*shell),
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let command = Args::parse().command;
    let screen = Screen::of_this_process();
    command.carry_out(&screen).unwrap_or_else(|error| {
        screen.lines(&error.lines());
        if command.verbose() > 0 {
            error.causes().iter().for_each(|cause| screen.lines(&format!("  caused by: {cause}")));
        }
        ExitCode::from(error.kind().exit_code())
    })
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "z-orchestrator", &mut script);
    on_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what was asked for.
fn on_stdout(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Interrupted, "whoever read the output is gone"))
        }
        written => written.doing(|| "writing to stdout".into()),
    }
}

/// Tokens and keys pass through the memory of this process: it leaves no core file. Of 1 byte, and not 0, because that alone also stops
/// dumps that are piped to a handler such as systemd-coredump. Where the limit is 0 already and we may not raise it, it stays 0.
fn no_core_dumps() -> Result<()> {
    use nix::sys::{prctl, resource};
    let limit = |bytes| resource::setrlimit(resource::Resource::RLIMIT_CORE, bytes, bytes);
    let off = limit(1).or_else(|_| limit(0)).and_then(|()| prctl::set_dumpable(false));
    off.doing(|| "turning core dumps off".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Args::command().debug_assert();
    }
}
