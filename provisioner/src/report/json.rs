//! Events on stdout, one JSON object per line.

use std::io::Write;

use protocol::event::{Body, Event};

use super::{Output, Screen};

/// Progress is told at most this often, in seconds.
const PROGRESS_EVERY: f64 = 1.0;

/// Writes events to `W`.
pub struct Json<W> {
    out: Option<W>,
    screen: Screen,
    last_progress: f64,
}

impl<W: Write + Send> Json<W> {
    /// To `out`; trouble with that is told on `screen`.
    pub fn new(out: W, screen: Screen) -> Self {
        Json { out: Some(out), screen, last_progress: f64::NEG_INFINITY }
    }

    fn is_wanted(&mut self, event: &Event) -> bool {
        let Body::Progress(progress) = &event.event else {
            return true;
        };
        let is_due = event.at - self.last_progress >= PROGRESS_EVERY || progress.bytes == progress.total_bytes;
        if is_due {
            self.last_progress = event.at;
        }
        is_due
    }
}

impl<W: Write + Send> Output for Json<W> {
    fn tell(&mut self, event: &Event) {
        if !self.is_wanted(event) {
            return;
        }
        let Some(out) = &mut self.out else { return };
        let told = serde_json::to_string(event)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(out, "{text}"))
            .and_then(|()| out.flush());
        if let Err(error) = told {
            // The disk matters more than its audience: the run goes on, and says so where somebody may still read.
            self.screen.lines(&format!("warning: writing events to stdout: {error}; no more events there"));
            self.out = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use protocol::RunId;
    use protocol::event::{Phase, Progress, Rates, Step};

    use super::*;

    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn event(index: u64, at: f64, event: Body) -> Event {
        let run = RunId::try_from("r".to_owned()).unwrap();
        Event { run, attempt: 1, index, at, time: String::new(), event }
    }

    fn progress(bytes: u64) -> Body {
        Body::Progress(Progress {
            phase: Phase::Stream,
            step: Step::Write,
            bytes,
            total_bytes: 100,
            chunks: 0,
            total_chunks: 0,
            rates: Rates::default(),
            limited_by: None,
            eta_seconds: None,
        })
    }

    #[test]
    fn progress_is_thinned_and_nothing_else() {
        let pipe = Pipe::default();
        let mut json = Json::new(pipe.clone(), Screen::new(false));
        let warning = || Body::Warning { message: "x".into() };
        let told = [(0.0, progress(1)), (0.1, progress(2)), (0.2, warning()), (0.3, warning()), (0.9, progress(9))];
        let told = told.into_iter().chain([(0.95, progress(100)), (1.2, progress(50)), (2.0, progress(60))]);
        for (index, (at, body)) in told.enumerate() {
            json.tell(&event(index as u64, at, body));
        }
        let text = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.iter().map(|event| event.index).collect::<Vec<_>>(), [0, 2, 3, 5, 7]);
    }
}
