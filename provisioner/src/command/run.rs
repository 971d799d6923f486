//! `z-provisioner run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use imgstream::error::{IoContext, Kind, Result};
use protocol::RunSpec;
use provisioner::control::{Ended, Session};
use provisioner::phase::spec::{self, Files};
use provisioner::report::{Human, Json, Output, Reporter, Screen, Voice};
use provisioner::{logging, run, signals};
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
    let voice = Voice::new(screen.clone());
    logging::start(&voice, args.verbose);
    let runtime = super::runtime()?;
    let code = match &args.spec {
        Some(path) => spec::read(path).and_then(|spec| runtime.block_on(of_file(args, &spec, &voice))),
        None => runtime.block_on(of_service(args, &voice)),
    };
    // A thread that hangs in the kernel must not keep a run that has ended from saying so.
    runtime.shutdown_background();
    code
}

/// The run of a spec in a file.
async fn of_file(args: &Args, spec: &RunSpec, voice: &Voice) -> Result<ExitCode> {
    let reporter = args.reporter(spec, None, voice);
    let cancel = CancellationToken::new();
    signals::watch(voice, &cancel)?;
    let last = run::attempt(spec, &args.files(), None, None, &reporter, &cancel).await;
    Ok(ExitCode::from(run::exit_code(&last)))
}

/// The run that the service has for this process. Whether the service has heard how it ended does not change how it ended.
async fn of_service(args: &Args, voice: &Voice) -> Result<ExitCode> {
    let (cancel, say) = (CancellationToken::new(), |text: &str| voice.say(text));
    signals::watch(voice, &cancel)?;
    let session = Session::begin(&args.orchestrated.options()?, &say, &cancel).await?;
    let spec = session.spec();
    voice.say(&format!("enrolled: {session}"));
    let reporter = args.reporter(spec, Some(session.output()), voice);
    let within = args.orchestrated.report_within();
    let Ended { last, told } = session.run_to_end(&args.files(), None, &reporter, within, &say, &cancel).await;
    if let Err(error) = told {
        voice.say(&format!("warning: {error}"));
        error.hint().into_iter().for_each(|hint| voice.say(&format!("  → {hint}")));
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

    fn reporter(&self, spec: &RunSpec, service: Option<Box<dyn Output>>, voice: &Voice) -> Arc<Reporter> {
        let screen = voice.screen();
        let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), self.verbose > 0))];
        if self.json {
            outputs.push(Box::new(Json::new(std::io::stdout(), screen.clone())));
        }
        outputs.extend(service);
        let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
        voice.begin(&reporter);
        reporter
    }
}
