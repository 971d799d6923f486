//! `z-orchestrator serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use super::signals::Signals;
use super::{logging, no_core_dumps};
use crate::config::Config;
use crate::error::{Context, Kind, Result};

/// What is logged, by how often `-v` is said.
const LOGGED: [&str; 2] = ["warn,orchestrator=info,audit=info", "warn,orchestrator=debug,audit=info"];

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The configuration (JSON). Default: what is built in
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen there instead of where the configuration says; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// The data folder, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Log as JSON, one object per line
    #[arg(long)]
    json_logs: bool,
    /// Log more (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl Args {
    /// The configuration, with what the command line says instead.
    fn config(&self) -> Result<Config> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        config.data = self.data.clone().or(config.data);
        config.check()?;
        Ok(config)
    }
}

/// Runs the service until it is stopped.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    // What the service makes is for itself, the database included.
    umask(Mode::from_bits_truncate(0o077));
    let config = args.config()?;
    logging::start(screen, &LOGGED, args.verbose, args.json_logs);
    open_files(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.doing(|| "starting the runtime".into())?;
    let served = runtime.block_on(async {
        let cancel = cancel_on()?;
        crate::service::run(config, cancel).await
    });
    // A thread that hangs in the kernel must not keep a service that has ended from saying so.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// Each agent keeps one connection and has a second now and then, each watcher has one, and a connection is an open file: this process may
/// have as many as it is allowed to allow itself, and says so where those are too few.
fn open_files(config: &Config) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing(|| "reading how many files may be open".into())?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).doing(|| format!("allowing {most} open files"))?;
    if let Some(needed) = Some(files_needed(config)).filter(|needed| *needed > most) {
        tracing::warn!(
            "only {most} files may be open, and {} runs with {} watchers may need {needed}: raise the limit (LimitNOFILE of its unit)",
            config.limits.runs,
            config.limits.watchers
        );
    }
    Ok(())
}

fn files_needed(config: &Config) -> u64 {
    let (runs, watchers) = (u64::from(config.limits.runs), u64::from(config.limits.watchers));
    // Besides: the store, logs, and whoever asks now and then.
    2 * runs + watchers + watchers.div_ceil(3) + 128
}

/// Cancels at the first signal; the second ends the process.
fn cancel_on() -> Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let cancel = CancellationToken::new();
    let cancelled = cancel.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "stopping; a second signal ends at once");
        cancelled.cancel();
        signals.next().await;
        std::process::exit(i32::from(Kind::Interrupted.exit_code()));
    });
    Ok(cancel)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn config(words: &[&str]) -> Result<Config> {
        Program::parse_from(["serve"].iter().chain(words)).args.config()
    }

    #[test]
    fn what_a_usual_machine_allows_is_enough_for_the_defaults_and_not_for_ten_thousand_agents() {
        let mut config = Config::default();
        assert!(files_needed(&config) <= 1024);
        config.limits.runs = 10_000;
        assert!(files_needed(&config) > 20_000);
    }

    #[test]
    fn the_command_line_says_it_instead_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, r#"{"listen": ["127.0.0.1:1"], "data": "/of/the/file", "report_within": 7}"#).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(config(&[]).unwrap(), Config::default());
        let mixed = config(&["--config", file, "--listen", "[::1]:2", "--listen", "127.0.0.1:3"]).unwrap();
        assert_eq!((mixed.listen.len(), mixed.report_within), (2, 7));
        assert_eq!(mixed.data, Some("/of/the/file".into()));
        assert_eq!(config(&["--config", file, "--data", "/d"]).unwrap().data, Some("/d".into()));
        config(&["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"]).unwrap_err();
    }
}
