//! Who tells people what happens, also while there is no run yet.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use imgstream::error::Result;
use protocol::event::{Body, Failure};

use super::{Reporter, Screen, text};

/// Tells the run's outputs once there is a run, and the screen before that. Clones share it.
#[derive(Clone)]
pub struct Voice {
    screen: Screen,
    run: Arc<OnceLock<Arc<Reporter>>>,
}

impl Voice {
    /// Before there is a run.
    pub fn new(screen: Screen) -> Self {
        Voice { screen, run: Arc::default() }
    }

    /// From here on there is one. A second one in one process would be a second run: the first is told everything.
    pub fn begin(&self, reporter: &Arc<Reporter>) {
        let _ = self.run.set(Arc::clone(reporter));
    }

    /// The run's reporter, once there is a run.
    pub fn run(&self) -> Option<&Reporter> {
        self.run.get().map(|reporter| &**reporter)
    }

    /// Where people read.
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Tells an event. The screen is told of what has a line.
    pub fn tell(&self, event: Body) {
        match self.run() {
            Some(reporter) => reporter.emit(event),
            None => text::of(&event).iter().for_each(|line| self.screen.lines(line)),
        }
    }

    /// Warns.
    pub fn warn(&self, message: String) {
        self.tell(Body::Warning { message });
    }

    /// Says something to people alone, whether there is a run, or was one.
    pub fn say(&self, text: &str) {
        self.screen.lines(text);
    }

    /// Says why there is no run.
    pub fn say_failed(&self, failure: &Failure) {
        self.screen.lines(&text::failed(failure, true));
    }

    /// Does work before there is a run, and says of it what is said of a run's phases.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn part<T: Display>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let done = work.await?;
        self.screen.lines(&text::done(name, &done.to_string(), start.elapsed().as_secs_f64()));
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use protocol::RunId;
    use protocol::event::{Event, Phase, Step};

    use super::super::Output;
    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Body>>>);

    impl Output for Heard {
        fn tell(&mut self, event: &Event) {
            self.0.lock().unwrap().push(event.event.clone());
        }
    }

    #[tokio::test]
    async fn what_happens_is_told_the_run_once_there_is_one() {
        let (voice, heard) = (Voice::new(Screen::new(false)), Heard::default());
        let other = voice.clone();
        other.warn("before the run".into());
        other.tell(Body::StepStarted { phase: Phase::Network, step: Step::Ipsec });
        assert_eq!(voice.part("network", async { Ok("joined") }).await.unwrap(), "joined");
        assert!(other.run().is_none());
        let run = |id: &str| RunId::try_from(id.to_owned()).unwrap();
        voice.begin(&Arc::new(Reporter::new(run("r-1"), 1, vec![Box::new(heard.clone())])));
        voice.begin(&Arc::new(Reporter::new(run("r-2"), 1, Vec::new())));
        other.warn("in the run".into());
        other.say("for people");
        assert_eq!(*heard.0.lock().unwrap(), [Body::Warning { message: "in the run".into() }]);
    }
}
