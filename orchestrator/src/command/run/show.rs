//! `run show`.

use std::process::ExitCode;

use protocol::RunId;
use protocol::control::Run;
use protocol::control::run::Glance;
use protocol::control::run::{Attempt, RunPaths, RunState};

use super::{run_id, words};
use crate::client::Client;
use crate::command::on_stdout;
use crate::error::{Error, Result};
use crate::text::printable;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run
    #[arg(value_parser = run_id)]
    run: RunId,
    /// Write it to stdout as one JSON object
    #[arg(long)]
    json: bool,
}

/// Shows a run.
pub(super) async fn show(args: &Args, client: &Client) -> Result<ExitCode> {
    let run = client.run(&args.run).await?;
    let text = if args.json { json(&run)? } else { text(&run) };
    on_stdout(format!("{text}\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A run as one line of JSON.
pub(super) fn json(run: &Run) -> Result<String> {
    serde_json::to_string(run).map_err(|error| Error::system(format!("writing a run as JSON: {error}")))
}

/// All that a person needs, what can be done first.
fn text(run: &Run) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if !run.reason.is_empty() {
        rows.push(("reason", run.reason.clone()));
    }
    if let Some(wait) = &run.waits {
        rows.push(("waits for", format!("{}: {}", wait.what, wait.detail)));
    }
    if let Some(RunPaths { live, total, since }) = &run.paths {
        rows.push(("paths", format!("{live} of {total} live, since {since}")));
    }
    rows.extend(next(run).map(|next| ("next", next)));
    if run.cancel && !run.state.is_over() {
        rows.push(("ending", "it was called off, or its deadline has passed".to_owned()));
    }
    if let Some(progress) = &run.progress {
        let glance = Glance::of(run.run.clone(), progress);
        rows.push(("now", format!("{}, {}: {}", progress.phase, progress.step, words::progress(&glance))));
    } else if !run.state.is_over() {
        let at = [run.phase.as_ref().map(ToString::to_string), run.step.as_ref().map(ToString::to_string)];
        let at: Vec<_> = at.into_iter().flatten().collect();
        rows.extend((!at.is_empty()).then(|| ("now", at.join(", "))));
    }
    rows.push(("server", run.server.to_string()));
    rows.push(("image", image(run)));
    rows.push(("target", target(run)));
    rows.extend(run.key.iter().map(|key| ("key", words::key(key, &run.run))));
    rows.extend(run.policy.iter().map(|digest| ("policy", digest.to_string())));
    rows.push(("launcher", run.launcher.name().to_owned()));
    rows.push(("fabric", format!("{}, priority {}", run.fabric, run.priority)));
    rows.push(("created", run.created.clone()));
    rows.extend(run.deadline.iter().map(|deadline| ("deadline", deadline.clone())));
    rows.extend(run.ended.iter().map(|ended| ("ended", ended.clone())));
    rows.extend(run.attempts.iter().map(|attempt| ("attempt", self::attempt(attempt))));
    if let Some(summary) = &run.summary {
        rows.extend(words::summary(summary));
    }
    let number = run.attempts.last().map_or(0, |attempt| attempt.attempt);
    let head = format!("{}: {}, attempt {number} of {}", run.run, run.state, run.max_attempts);
    let rows = rows.iter().map(|(name, value)| format!("  {name:10} {}", printable(value)));
    let failure = run.failure.iter().map(|failure| words::failure(failure));
    std::iter::once(printable(&head)).chain(rows).chain(failure).collect::<Vec<_>>().join("\n")
}

/// What a person can do about it, where the service does not say it already.
fn next(run: &Run) -> Option<String> {
    match &run.state {
        RunState::Failed | RunState::Cancelled => Some(format!("z-orchestrator run retry {}", run.run)),
        RunState::Lost if run.waits.is_none() => Some(format!("z-orchestrator run watch {}", run.run)),
        _ => None,
    }
}

fn image(run: &Run) -> String {
    let Some(order) = &run.order else { return run.image.clone() };
    let image = &order.image;
    let digest = image.digest.iter().map(|digest| format!(", {digest}"));
    let least = image.min_version.iter().map(|version| format!(", version {version} or later"));
    let what: String = digest.chain(least).collect();
    format!("{} for {}{what}, from {}", image.name, image.architecture, image.sources.join(", "))
}

fn target(run: &Run) -> String {
    let Some(order) = &run.order else { return run.target.clone() };
    let wipe = if order.target.wipe { ", whatever is on it is overwritten" } else { "" };
    format!("{}, layout {}{wipe}", run.target, order.target.layout.name())
}

fn attempt(attempt: &Attempt) -> String {
    let mut text = format!("{}: from {}", attempt.attempt, attempt.started);
    let mut add = |what: &str, value: &Option<String>| {
        if let Some(value) = value {
            text += &format!("{what}{value}");
        }
    };
    add(" to ", &attempt.ended);
    add(", ", &attempt.outcome.as_ref().map(ToString::to_string));
    add(": ", &attempt.reason);
    add("; agent ", &attempt.agent);
    add("; its launcher knows it as ", &attempt.handle);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: &str = r#"{"run":"r-1","state":"lost","server":"lpar-7","launcher":"external","image":"debian-13",
        "reason":"its lease has ended","target":"LUN 36005","fabric":"east","priority":5,"created":"2026-01-01T00:00:00Z",
        "deadline":"2026-01-02T00:00:00Z","max_attempts":3,"cancel":true,
        "waits":{"for":"person","detail":"make sure that it is dead\u001b[2J, then confirm"},
        "attempts":[{"attempt":1,"started":"A","ended":"B","outcome":"failed","reason":"no route","agent":"z 1"},
                    {"attempt":2,"started":"C","handle":"17:4"}],"phase":"stream","step":"write",
        "order":{"server":"lpar-7","launcher":"external","image":{"name":"debian-13","sources":["http://a/","http://b/"],
          "trust":["aa"],"min_version":7},"target":{"lun":{"wwid":"36005"},"layout":"split","wipe":true}}}"#;

    #[test]
    fn everything_that_a_person_needs_is_there() {
        let text = text(&serde_json::from_str(LOST).unwrap());
        for line in [
            "r-1: lost, attempt 2 of 3",
            "  reason     its lease has ended",
            "  waits for  person: make sure that it is dead\u{fffd}[2J, then confirm",
            "  ending     it was called off, or its deadline has passed",
            "  now        stream, write",
            "  image      debian-13 for s390x, version 7 or later, from http://a/, http://b/",
            "  target     LUN 36005, layout split, whatever is on it is overwritten",
            "  fabric     east, priority 5",
            "  deadline   2026-01-02T00:00:00Z",
            "  attempt    1: from A to B, failed: no route; agent z 1",
            "  attempt    2: from C; its launcher knows it as 17:4",
        ] {
            assert!(text.lines().any(|said| said == line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn it_says_what_has_become_of_the_key() {
        let shown = |key: &str| {
            text(&serde_json::from_str(&LOST.replace(r#""phase""#, &format!(r#""key":{key},"phase""#))).unwrap())
        };
        for (key, line) in [
            (r#"{"source":"agent"}"#, "its agent's: the machine has it"),
            (
                r#"{"source":"service","made":"A","released":[1,2]}"#,
                "made by the service at A; given to attempt 1, 2; not shown yet (z-orchestrator run key r-1)",
            ),
            (
                r#"{"source":"service","made":"A","shown":{"at":"B","by":"ada"},"destroyed":{"at":"C","by":"bob","reason":"gone"}}"#,
                "made by the service at A; shown to ada at B; destroyed by bob at C (gone)",
            ),
        ] {
            let text = shown(key);
            assert!(text.contains(&format!("\n  key        {line}\n")), "{text}");
        }
    }

    #[test]
    fn a_failed_run_says_why_and_what_to_do() {
        let failed = LOST.replace(r#""state":"lost""#, r#""state":"failed","failure":{"phase":"target","error":"target",
            "exit_code":4,"message":"LUN 36005 is mounted","hint":"unmount it","retryable":false,"target":"untouched"}"#);
        let text = text(&serde_json::from_str(&failed).unwrap());
        assert!(text.contains("  next       z-orchestrator run retry r-1\n"), "{text}");
        assert!(text.ends_with("error: LUN 36005 is mounted\nhint: unmount it\ntarget: not touched"), "{text}");
        assert!(!text.contains("  ending") && !text.contains("  now "), "{text}");
    }
}
