//! `run key`, `destroy-key`: what the owner of a disk has to do with its key.

use std::io::IsTerminal;
use std::process::ExitCode;

use protocol::RunId;
use protocol::control::key::ShownKey;
use zeroize::Zeroizing;

use super::{act, run_id, words};
use crate::client::Client;
use crate::command::on_stdout;
use crate::command::screen::Screen;
use crate::error::{Context, Error, Kind, Result};

/// Arguments of `key`.
#[derive(clap::Args)]
pub(super) struct KeyArgs {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
}

/// Arguments of `destroy-key`.
#[derive(clap::Args)]
pub(super) struct DestroyArgs {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Writes the key to stdout, alone on its line. It is shown once.
pub(super) async fn show(args: &KeyArgs, client: &Client) -> Result<ExitCode> {
    let shown = client.key(&args.run).await.map_err(|error| match error.kind() {
        // What was marked and not heard is not said again.
        Kind::Unavailable if error.retry().is_some() => error.with_hint(format!(
            "look whether it was shown: z-orchestrator run show {}; if it was, nobody has it, and the disk cannot be opened: z-orchestrator run destroy-key, and install anew",
            args.run
        )),
        _ => error,
    })?;
    on_stdout(line(&shown).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn line(shown: &ShownKey) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", shown.key.reveal()))
}

/// Destroys the key, once a person has read what that means.
pub(super) async fn destroy(args: &DestroyArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let run = client.run(&args.run).await?;
    screen.lines(&format!(
        "The service forgets the key of run {}. Whoever has not been shown it can never open {} again.",
        run.run, run.target
    ));
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Error::usage("this is asked for on a terminal only").with_hint("say --yes where you are sure"));
        }
        let answer = tokio::task::spawn_blocking(|| act::ask("destroy it")).await;
        if !answer.doing(|| "asking".into())?? {
            return Err(Error::new(Kind::Interrupted, "nothing was destroyed"));
        }
    }
    let run = client.destroy_key(&args.run).await?;
    let remains = run.key.as_ref().and_then(words::remains).map_or_else(String::new, |remains| format!("; {remains}"));
    screen.lines(&format!("the key of run {} is destroyed: nobody is given it any more{remains}", args.run));
    Ok(ExitCode::SUCCESS)
}
