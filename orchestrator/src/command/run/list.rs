//! `run list`.

use std::process::ExitCode;

use clap::ValueEnum;
use protocol::ServerName;
use protocol::control::Run;
use time::OffsetDateTime;

use super::words;
use crate::client::{Client, Filter};
use crate::command::on_stdout;
use crate::command::screen::{Screen, width};
use crate::error::{Error, Result};
use crate::text::printable;

/// Runs that are asked for at once.
const PAGE: u32 = 200;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only those in these states, separated by commas
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// Only those of this server
    #[arg(long, value_name = "SERVER", value_parser = |text: &str| ServerName::try_from(text.to_owned()))]
    server: Option<ServerName>,
    /// All of them, and not only the latest 200
    #[arg(long)]
    all: bool,
    /// Write each run to stdout as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Queued,
    Launching,
    Running,
    Lost,
    Succeeded,
    Failed,
    Cancelled,
}

/// Lists runs.
pub(super) async fn list(args: &Args, client: &Client, screen: &Screen) -> Result<ExitCode> {
    let name = |state: &State| state.to_possible_value().map(|value| value.get_name().to_owned());
    let filter = Filter {
        states: args.state.iter().filter_map(name).collect(),
        server: args.server.as_ref().map(ToString::to_string),
        limit: PAGE,
    };
    let (mut runs, mut page) = (Vec::new(), None);
    loop {
        let found = client.list(&filter, page.as_deref()).await?;
        if args.json {
            on_stdout(json_lines(&found.runs)?.as_bytes())?;
        } else {
            runs.extend(found.runs);
        }
        match found.next {
            Some(next) if args.all && page.as_ref() != Some(&next) => page = Some(next),
            Some(_) if args.all => return Err(Error::unavailable("the service names the same page again and again")),
            next => {
                page = next;
                break;
            }
        }
    }
    if !args.json {
        on_stdout(table(&runs, OffsetDateTime::now_utc(), width()).as_bytes())?;
    }
    if page.is_some() {
        screen.lines("there are older ones: --all shows them");
    }
    Ok(ExitCode::SUCCESS)
}

fn json_lines(runs: &[Run]) -> Result<String> {
    let lines = runs.iter().map(|run| serde_json::to_string(run).map(|line| line + "\n"));
    lines.collect::<Result<String, _>>().map_err(|error| Error::system(format!("writing a run as JSON: {error}")))
}

const HEAD: [&str; 9] = ["RUN", "STATE", "SERVER", "IMAGE", "TARGET", "ATTEMPT", "PROGRESS", "WAITS-FOR", "AGE"];
/// Columns whose texts are cut where the terminal is too narrow: never a run's name, which is copied.
const CUT: [usize; 3] = [4, 3, 2];
const LEAST: usize = 8;
const GAP: usize = 2;

/// A table that is as wide as the terminal at most, where there is one and it is wide enough for what is not cut.
fn table(runs: &[Run], now: OffsetDateTime, width: Option<usize>) -> String {
    let rows: Vec<[String; 9]> = runs.iter().map(|run| row(run, now)).collect();
    let mut widths = HEAD.map(|name| name.chars().count());
    for row in &rows {
        for (column, text) in row.iter().enumerate() {
            widths[column] = widths[column].max(text.chars().count());
        }
    }
    while width.is_some_and(|width| widths.iter().sum::<usize>() + GAP * (HEAD.len() - 1) > width) {
        let widest = CUT.into_iter().filter(|column| widths[*column] > LEAST).max_by_key(|column| widths[*column]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    let lines = std::iter::once(HEAD.map(str::to_owned)).chain(rows);
    lines.map(|row| line(&row, &widths)).collect()
}

fn line(row: &[String; 9], widths: &[usize; 9]) -> String {
    let cells = row.iter().zip(widths).map(|(text, width)| format!("{:width$}", cut(text, *width), width = *width));
    let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
    line.trim_end().to_owned() + "\n"
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn row(run: &Run, now: OffsetDateTime) -> [String; 9] {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let attempt = run.attempts.last().map_or(0, |attempt| attempt.attempt);
    let state =
        if run.cancel && !run.state.is_over() { format!("{}, ending", run.state) } else { run.state.to_string() };
    [
        run.run.to_string(),
        printable(&state),
        run.server.to_string(),
        printable(&run.image),
        printable(&run.target),
        format!("{attempt}/{}", run.max_attempts),
        dash(words::brief_progress(run)),
        dash(words::lacks(run, now)),
        words::age(&run.created, now),
    ]
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn runs() -> Vec<Run> {
        let run = |json: &str| serde_json::from_str::<Run>(json).unwrap();
        vec![
            run(r#"{"run":"r-2","state":"queued","server":"lpar-8","launcher":"external","image":"debian\u001b[2J-13",
                "target":"LUN 36005076307ffd12345678","fabric":"default","priority":0,"created":"2026-01-01T00:00:00Z",
                "since":"2025-12-31T23:59:40Z","max_attempts":3,"waits":{"for":"target","detail":"run r-1"}}"#),
            run(
                r#"{"run":"r-1","state":"running","server":"lpar-7.a-rather-long-domain.example.com","launcher":"process",
                "image":"debian-13","target":"LUN 36005076307ffd12345678","fabric":"default","priority":0,"cancel":true,
                "created":"2025-12-31T22:00:00Z","max_attempts":3,"attempts":[{"attempt":2,"started":"2025-12-31T23:00:00Z"}],
                "paths":{"live":1,"total":4,"since":"2025-12-31T23:55:00Z"},"progress":{"phase":"stream","step":"write","bytes":42,"total_bytes":100,"chunks":1,"total_chunks":2,
                "rates":{"source":1,"decode":1,"write":1,"read_back":0}}}"#,
            ),
        ]
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::parse("2026-01-01T00:00:10Z", &Rfc3339).unwrap()
    }

    #[test]
    fn the_table_says_what_each_waits_for() {
        let text = table(&runs(), now(), None);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>())
            .collect();
        assert_eq!(lines[0], HEAD);
        let waiting = [
            "r-2",
            "queued",
            "lpar-8",
            "debian\u{fffd}[2J-13",
            "LUN 36005076307ffd12345678",
            "0/3",
            "-",
            "target 30s",
            "10s",
        ];
        assert_eq!(lines[1], waiting);
        assert_eq!(
            (lines[2][1], lines[2][5], lines[2][6], lines[2][7], lines[2][8]),
            ("running, ending", "2/3", "write 42 %", "3 of 4 paths lost 5m", "2h")
        );
        assert_eq!(table(&[], now(), Some(80)).lines().count(), 1);
    }

    #[test]
    fn it_fits_the_terminal_and_cuts_no_name_of_a_run() {
        for width in [200, 140, 120, 108] {
            let text = table(&runs(), now(), Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(text.contains("r-2  ") && text.contains("write 42 %"));
        }
        let narrow = table(&runs(), now(), Some(20));
        assert!(narrow.contains("r-1") && narrow.contains("LUN 360…"), "{narrow}");
    }
}
