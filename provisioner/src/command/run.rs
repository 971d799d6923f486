//! `z-provisioner run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use imgstream::error::{IoContext, Kind, Result};
use provisioner::phase::spec::{self, Files};
use provisioner::report::{Human, Json, Output, Reporter, Screen};
use provisioner::{logging, run, signals};
use tokio_util::sync::CancellationToken;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run spec: which image, which target (JSON)
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Write events to stdout, one JSON object per line
    #[arg(long)]
    pub(super) json: bool,
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
    pub(super) verbose: u8,
}

/// Does one run.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    super::no_core_dumps()?;
    imgstream::sink::report_file_size_limit().context(Kind::Device, || "blocking SIGXFSZ".into())?;
    let bridge = logging::start(screen, args.verbose);
    let spec = spec::read(&args.spec)?;
    let files = Files {
        ca: args.ca.clone(),
        registry_auth: args.registry_auth.clone(),
        luks_key: args.luks_key.clone(),
        ..Files::default()
    };
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), args.verbose > 0))];
    if args.json {
        outputs.push(Box::new(Json::new(std::io::stdout(), screen.clone())));
    }
    let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
    bridge.connect(&reporter);
    let runtime = super::runtime()?;
    let code = runtime.block_on(async {
        let cancel = CancellationToken::new();
        signals::watch(&reporter, &cancel)?;
        let last = run::attempt(&spec, &files, None, &reporter, &cancel).await;
        Ok(ExitCode::from(run::exit_code(&last)))
    });
    // A thread that hangs in the kernel must not keep a run that has ended from saying so.
    runtime.shutdown_background();
    code
}
