//! `run cancel`, `retry`, `confirm-death`, `revoke`, `token`: what a person does about runs.

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::RunId;
use protocol::control::Run;
use protocol::control::run::EnrolmentToken;
use zeroize::Zeroizing;

use super::run_id;
use crate::client::Client;
use crate::command::on_stdout;
use crate::command::screen::Screen;
use crate::error::{Context, Error, Kind, Result};
use crate::text::printable;

/// Arguments of `cancel`.
#[derive(clap::Args)]
pub(super) struct CancelArgs {
    /// The runs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    runs: Vec<RunId>,
    /// Why, for those who look at them later
    #[arg(long)]
    reason: Option<String>,
}

/// Arguments of `retry`.
#[derive(clap::Args)]
pub(super) struct RetryArgs {
    /// The runs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    runs: Vec<RunId>,
}

/// Arguments of `confirm-death`.
#[derive(clap::Args)]
pub(super) struct ConfirmDeathArgs {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
    /// The attempt whose agent is dead
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Arguments of `revoke`.
#[derive(clap::Args)]
pub(super) struct RevokeArgs {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
    /// The attempt
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Why, for those who look at it later
    #[arg(long)]
    reason: Option<String>,
}

/// Arguments of `token`.
#[derive(clap::Args)]
pub(super) struct TokenArgs {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
    /// A new file that only its owner may read; `-` is stdout
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Calls runs off. One that is refused does not keep the others.
pub(super) async fn cancel(args: &CancelArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let mut outcome = Outcome::default();
    for run in &args.runs {
        outcome.heard(run, client.cancel(run, args.reason.as_deref()).await, screen);
    }
    outcome.end()
}

/// Queues runs again. One that is refused does not keep the others.
pub(super) async fn retry(args: &RetryArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let mut outcome = Outcome::default();
    for run in &args.runs {
        outcome.heard(run, client.retry(run).await, screen);
    }
    outcome.end()
}

/// Revokes an attempt.
pub(super) async fn revoke(args: &RevokeArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let run = client.revoke(&args.run, args.attempt, args.reason.as_deref()).await?;
    screen.lines(&now(&run));
    Ok(ExitCode::SUCCESS)
}

/// What came of several runs: the last error is the command's, those before it are told at once.
#[derive(Default)]
struct Outcome {
    error: Option<Error>,
}

impl Outcome {
    fn heard(&mut self, name: &RunId, answer: Result<Run>, screen: &Screen) {
        match answer {
            Ok(run) => screen.lines(&now(&run)),
            Err(error) => {
                let hint = error.hint().map(ToOwned::to_owned);
                let mut named = Error::new(error.kind(), format!("run {name}: {error}")).with_source(error);
                if let Some(hint) = hint {
                    named = named.with_hint(hint);
                }
                if let Some(before) = self.error.replace(named) {
                    screen.lines(&before.lines());
                }
            }
        }
    }

    fn end(self) -> Result<ExitCode> {
        self.error.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// Where a run is now.
fn now(run: &Run) -> String {
    let ending = if run.cancel && !run.state.is_over() { ", and ends as soon as its agent has stopped" } else { "" };
    let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", run.reason) };
    printable(&format!("{} is {}{ending}{reason}", run.run, run.state))
}

/// Vouches for the death of an agent, once a person has read what that means.
pub(super) async fn confirm_death(args: &ConfirmDeathArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let run = client.run(&args.run).await?;
    screen.lines(&vouched(&run, args.attempt)?);
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Error::usage("this is asked for on a terminal only").with_hint("say --yes where you are sure"));
        }
        let answer = tokio::task::spawn_blocking(|| ask("vouch for it")).await;
        if !answer.doing(|| "asking".into())?? {
            return Err(Error::new(Kind::Interrupted, "nothing was confirmed; the run goes on waiting"));
        }
    }
    let run = client.confirm_death(&args.run, args.attempt).await?;
    screen.lines(&now(&run));
    Ok(ExitCode::SUCCESS)
}

/// What a person vouches for, plainly.
fn vouched(run: &Run, attempt: u32) -> Result<String> {
    let Some(found) = run.attempts.iter().find(|found| found.attempt == attempt) else {
        return Err(Error::refused(format!("run {} has no attempt {attempt}", run.run))
            .with_hint(format!("z-orchestrator run show {} lists its attempts", run.run)));
    };
    let known = found.handle.iter().map(|handle| format!(", known as {handle}")).collect::<String>();
    let lines = [
        format!("run {}, attempt {attempt}, started {} on server {}{known}", run.run, found.started, run.server),
        format!("You vouch that the agent of this attempt is powered off, or cut off from {}:", run.target),
        "that it can write nothing there any more, also later. If it can, two agents write, and the disk is ruined."
            .into(),
    ];
    Ok(lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n"))
}

/// Whether a person types `yes`, to do this.
pub(super) fn ask(what: &str) -> Result<bool> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "Type `yes` to {what}: ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let line = std::io::Read::take(std::io::stdin().lock(), 16).read_line(&mut answer);
    line.doing(|| "reading the answer".into())?;
    Ok(answer.trim() == "yes")
}

/// Makes an enrolment token.
pub(super) async fn token(args: &TokenArgs, client: &Client, screen: &Screen) -> Result<ExitCode> {
    if args.out == Path::new("-") {
        let made = client.token(&args.run).await?;
        on_stdout(line(&made).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    // The file first: once there is a new token, those before it are void.
    let path = args.out.display();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "a token is never written over anything: choose another name",
            _ => "check the folder and its permissions",
        };
        Error::usage(format!("creating {path}: {error}")).with_source(error).with_hint(hint)
    })?;
    let unfinished = Unfinished(&args.out);
    let made = client.token(&args.run).await?;
    let written = file.write_all(line(&made).as_bytes()).and_then(|()| file.sync_all());
    written.doing(|| format!("writing {path}"))?;
    std::mem::forget(unfinished);
    screen
        .lines(&format!("the token of {}, attempt {}, is in {path}; those before it are void", made.run, made.attempt));
    Ok(ExitCode::SUCCESS)
}

fn line(made: &EnrolmentToken) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", made.token.reveal()))
}

/// A file that goes away unless it is forgotten.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_vouched_for_is_said_plainly() {
        let run: Run = serde_json::from_str(
            r#"{"run":"r-1","state":"lost","server":"lpar-7","launcher":"external","image":"a","target":"LUN 36005",
            "fabric":"default","priority":0,"created":"A","max_attempts":3,
            "attempts":[{"attempt":2,"started":"2026-01-01T00:00:00Z","handle":"17\u001b[2J"}]}"#,
        )
        .unwrap();
        let text = vouched(&run, 2).unwrap();
        assert!(text.contains("attempt 2, started 2026-01-01T00:00:00Z on server lpar-7, known as 17\u{fffd}[2J\n"));
        assert!(text.contains("powered off, or cut off from LUN 36005"));
        let error = vouched(&run, 1).unwrap_err();
        assert_eq!(
            (error.kind(), error.hint()),
            (Kind::Refused, Some("z-orchestrator run show r-1 lists its attempts"))
        );
    }
}
