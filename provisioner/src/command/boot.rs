//! `z-provisioner boot`: the agent of a machine that booted the medium.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use imgstream::error::{IoContext, Kind, Result};
use provisioner::machine::Machine;
use provisioner::medium::ended::Ended;
use provisioner::medium::{self, Config};
use provisioner::phase::spec::Files;
use provisioner::report::{Human, Last, Output, Reporter, Screen};
use provisioner::{logging, run, signals};
use tokio_util::sync::CancellationToken;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How the console is written to: lines, or bars that move
    #[arg(long, value_name = "HOW", default_value = "lines", value_parser = ["lines", "bars"])]
    console: String,
}

/// Does the configured run, and leaves word of how it ended.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let screen = Screen::new(args.console == "bars");
    let ended = super::no_core_dumps().and_then(|()| {
        let parameters =
            std::fs::read_to_string("/proc/cmdline").context(Kind::Device, || "reading /proc/cmdline".into())?;
        let config = medium::load(Path::new(medium::FOLDER), &parameters)?;
        provision(config, &screen)
    });
    let ended = ended.unwrap_or_else(|error| Ended::Failed {
        message: error.to_string(),
        hint: error.hint().unwrap_or("docs/operating.md").to_owned(),
    });
    ended.leave().context(Kind::Device, || "leaving word of the end".into())?;
    Ok(if matches!(ended, Ended::Failed { .. }) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn provision(config: Config, screen: &Screen) -> Result<Ended> {
    imgstream::sink::report_file_size_limit().context(Kind::Device, || "blocking SIGXFSZ".into())?;
    let bridge = logging::start(screen, 0);
    let spec = config.run.clone();
    let files = Files {
        ca: config.ca.clone(),
        registry_auth: config.registry_auth.clone(),
        luks_key: config.luks_key.clone(),
        local_addresses: config.local_addresses(),
        ..Files::default()
    };
    let last = Last::default();
    let outputs: Vec<Box<dyn Output>> = vec![Box::new(Human::new(screen.clone(), true)), Box::new(last.clone())];
    let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, outputs));
    bridge.connect(&reporter);
    let runtime = super::runtime()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        signals::watch(&reporter, &cancel)?;
        let mut machine = Machine::new(config, Arc::clone(&reporter));
        run::attempt(&spec, &files, Some(&mut machine), None, &reporter, &cancel).await;
        Ok(machine.end(&last, &|text| screen.lines(text), &cancel).await)
    });
    runtime.shutdown_background();
    ended
}
