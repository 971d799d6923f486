//! `run watch`.

use std::process::ExitCode;

use protocol::RunId;
use protocol::control::Run;
use protocol::control::run::RunState;

use super::run_id;
use super::streams::{Heard, MAX_STREAMS, Streams};
use super::told::Told;
use crate::client::Client;
use crate::command::screen::Screen;
use crate::error::{Error, Kind, Result};

/// How a failed run ends the command when no agent has said why it failed.
const FAILED: u8 = 1;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The runs; all, from now on, where none is named
    #[arg(value_name = "RUN", value_parser = run_id)]
    runs: Vec<RunId>,
    /// Write to stdout what happens, as one JSON object each
    #[arg(long)]
    json: bool,
}

/// Watches runs.
pub(super) async fn watch(args: &Args, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let mut runs = Vec::new();
    for run in &args.runs {
        if !runs.contains(run) {
            runs.push(run.clone());
        }
    }
    if runs.len() > MAX_STREAMS {
        return Err(Error::usage(format!("{} runs are named", runs.len()))
            .with_hint(format!("watch at most {MAX_STREAMS}, or all of them by naming none")));
    }
    until_over(client, runs, args.json, screen).await
}

/// Tells what happens to runs until each is over, and ends as the first of them that has not succeeded.
pub(super) async fn until_over(client: &Client, runs: Vec<RunId>, json: bool, screen: &Screen) -> Result<ExitCode> {
    let mut streams = Streams::of(client, &runs);
    let mut told = Told::new(screen, json);
    let mut codes = vec![0; runs.len()];
    while let Some((number, heard)) = streams.next().await {
        match heard {
            Heard::News(news) => told.news(number, &news)?,
            Heard::Failed(error) => return Err(error),
            Heard::Over(run) => {
                told.over(&run);
                if let Some(code) = codes.get_mut(number) {
                    *code = exit_code(&run);
                }
            }
        }
    }
    Ok(ExitCode::from(codes.into_iter().find(|code| *code != 0).unwrap_or(0)))
}

/// How the command ends for a run that is over.
fn exit_code(run: &Run) -> u8 {
    match run.state {
        RunState::Succeeded => 0,
        RunState::Cancelled => Kind::Interrupted.exit_code(),
        _ => run.failure.as_ref().map_or(FAILED, |failure| failure.exit_code.max(1)),
    }
}
