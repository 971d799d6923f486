//! What people see: bars on a terminal, a line now and then elsewhere, one object per line with `--json`.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::Error;
use imgstream::progress::{Phase, Progress, Snapshot, Stage};
use imgstream::size::Size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// Sends warnings, and with `-vv` what happens inside, to stderr. `RUST_LOG` decides where it is set.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        0 | 1 => "warn",
        2 => "imgstream=debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}

/// An error: what happened, what to do, and with `-v` why.
pub fn error(error: &Error, with_causes: bool) {
    say!("error: {error}");
    if with_causes {
        error.causes().iter().for_each(|cause| say!("  because: {cause}"));
    }
    if let Some(hint) = error.hint() {
        say!("hint: {hint}");
    }
}

/// Writes one object as a line to stdout. A reader that went away is not our problem.
pub fn json_line(object: &serde_json::Value) {
    let _ = writeln!(std::io::stdout().lock(), "{object}");
}

/// What a progress display shows.
pub struct Shown {
    /// The verb, such as `writing`.
    pub what: &'static str,
    /// Done.
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// The stage that limits, where that is known.
    pub limit: Option<&'static str>,
}

impl Shown {
    fn title(&self) -> String {
        self.limit.map_or_else(|| self.what.to_owned(), |limit| format!("{}, {limit}-bound", self.what))
    }
}

/// Draws what `look` says until dropped.
pub struct Display {
    task: tokio::task::JoinHandle<()>,
    bar: ProgressBar,
}

impl Display {
    /// Starts drawing; `json` is called with every second look instead of drawing, when given.
    pub fn start(mut look: impl FnMut() -> Shown + Send + 'static, json: Option<fn(&Shown)>) -> Self {
        let terminal = std::io::stderr().is_terminal() && json.is_none();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_draw_target(if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        let template =
            "{msg:22} {wide_bar} {binary_bytes:>10}/{binary_total_bytes:10} {binary_bytes_per_sec:>12} {eta:>4}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let drawn = bar.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(if terminal {
                REDRAW
            } else if json.is_some() {
                Duration::from_secs(1)
            } else {
                LINE
            });
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let shown = look();
                match (terminal, json) {
                    (_, Some(json)) => json(&shown),
                    (true, None) => {
                        drawn.set_length(shown.total);
                        drawn.set_position(shown.done);
                        drawn.set_message(shown.title());
                    }
                    (false, None) => {
                        say!("{}: {} of {}", shown.title(), Size(shown.done), Size(shown.total));
                    }
                }
            }
        });
        Display { task, bar }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// A look at the data path's counters.
pub fn data_path(progress: Arc<Progress>) -> impl FnMut() -> Shown + Send + 'static {
    let mut before = progress.snapshot();
    move || {
        let now = progress.snapshot();
        let shown = describe(&now, &before);
        // A second at least, so that the limiting stage does not flicker.
        if now.at.duration_since(before.at) > Duration::from_secs(1) {
            before = now;
        }
        shown
    }
}

fn describe(now: &Snapshot, before: &Snapshot) -> Shown {
    let (what, done, total) = match now.phase {
        Phase::Starting => ("starting", 0, now.raw_total),
        Phase::Comparing => ("comparing", now.compared, now.raw_total),
        Phase::Invalidating => ("invalidating", 0, now.raw_total),
        Phase::Writing => ("writing", now.landed(), now.raw_total),
        Phase::ClearingTail => ("clearing the tail", now.tail_cleared, now.tail_total),
        Phase::Flushing => ("flushing", now.landed(), now.raw_total),
        Phase::ReadingBack => ("reading back", now.read_back, now.raw_total),
        Phase::Committing | Phase::Done => ("committing", now.raw_total, now.raw_total),
    };
    let limit = now.limiting_stage(before).filter(|_| now.phase == Phase::Writing).map(Stage::name);
    Shown { what, done, total, limit }
}

/// A progress object for `--json`.
pub fn progress_line(shown: &Shown) {
    json_line(
        &json!({"event": "progress", "phase": shown.what, "bytes": shown.done, "of": shown.total, "limited_by": shown.limit}),
    );
}
