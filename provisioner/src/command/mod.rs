//! The commands: their arguments, and how each is begun and ended. What they do lives in the library.

mod boot;
mod config;
mod erase;
mod lun;
mod orchestrated;
mod run;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use imgstream::error::{IoContext, Kind, Result};
use provisioner::luks::Key;
use provisioner::report::{Screen, failure, text};
use provisioner::target::fcp::{Fabric, Listing};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  usage: the command line or the run spec makes no sense
  3  image refused: signature, policy or format
  4  target refused: safety, size or identity
  5  source or network failed, corrupt chunks included
  6  device I/O error
  7  proof failed: the media do not hold what was written
  8  cancelled

docs/operating.md says what to do about each.";

#[derive(Parser)]
#[command(name = "z-provisioner", version, about = "Puts a signed image onto a server's disk, proves it, and is gone")]
#[command(after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Does one run: verify the image, write it to the target, read it back
    #[command(after_help = EXIT_CODES)]
    Run(run::Args),
    /// Makes a returned disk forget: overwrites LUKS headers and key slots, zeroes the disk, and proves it
    #[command(after_help = EXIT_CODES)]
    Erase(erase::Args),
    /// Makes a run's key: 32 random bytes as text that can be typed, in a new file only its owner may read
    #[command(after_help = EXIT_CODES)]
    Keygen(KeygenArgs),
    /// Checks what a machine that boots the medium is to do, and puts it into the medium
    #[command(after_help = EXIT_CODES)]
    Config(config::Args),
    /// What the first process of the medium starts: joins the network and does the configured run
    #[command(hide = true)]
    Boot(boot::Args),
    /// Shows the FCP channels of this machine, their ports and LUNs. Changes nothing
    Adapters(AdaptersArgs),
    /// Shows who has registered with a LUN and reserved it, and removes what a run has left there
    #[command(after_help = EXIT_CODES)]
    ReleaseReservation(lun::Args),
}

#[derive(clap::Args)]
struct KeygenArgs {
    /// The file to make
    file: PathBuf,
}

#[derive(clap::Args)]
struct AdaptersArgs {
    /// Write them to stdout, as one JSON object
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Whether machines read stdout, and how much is said to people.
    fn voice(&self) -> (bool, u8) {
        match self {
            Command::Run(args) => (args.json, args.verbose),
            Command::Erase(args) => (args.json, args.verbose),
            Command::ReleaseReservation(args) => (args.json, 0),
            Command::Adapters(args) => (args.json, 0),
            Command::Boot(_) | Command::Config(_) | Command::Keygen(_) => (false, 0),
        }
    }

    fn carry_out(&self, screen: &Screen) -> Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(args, screen),
            Command::Erase(args) => erase::erase(args, screen),
            Command::Keygen(args) => keygen(args, screen),
            Command::Config(args) => config::run(args, screen),
            Command::Boot(args) => boot::run(args),
            Command::Adapters(args) => show_adapters(args, screen),
            Command::ReleaseReservation(args) => lun::release_reservation(args, screen),
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let command = Args::parse().command;
    let (json, verbose) = command.voice();
    // Bars and JSON lines on one terminal would tear each other.
    let bars = std::io::stderr().is_terminal() && !(json && std::io::stdout().is_terminal());
    let screen = Screen::new(bars);
    match command.carry_out(&screen) {
        Ok(code) => code,
        // No run came to be, so there are no events to tell it by.
        Err(error) => {
            let failure = failure::before_the_run(&error);
            let told = if matches!(command, Command::Run(_)) { text::failed } else { text::error };
            screen.lines(&told(&failure, verbose > 0));
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn keygen(args: &KeygenArgs, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    Key::generate()?.write_new(&args.file)?;
    screen.lines(&format!("a new key is in {}; whoever unlocks the disk types its line", args.file.display()));
    Ok(ExitCode::SUCCESS)
}

fn show_adapters(args: &AdaptersArgs, screen: &Screen) -> Result<ExitCode> {
    let listing = Listing(Fabric::default().adapters()?);
    if args.json {
        println!("{}", listing.to_json());
    } else {
        screen.lines(&listing.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context(Kind::Device, || "starting the runtime".into())
}

/// Registry credentials and the disk's key pass through the memory of this process, and the key through that of tools: neither may
/// land in a core file. Tools inherit the limit and not the flag. Of 1 byte, and not 0, because that alone also stops dumps that are
/// piped to a handler such as systemd-coredump (the kernel's fs/coredump.c). Where the limit is 0 already and we may not raise it, it
/// stays 0.
fn no_core_dumps() -> Result<()> {
    use nix::sys::{prctl, resource};
    let limit = |bytes| resource::setrlimit(resource::Resource::RLIMIT_CORE, bytes, bytes);
    let off = limit(1).or_else(|_| limit(0)).and_then(|()| prctl::set_dumpable(false));
    off.context(Kind::Device, || "turning core dumps off".into())
}
