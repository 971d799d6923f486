//! Events for a person on stderr: bars where it is a terminal, lines now and then where it is not.

use indicatif::ProgressBar;
use protocol::event::{Body, Event, Progress, Step};

use super::{Output, Screen, text};

/// Without bars, a line of progress comes at most this often, in seconds…
const LINE_EVERY: f64 = 5.0;
/// …or when this much more of the whole is done, in percent.
const LINE_STEP: u64 = 10;

/// Tells a person.
pub struct Human {
    screen: Screen,
    verbose: bool,
    bar: Option<(Step, ProgressBar)>,
    last_line: Option<(Step, f64, u64)>,
}

impl Human {
    /// On `screen`; verbose shows the causes of an error.
    pub fn new(screen: Screen, verbose: bool) -> Self {
        Human { screen, verbose, bar: None, last_line: None }
    }

    fn progress(&mut self, progress: &Progress, at: f64) {
        if self.bar.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            self.end_bar();
            let bar = self.screen.bar(progress.step.name(), progress.total_bytes);
            self.bar = bar.map(|bar| (progress.step.clone(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_message(text::progress(progress));
            bar.set_position(progress.bytes);
        } else if self.is_line_due(progress, at) {
            self.screen.lines(&format!("  {:10} {}", progress.step.name(), text::progress(progress)));
        }
    }

    fn is_line_due(&mut self, progress: &Progress, at: f64) -> bool {
        let percent = text::percent(progress.bytes, progress.total_bytes);
        let is_due = match &self.last_line {
            Some((step, then, done)) if *step == progress.step => {
                at - then >= LINE_EVERY || percent >= done + LINE_STEP || (percent == 100 && *done < 100)
            }
            // The first sample of a step has nothing to say yet.
            _ => {
                self.last_line = Some((progress.step.clone(), at, percent));
                false
            }
        };
        if is_due {
            self.last_line = Some((progress.step.clone(), at, percent));
        }
        is_due
    }

    fn end_bar(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Output for Human {
    fn tell(&mut self, event: &Event) {
        match &event.event {
            Body::Progress(progress) => return self.progress(progress, event.at),
            Body::StepStarted { .. } | Body::PhaseFinished { .. } => self.end_bar(),
            Body::RunFinished(summary) => {
                self.end_bar();
                return self.screen.lines(&text::summary(summary));
            }
            Body::RunFailed(failure) => {
                self.end_bar();
                return self.screen.lines(&text::failed(failure, self.verbose));
            }
            _ => {}
        }
        if let Some(line) = text::of(&event.event) {
            self.screen.lines(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::{Phase, Rates};

    use super::*;

    #[test]
    fn lines_come_every_five_seconds_or_ten_percent() {
        let mut human = Human::new(Screen::new(false), false);
        let mut is_due = |step: Step, bytes, at| {
            let progress = Progress {
                phase: Phase::Stream,
                step,
                bytes,
                total_bytes: 100,
                chunks: 0,
                total_chunks: 0,
                rates: Rates::default(),
                limited_by: None,
                eta_seconds: None,
            };
            human.is_line_due(&progress, at)
        };
        assert!(!is_due(Step::Write, 0, 0.0));
        assert!(!is_due(Step::Write, 9, 1.0));
        assert!(is_due(Step::Write, 10, 1.1));
        assert!(!is_due(Step::Write, 11, 6.0));
        assert!(is_due(Step::Write, 11, 6.2));
        assert!(!is_due(Step::ReadBack, 95, 6.3));
        assert!(is_due(Step::ReadBack, 100, 6.4));
    }
}
