//! The command `z-provisioner`. Reads arguments, sets the stage, runs, and says how it ended.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use imgstream::error::{Error, IoContext, Kind, Result};
use provisioner::phase::spec::{self, Files};
use provisioner::report::{Human, Json, Output, Reporter, Screen, failure, text};
use provisioner::luks::Key;
use provisioner::target::multipath::Map;
use provisioner::target::reservation::{self, ReservedLun, Which};
use provisioner::target::scsi::persistent;
use provisioner::{erase, logging, run, signals};
use protocol::{RunId, Wwid};
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
    /// Makes a run's key: 32 random bytes as text that can be typed, in a new file only its owner may read
    #[command(after_help = EXIT_CODES)]
    Keygen(KeygenArgs),
    /// Shows who has registered with a LUN and reserved it, and removes what a run has left there
    #[command(after_help = EXIT_CODES)]
    ReleaseReservation(ReleaseArgs),
}

#[derive(clap::Args)]
struct KeygenArgs {
    /// The file to make
    file: PathBuf,
}

#[derive(clap::Args)]
struct ReleaseArgs {
    /// The LUN's WWID, as `multipath -ll` shows it. Without an option below, it is only looked at
    wwid: String,
    /// Remove the registrations of this run, whatever their epoch
    #[arg(long, value_name = "RUN", conflicts_with_all = ["key", "all"])]
    run: Option<String>,
    /// Remove this key, such as 0x7a0102030405000a; may be given several times
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with = "all")]
    key: Vec<persistent::Key>,
    /// Remove every registration. Whoever uses the LUN cannot write to it any more
    #[arg(long)]
    all: bool,
    /// Write the result to stdout, as one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_key(text: &str) -> Result<persistent::Key, String> {
    let hex = text.strip_prefix("0x").ok_or("a key starts with 0x")?;
    u64::from_str_radix(hex, 16).map(persistent::Key).map_err(|error| error.to_string())
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
    /// The key of an encrypted target, as `z-provisioner keygen` makes it. Best in memory (/run), and readable by you alone
    #[arg(long, value_name = "FILE")]
    luks_key: Option<PathBuf>,
    /// Say more: causes of errors and what the data path does (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    let command = Args::parse().command;
    let (json, verbose) = match &command {
        Command::Run(args) => (args.json, args.verbose),
        Command::Erase(args) => (args.json, args.verbose),
        Command::ReleaseReservation(args) => (args.json, 0),
        Command::Keygen(_) => (false, 0),
    };
    // Bars and JSON lines on one terminal would tear each other.
    let bars = std::io::stderr().is_terminal() && !(json && std::io::stdout().is_terminal());
    let screen = Screen::new(bars);
    let done = match &command {
        Command::Run(args) => provision(args, &screen),
        Command::Erase(args) => erase_disk(args, &screen),
        Command::Keygen(args) => keygen(args, &screen),
        Command::ReleaseReservation(args) => release_reservation(args, &screen),
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

fn keygen(args: &KeygenArgs, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    Key::generate()?.write_new(&args.file)?;
    screen.lines(&format!("a new key is in {}; whoever unlocks the disk types its line", args.file.display()));
    Ok(ExitCode::SUCCESS)
}

fn release_reservation(args: &ReleaseArgs, screen: &Screen) -> Result<ExitCode> {
    let wrong = |error: protocol::BadText| Error::usage(error.to_string());
    let wwid = Wwid::try_from(args.wwid.clone()).map_err(wrong)?;
    let which = match (&args.run, &args.key[..], args.all) {
        (Some(run), ..) => Which::Run(RunId::try_from(run.clone()).map_err(wrong)?),
        (None, [], false) => Which::None,
        (None, [], true) => Which::All,
        (None, keys, _) => Which::Keys(keys.to_vec()),
    };
    let map = Map::find(&wwid).ok_or_else(|| {
        Error::target(format!("there is no multipath map of {wwid}")).with_hint("multipath -ll lists those there are")
    })?;
    let released = runtime()?.block_on(async { reservation::release(&ReservedLun::open(&map)?, &which).await })?;
    if args.json {
        println!("{}", released.to_json());
    }
    screen.lines(&released.to_string());
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
    let files =
        Files { ca: args.ca.clone(), registry_auth: args.registry_auth.clone(), luks_key: args.luks_key.clone() };
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), args.verbose > 0))];
    if args.json {
        outputs.push(Box::new(Json::new(std::io::stdout(), screen.clone())));
    }
    let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
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
