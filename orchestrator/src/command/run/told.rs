//! How what happens is told: bars where stderr is a terminal, lines now and then where it is not, JSON for programs.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use protocol::RunId;
use protocol::control::Run;
use protocol::control::run::{Glance, Happening, RunState, What};
use protocol::event::{Body, Step};

use super::words;
use crate::client::News;
use crate::command::on_stdout;
use crate::command::screen::Screen;
use crate::error::{Error, Result};
use crate::text::{percent, printable};

/// Without bars, a line of progress comes at most this often…
const LINE_EVERY: Duration = Duration::from_secs(5);
/// …or when this much more of the whole is done, in percent.
const LINE_STEP: u64 = 10;

/// Tells it.
pub(super) struct Told {
    screen: Screen,
    json: bool,
    bars: HashMap<RunId, (Step, ProgressBar)>,
    lines: HashMap<RunId, Line>,
    away: HashSet<usize>,
}

/// The last line of progress of a run.
struct Line {
    step: Step,
    when: Instant,
    percent: u64,
}

impl Told {
    /// On this screen; with `json`, what happens goes to stdout instead.
    pub(super) fn new(screen: &Screen, json: bool) -> Self {
        // Bars and JSON on one terminal would tear each other.
        let torn = json && std::io::stdout().is_terminal();
        let screen = if torn { screen.without_bars() } else { screen.clone() };
        Told { screen, json, bars: HashMap::new(), lines: HashMap::new(), away: HashSet::new() }
    }

    /// What one stream brought.
    pub(super) fn news(&mut self, stream: usize, news: &News) -> Result<()> {
        match news {
            News::Happened(happening) => return self.happened(happening),
            News::Progress(glance) => self.progress(glance),
            News::Away { error, .. } => {
                // Of many streams the first says it; each goes on trying.
                if self.away.is_empty() {
                    self.screen.lines(&format!("the service is away, and asked again until it is back: {error}"));
                }
                self.away.insert(stream);
            }
            News::Back => {
                if self.away.remove(&stream) && self.away.is_empty() {
                    self.screen.lines("the service is back");
                }
            }
        }
        Ok(())
    }

    /// That a run is over, and how.
    pub(super) fn over(&mut self, run: &Run) {
        self.end_bar(&run.run);
        if !self.json {
            self.screen.lines(&words::end(run));
        }
    }

    fn happened(&mut self, happening: &Happening) -> Result<()> {
        if self.ends_bar(&happening.what) {
            self.end_bar(&happening.run);
        }
        if self.json {
            let json = serde_json::to_string(happening);
            let json = json.map_err(|error| Error::system(format!("writing an event as JSON: {error}")))?;
            return self.screen.aside(|| on_stdout(format!("{json}\n").as_bytes()));
        }
        if let Some(text) = line(&happening.what) {
            self.screen.lines(&format!("{} {}  {text}", printable(&happening.time), happening.run));
        }
        Ok(())
    }

    fn ends_bar(&self, what: &What) -> bool {
        match what {
            What::State(change) => change.state != RunState::Running,
            What::Agent(event) => {
                matches!(event.event, Body::StepStarted { .. } | Body::PhaseFinished { .. })
                    || event.event.is_terminal()
            }
            What::Key(_) => false,
        }
    }

    fn end_bar(&mut self, run: &RunId) {
        if let Some((_, bar)) = self.bars.remove(run) {
            bar.finish_and_clear();
        }
        self.lines.remove(run);
    }

    fn progress(&mut self, progress: &Glance) {
        let run = &progress.run;
        if !self.screen.has_bars() {
            let is_due = !self.json && self.is_line_due(progress, Instant::now());
            if is_due {
                self.screen.lines(&format!(
                    "{run}  {}: {}",
                    printable(progress.step.name()),
                    words::progress(progress)
                ));
            }
            return;
        }
        if self.bars.get(run).is_none_or(|(step, _)| *step != progress.step) {
            self.end_bar(run);
            let name = format!("{run}  {:10}", printable(progress.step.name()));
            if let Some(bar) = self.screen.bar(&name, progress.total_bytes) {
                self.bars.insert(run.clone(), (progress.step.clone(), bar));
            }
        }
        if let Some((_, bar)) = self.bars.get(run) {
            bar.set_message(words::progress(progress));
            bar.set_position(progress.bytes);
        }
    }

    fn is_line_due(&mut self, progress: &Glance, now: Instant) -> bool {
        let run = &progress.run;
        let percent = percent(progress.bytes, progress.total_bytes);
        let is_due = match self.lines.get(run) {
            Some(line) if line.step == progress.step => {
                now.duration_since(line.when) >= LINE_EVERY
                    || percent >= line.percent + LINE_STEP
                    || (percent == 100 && line.percent < 100)
            }
            // The first sample of a step has nothing to say yet.
            _ => {
                self.lines.insert(run.clone(), Line { step: progress.step.clone(), when: now, percent });
                false
            }
        };
        if is_due {
            self.lines.insert(run.clone(), Line { step: progress.step.clone(), when: now, percent });
        }
        is_due
    }
}

/// What happened in one line, for what people are told of.
fn line(what: &What) -> Option<String> {
    match what {
        What::State(change) => {
            let attempt = if change.attempt == 0 { String::new() } else { format!(", attempt {}", change.attempt) };
            let reason = if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
            Some(printable(&format!("{}{attempt}{reason}", change.state)))
        }
        What::Agent(event) => words::event(&event.event).map(|text| format!("  {text}")),
        What::Key(event) => Some(words::key_event(event)),
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::run::StateChanged;
    use protocol::event::Phase;

    use super::*;

    #[test]
    fn lines_come_every_five_seconds_or_ten_percent() {
        let run: RunId = "r-1".to_owned().try_into().unwrap();
        let other: RunId = "r-2".to_owned().try_into().unwrap();
        let mut told = Told::new(&Screen::of_this_process().without_bars(), false);
        let start = Instant::now();
        let mut is_due = |run: &RunId, step: Step, bytes, milliseconds| {
            let progress = Glance {
                run: run.clone(),
                phase: Phase::Stream,
                step,
                bytes,
                total_bytes: 100,
                rate: 0,
                limited_by: None,
                eta_seconds: None,
                paths: None,
            };
            told.is_line_due(&progress, start + Duration::from_millis(milliseconds))
        };
        assert!(!is_due(&run, Step::Write, 0, 0) && !is_due(&run, Step::Write, 9, 1000));
        assert!(!is_due(&other, Step::Write, 50, 1000), "each run has lines of its own");
        assert!(is_due(&run, Step::Write, 10, 1100));
        assert!(!is_due(&run, Step::Write, 11, 6000) && is_due(&run, Step::Write, 11, 6200));
        assert!(!is_due(&run, Step::ReadBack, 95, 6300) && is_due(&run, Step::ReadBack, 100, 6400));
    }

    #[test]
    fn a_state_is_one_line_without_control_characters() {
        let state = |attempt, reason: &str| {
            line(&What::State(StateChanged { state: RunState::Queued, attempt, reason: reason.into() }))
        };
        assert_eq!(state(0, ""), Some("queued".into()));
        assert_eq!(state(2, "a\r\nb\u{1b}[1m"), Some("queued, attempt 2: a\u{fffd}\u{fffd}b\u{fffd}[1m".into()));
    }
}
