//! `z-provisioner run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use imgstream::error::{IoContext, Kind, Result};
use protocol::RunSpec;
use provisioner::control::{Ended, Session};
use provisioner::logging::{self, Bridge};
use provisioner::phase::spec::{self, Files};
use provisioner::report::{Human, Json, Output, Reporter, Screen};
use provisioner::{run, signals};
use tokio_util::sync::CancellationToken;

use super::orchestrated::Orchestrated;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run spec: which image, which target (JSON)
    #[arg(long, value_name = "FILE", required_unless_present = "orchestrator", conflicts_with = "orchestrator")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    orchestrated: Orchestrated,
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
    let runtime = super::runtime()?;
    let code = match &args.spec {
        Some(path) => spec::read(path).and_then(|spec| runtime.block_on(of_file(args, &spec, screen, &bridge))),
        None => runtime.block_on(of_service(args, screen, &bridge)),
    };
    // A thread that hangs in the kernel must not keep a run that has ended from saying so.
    runtime.shutdown_background();
    code
}

/// The run of a spec in a file.
async fn of_file(args: &Args, spec: &RunSpec, screen: &Screen, bridge: &Bridge) -> Result<ExitCode> {
    let reporter = args.reporter(spec, None, screen, bridge);
    let cancel = CancellationToken::new();
    signals::watch(&reporter, &cancel)?;
    let last = run::attempt(spec, &args.files(), None, None, &reporter, &cancel).await;
    Ok(ExitCode::from(run::exit_code(&last)))
}

/// The run that the service has for this process. Whether the service has heard how it ended does not change how it ended.
async fn of_service(args: &Args, screen: &Screen, bridge: &Bridge) -> Result<ExitCode> {
    let (cancel, say) = (CancellationToken::new(), |text: &str| screen.lines(text));
    let running = signals::watch_before_the_run(screen, &cancel)?;
    let session = Session::begin(&args.orchestrated.options()?, &say, &cancel).await?;
    let spec = session.spec();
    screen.lines(&format!("enrolled: attempt {} of run {}", spec.epoch, spec.run));
    let reporter = args.reporter(spec, Some(session.output()), screen, bridge);
    let _ = running.set(Arc::clone(&reporter));
    let within = args.orchestrated.report_within();
    let Ended { last, told } = session.run_to_end(&args.files(), None, &reporter, within, &say, &cancel).await;
    if let Err(error) = told {
        screen.lines(&format!("warning: {error}"));
        error.hint().into_iter().for_each(|hint| screen.lines(&format!("  → {hint}")));
    }
    Ok(ExitCode::from(run::exit_code(&last)))
}

impl Args {
    fn files(&self) -> Files {
        Files {
            ca: self.ca.clone(),
            registry_auth: self.registry_auth.clone(),
            luks_key: self.luks_key.clone(),
            anchors: self.orchestrated.anchors(),
            ..Files::default()
        }
    }

    fn reporter(
        &self,
        spec: &RunSpec,
        service: Option<Box<dyn Output>>,
        screen: &Screen,
        bridge: &Bridge,
    ) -> Arc<Reporter> {
        let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), self.verbose > 0))];
        if self.json {
            outputs.push(Box::new(Json::new(std::io::stdout(), screen.clone())));
        }
        outputs.extend(service);
        let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
        bridge.connect(&reporter);
        reporter
    }
}
