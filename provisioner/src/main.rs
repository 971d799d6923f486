//! The command `z-provisioner`. Reads arguments, sets the stage, runs, and says how it ended.

#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use imgstream::error::{IoContext, Kind, Result};
use provisioner::phase::spec::{self, Files};
use provisioner::report::{Human, Json, Output, Reporter, Screen, failure, text};
use provisioner::target::fcp::{Fabric, Listing};
use provisioner::{erase, logging, run, signals};
use tokio_util::sync::CancellationToken;

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
    Run(RunArgs),
    /// Makes a returned disk forget: overwrites LUKS headers and key slots, zeroes the disk, and proves it
    #[command(after_help = EXIT_CODES)]
    Erase(EraseArgs),
    /// Shows the FCP channels of this machine, their ports and LUNs. Changes nothing
    Adapters(AdaptersArgs),
}

#[derive(clap::Args)]
struct AdaptersArgs {
    /// Write them to stdout, as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct EraseArgs {
    /// The disk: a whole block device, or a regular file. All it holds is lost
    device: PathBuf,
    /// Only tell the device that nobody needs its blocks. The keys are overwritten all the same; nothing else is proven
    #[arg(long)]
    discard: bool,
    /// Write the result to stdout, as one JSON object
    #[arg(long)]
    json: bool,
    /// Say more: causes of errors
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(clap::Args)]
struct RunArgs {
    /// The run spec: which image, which target (JSON)
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Write events to stdout, one JSON object per line
    #[arg(long)]
    json: bool,
    /// Certificates (PEM) to trust for https:// and oci:// instead of the machine's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Registry credentials, in the format of docker's config.json
    #[arg(long, value_name = "FILE")]
    registry_auth: Option<PathBuf>,
    /// Say more: causes of errors and what the data path does (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    let command = Args::parse().command;
    let (json, verbose) = match &command {
        Command::Run(args) => (args.json, args.verbose),
        Command::Erase(args) => (args.json, args.verbose),
        Command::Adapters(args) => (args.json, 0),
    };
    // Bars and JSON lines on one terminal would tear each other.
    let bars = std::io::stderr().is_terminal() && !(json && std::io::stdout().is_terminal());
    let screen = Screen::new(bars);
    let done = match &command {
        Command::Run(args) => provision(args, &screen),
        Command::Erase(args) => erase_disk(args, &screen),
        Command::Adapters(args) => show_adapters(args, &screen),
    };
    match done {
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

fn erase_disk(args: &EraseArgs, screen: &Screen) -> Result<ExitCode> {
    let _bridge = logging::start(screen, args.verbose);
    let runtime = runtime()?;
    let erased = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let (tell, last) = (screen.clone(), screen.clone());
        let ended = move || last.lines("error: ended at once; the disk is erased in part: erase it again");
        signals::listen(&cancel, move |message| tell.lines(&message), ended)?;
        erase::watched(&args.device, args.discard, screen, &cancel).await
    });
    // A thread that hangs in the kernel must not keep this from saying so.
    runtime.shutdown_background();
    let erased = erased?;
    if args.json {
        println!("{}", erased.to_json());
    }
    screen.lines(&erased.to_string());
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

fn provision(args: &RunArgs, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    imgstream::sink::report_file_size_limit().context(Kind::Device, || "blocking SIGXFSZ".into())?;
    let bridge = logging::start(screen, args.verbose);
    let spec = spec::read(&args.spec)?;
    let files = Files { ca: args.ca.clone(), registry_auth: args.registry_auth.clone() };
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), args.verbose > 0))];
    if args.json {
        outputs.push(Box::new(Json::new(std::io::stdout(), screen.clone())));
    }
    let reporter = Arc::new(Reporter::new(spec.run.clone(), 1, outputs));
    bridge.connect(&reporter);
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let cancel = CancellationToken::new();
        signals::watch(&reporter, &cancel)?;
        Ok(ExitCode::from(run::attempt(&spec, &files, &reporter, &cancel).await))
    });
    // A thread that hangs in the kernel must not keep a run that has ended from saying so.
    runtime.shutdown_background();
    code
}

/// Registry credentials pass through this process's memory, and the disk's key will: neither may land in a core file. The
/// limit stops the kernel's own files; a dump piped to a handler (systemd-coredump) ignores it, and only the flag stops that.
fn no_core_dumps() -> Result<()> {
    use nix::sys::{prctl, resource};
    let off = resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0).and_then(|()| prctl::set_dumpable(false));
    off.context(Kind::Device, || "turning core dumps off".into())
}
