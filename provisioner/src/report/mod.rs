//! What happens becomes events; events become what people and machines read.
//!
//! [`Reporter`] gives each event its place in the sequence and hands it to every [`Output`]: [`Human`] (bars on a terminal,
//! lines elsewhere) and [`Json`]. Outputs say the same because they are told the same.

pub mod failure;
mod human;
mod json;
pub mod last;
mod sampler;
mod screen;
pub mod text;
mod voice;

use std::fmt::Display;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use imgstream::error::Result;
use protocol::RunId;
use protocol::event::{Body, Event, Phase, PhaseTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use human::Human;
pub use json::Json;
pub use last::Last;
pub use sampler::Sampler;
pub use screen::Screen;
pub use voice::Voice;

/// Somebody who is told the events. It must not wait for the run, nor log: it is called under the reporter's lock.
pub trait Output: Send {
    /// Tells one event.
    fn tell(&mut self, event: &Event);
}

/// Numbers events and hands them on.
pub struct Reporter {
    run: RunId,
    attempt: u32,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    next: u64,
    phase: Phase,
    times: Vec<PhaseTime>,
    ended: bool,
    outputs: Vec<Box<dyn Output>>,
}

impl Reporter {
    /// For one attempt at a run, which starts now.
    pub fn new(run: RunId, attempt: u32, outputs: Vec<Box<dyn Output>>) -> Self {
        let state = State { next: 0, phase: Phase::Spec, times: Vec::new(), ended: false, outputs };
        Reporter { run, attempt, start: Instant::now(), state: Mutex::new(state) }
    }

    /// Tells every output. After the terminal event there are no more.
    pub fn emit(&self, event: Body) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.ended = event.is_terminal();
        let event = Event {
            run: self.run.clone(),
            attempt: self.attempt,
            index: state.next,
            at: self.seconds(),
            time: now(),
            event,
        };
        state.next += 1;
        state.outputs.iter_mut().for_each(|output| output.tell(&event));
    }

    /// Does the work of a phase between its two events. A phase that fails has no second one: the run's last event tells.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn phase<T: Display>(&self, phase: Phase, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.lock().phase = phase.clone();
        self.emit(Body::PhaseStarted { phase: phase.clone() });
        let start = Instant::now();
        let done = work.await?;
        let seconds = milliseconds(start.elapsed().as_secs_f64());
        self.lock().times.push(PhaseTime { phase: phase.clone(), seconds });
        self.emit(Body::PhaseFinished { phase, seconds, detail: done.to_string() });
        Ok(done)
    }

    /// The phase that was started last.
    pub fn current_phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    /// How long the finished phases took.
    pub fn phase_times(&self) -> Vec<PhaseTime> {
        self.lock().times.clone()
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        milliseconds(self.start.elapsed().as_secs_f64())
    }

    // Events are told in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whole milliseconds: more digits say nothing, and fewer survive a journey through JSON.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    now.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use imgstream::error::Error;

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Event>>>);

    impl Output for Heard {
        fn tell(&mut self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn reporter() -> (Reporter, Heard) {
        let heard = Heard::default();
        let run = RunId::try_from("r-1".to_owned()).unwrap();
        (Reporter::new(run, 1, vec![Box::new(heard.clone())]), heard)
    }

    #[tokio::test]
    async fn phases_are_framed_numbered_and_timed() {
        let (reporter, heard) = reporter();
        let done = reporter.phase(Phase::Image, async { Ok("found") }).await.unwrap();
        assert_eq!(done, "found");
        let failed = reporter.phase(Phase::Target, async { Err::<String, _>(Error::target("mounted")) }).await;
        assert!(failed.is_err());
        assert_eq!(reporter.current_phase(), Phase::Target);
        assert_eq!(reporter.phase_times().len(), 1);
        let heard = heard.0.lock().unwrap();
        assert_eq!(heard.iter().map(|event| event.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(matches!(&heard[1].event, Body::PhaseFinished { detail, .. } if detail == "found"));
        assert_eq!(heard[2].event, Body::PhaseStarted { phase: Phase::Target });
    }

    #[test]
    fn nothing_follows_the_terminal_event() {
        let (reporter, heard) = reporter();
        let failure = failure::before_the_run(&Error::usage("x"));
        reporter.emit(Body::RunFailed(Box::new(failure)));
        reporter.emit(Body::Warning { message: "late".into() });
        assert_eq!(heard.0.lock().unwrap().len(), 1);
    }
}
