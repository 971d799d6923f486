//! `z-provisioner boot`: the agent of a machine that booted the medium.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, IoContext, Kind, Result};
use imgstream::source::SourceOptions;
use protocol::RunSpec;
use protocol::event::Body;
use provisioner::control::{self, Named, Session};
use provisioner::ipsec::demand::Demand;
use provisioner::machine::Machine;
use provisioner::medium::config::Orchestrator;
use provisioner::medium::ended::Ended;
use provisioner::medium::{self, Config, Task};
use provisioner::phase::spec::Files;
use provisioner::report::{Human, Last, Output, Reporter, Screen, Voice};
use provisioner::{logging, run, signals};
use tokio_util::sync::CancellationToken;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How the console is written to: lines, or bars that move
    #[arg(long, value_name = "HOW", default_value = "lines", value_parser = ["lines", "bars"])]
    console: String,
}

/// Does what is configured, and leaves word of how it ended.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let screen = Screen::new(args.console == "bars");
    let ended = super::no_core_dumps().and_then(|()| {
        let parameters =
            std::fs::read_to_string("/proc/cmdline").context(Kind::Device, || "reading /proc/cmdline".into())?;
        let config = medium::load(Path::new(medium::FOLDER), &parameters)?;
        provision(&config, Voice::new(screen))
    });
    let ended = ended.unwrap_or_else(|error| Ended::Failed {
        message: error.to_string(),
        hint: error.hint().unwrap_or("docs/operating.md").to_owned(),
    });
    ended.leave().context(Kind::Device, || "leaving word of the end".into())?;
    Ok(if matches!(ended, Ended::Failed { .. }) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn provision(config: &Config, voice: Voice) -> Result<Ended> {
    imgstream::sink::report_file_size_limit().context(Kind::Device, || "blocking SIGXFSZ".into())?;
    logging::start(&voice, 0);
    let task = config.task().map_err(Error::usage)?;
    let runtime = super::runtime()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        signals::watch(&voice, &cancel)?;
        let machine = Machine::new(config.clone(), task.ipsec(), voice.clone());
        match task {
            Task::Run(spec) => Ok(of_configuration(config, spec, machine, &voice, &cancel).await),
            Task::Enrol(service) => of_service(config, service, machine, &voice, &cancel).await,
        }
    });
    runtime.shutdown_background();
    ended
}

/// The run of the configuration.
async fn of_configuration(
    config: &Config,
    spec: &RunSpec,
    mut machine: Machine,
    voice: &Voice,
    cancel: &CancellationToken,
) -> Ended {
    let last = Last::default();
    let reporter = begin(spec, Box::new(last.clone()), voice);
    let body = run::attempt(spec, &files(config), Some(&mut machine), None, &reporter, cancel).await;
    let told = machine.report(&last, cancel).await;
    machine.end(&body, told, spec.hand_over).await
}

/// The run that a service has for this machine.
async fn of_service(
    config: &Config,
    service: &Orchestrator,
    mut machine: Machine,
    voice: &Voice,
    cancel: &CancellationToken,
) -> Result<Ended> {
    let options = options(config, service)?;
    let say = |text: &str| voice.say(text);
    let enrolled = async {
        voice.part("network", machine.join(cancel)).await?;
        voice.part("enrol", Session::begin(&options, &say, cancel)).await
    };
    let session = match enrolled.await {
        Ok(session) => session,
        Err(error) => return Ok(machine.give_up(&error).await),
    };
    let spec = session.spec();
    let reporter = begin(spec, session.output(), voice);
    // What the configuration says may only be narrowed.
    let files = Files { anchors: config.trust.images.clone(), least_ipsec: Some(service.ipsec), ..files(config) };
    let within = Duration::from_secs(service.report_within);
    let ended = session.run_to_end(&files, Some(&mut machine), &reporter, within, &say, cancel).await;
    let told = ended.told.map_err(|error| if is_done(&ended.last) { error.with_hint(NOT_TOLD) } else { error });
    Ok(machine.end(&ended.last, told, spec.hand_over).await)
}

const NOT_TOLD: &str = "the target holds the image. See what the service takes the run for, tell it where that differs, then IPL the disk by hand";

fn is_done(last: &Body) -> bool {
    matches!(last, Body::RunFinished(_))
}

fn begin(spec: &RunSpec, other: Box<dyn Output>, voice: &Voice) -> Arc<Reporter> {
    let outputs = vec![Box::new(Human::new(voice.screen().clone(), true)) as Box<dyn Output>, other];
    let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
    voice.begin(&reporter);
    reporter
}

fn files(config: &Config) -> Files {
    Files {
        ca: config.ca.clone(),
        registry_auth: config.registry_auth.clone(),
        luks_key: config.luks_key.clone(),
        local_addresses: config.local_addresses(),
        ..Files::default()
    }
}

fn options(config: &Config, service: &Orchestrator) -> Result<control::Options> {
    Ok(control::Options {
        url: service.url.clone(),
        ca: config.trust.orchestrator_ca.clone(),
        token: service.token.clone(),
        ticket_keys: config.trust.tickets.clone(),
        run: service.run.clone(),
        server: Some(config.server_name().map_err(Error::usage)?),
        enrol_within: Duration::from_secs(service.enrol_within),
        source: SourceOptions {
            vet: Demand::new(service.ipsec).vet(),
            local_addresses: config.local_addresses(),
            ..SourceOptions::default()
        },
        named: Named::KEYS,
    })
}
