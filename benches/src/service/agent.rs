//! One agent's life: it enrols, reports once a second and now and then besides, keeps its lease, and says that it has finished.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::histogram::Histogram;
use super::wire::{Key, Net, Wire, request};
use super::words;
use crate::failure::{Context, Failure, Result};

/// Before something is tried again that was not answered, or too early.
const AGAIN: Duration = Duration::from_millis(200);
/// How often that is tried.
const TRIES: u32 = 100;
/// Between two reports of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// When what happens.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The first report of progress, of the first agent.
    pub begin: Instant,
    /// From here on everything is counted.
    pub measure: Instant,
    /// Until here; then agents finish, one after the other.
    pub end: Instant,
    /// The last of them.
    pub last: Instant,
}

/// What all agents share.
pub struct Stage {
    /// Where the service is.
    pub net: Net,
    /// How many agents there are.
    pub agents: usize,
    /// Between two events of high priority of one agent.
    pub high_every: Duration,
    /// When what happens, once that is known.
    pub times: watch::Receiver<Option<Times>>,
    /// What was counted.
    pub tally: std::sync::Mutex<Tally>,
}

/// What was counted, of what was due while it was measured.
#[derive(Default)]
pub struct Tally {
    /// From when a report of progress was due until it was answered.
    pub progress: Histogram,
    /// The same of reports of high priority.
    pub high: Histogram,
    /// The same of the reports with which agents end, after that.
    pub ends: Histogram,
    /// The same of renewed leases.
    pub leases: Histogram,
    /// Events that were answered, over all the time.
    pub answered: u64,
    /// What had to be said again, over all the time.
    pub again: u64,
}

/// A run that waits for its agent.
#[derive(Debug)]
pub struct Place {
    /// Its number.
    pub number: usize,
    /// The run.
    pub run: String,
    /// Its enrolment token.
    pub token: String,
}

/// An agent that has enrolled.
pub struct Agent {
    stage: Arc<Stage>,
    /// On which it shows its certificate.
    net: Net,
    number: usize,
    run: String,
    session: String,
    renew_after: Duration,
    /// The connection for all that it says.
    wire: Arc<Mutex<Option<Wire>>>,
    next: u64,
    /// Indices of the events of high priority that the service has taken.
    taken: Vec<u64>,
}

/// What the service must know of an agent in the end.
#[derive(Debug)]
pub struct Story {
    /// The run.
    pub run: String,
    /// Indices of the events of high priority that it has taken, in order.
    pub taken: Vec<u64>,
}

#[derive(Deserialize)]
struct Enrolled {
    session: String,
    lease: Terms,
    certificate: String,
}

#[derive(Deserialize)]
struct Terms {
    renew_after: u64,
}

/// Asks until it is answered; `again` counts what was said more than once.
async fn ask(net: &Net, wire: &Mutex<Option<Wire>>, text: &str, again: impl Fn()) -> Result<Vec<u8>> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let mut wire = wire.lock().await;
        match on(net, &mut wire, text).await {
            Ok((200 | 201, body)) => return Ok(body),
            // Not yet, or too much at once.
            Ok((status @ (409 | 429 | 503), body)) => last = format!("{status}: {}", String::from_utf8_lossy(&body)),
            Ok((status, body)) => {
                return Err(Failure::new(format!(
                    "an agent was answered {status}: {}",
                    String::from_utf8_lossy(&body)
                )));
            }
            Err(error) => {
                last = error.to_string();
                *wire = None;
            }
        }
        drop(wire);
        again();
        sleep(AGAIN).await;
    }
    Err(Failure::new(format!("an agent was not answered after {TRIES} tries: {last}")))
}

/// Asks once, on this connection or, where there is none, on a new one.
async fn on(net: &Net, wire: &mut Option<Wire>, text: &str) -> Result<(u16, Vec<u8>)> {
    let open = match wire.take() {
        Some(open) => open,
        None => net.connect().await?,
    };
    wire.insert(open).ask(text).await
}

impl Agent {
    /// Enrols, and says how it has begun.
    pub async fn enrol(stage: Arc<Stage>, place: Place) -> Result<Self> {
        let Place { number, run, token } = place;
        let key = Key::new()?;
        let stranger = Mutex::default();
        let text = request("POST", "/v1/agent/enrol", &token, "", Some(&words::enrol(&run, number, &key.public())));
        let answer = ask(&stage.net, &stranger, &text, || stage.tally().again += 1).await?;
        drop(stranger);
        let enrolled: Enrolled = serde_json::from_slice(&answer).context("an enrolment's answer")?;
        let net = key.shown(&stage.net, &enrolled.certificate)?;
        let wire = Arc::new(Mutex::new(Some(net.connect().await?)));
        let renew_after = Duration::from_secs(enrolled.lease.renew_after);
        let session = enrolled.session;
        let mut agent = Self { stage, net, number, run, session, renew_after, wire, next: 0, taken: Vec::new() };
        agent.say(0.0, &words::beginning()).await?;
        Ok(agent)
    }

    /// Lives until its run is over.
    pub async fn live(mut self) -> Result<Story> {
        let stage = Arc::clone(&self.stage);
        let renewing = tokio::spawn(renew(
            Arc::clone(&stage),
            self.net.clone(),
            Arc::clone(&self.wire),
            self.request("lease", "{}"),
            self.renew_after,
        ));
        let lived = self.report_all().await;
        // While nobody is asking on it: the next answer would be another one's.
        let wire = self.wire.lock().await;
        renewing.abort();
        drop(wire);
        lived?;
        Ok(Story { run: self.run, taken: self.taken })
    }

    async fn report_all(&mut self) -> Result<()> {
        let stage = Arc::clone(&self.stage);
        let times = stage.times.clone().wait_for(Option::is_some).await.ok().and_then(|times| *times);
        let Times { begin, measure, end, last } = times.context("nobody says when it begins")?;
        let share = |whole: Duration| whole.mul_f64(self.number as f64 / stage.agents as f64);
        let finish = end + share(last - end);
        let mut progress = begin + share(PROGRESS);
        // Another order than that of progress.
        let scattered = (self.number * 7919) % stage.agents;
        let mut high = begin + stage.high_every.mul_f64(scattered as f64 / stage.agents as f64);
        let whole = (last - begin).as_secs_f64();
        let mut said = self.number as u64;
        loop {
            let due = progress.min(high);
            if due >= end {
                break;
            }
            sleep_until(due).await;
            let at = (due - begin).as_secs_f64();
            if due == progress {
                progress += PROGRESS;
                self.advance(at, whole).await?;
            } else {
                high += stage.high_every;
                said += 1;
                self.say(at, &[words::now_and_then(said)]).await?;
            }
            if due >= measure {
                let mut tally = stage.tally();
                let histogram = if due + PROGRESS == progress { &mut tally.progress } else { &mut tally.high };
                histogram.record(due.elapsed());
            }
        }
        sleep_until(finish).await;
        // The end is said without the lease being asked for at the same time.
        self.say(whole, &words::end()).await?;
        stage.tally().ends.record(finish.elapsed());
        Ok(())
    }

    async fn advance(&mut self, at: f64, whole: f64) -> Result<()> {
        let event = words::event(&self.run, self.next, at, &words::progress(at, whole));
        self.next += 1;
        self.report(&[event]).await
    }

    /// Says what must not be lost.
    async fn say(&mut self, at: f64, bodies: &[String]) -> Result<()> {
        let numbered = (self.next..).zip(bodies);
        let events: Vec<String> = numbered.map(|(index, body)| words::event(&self.run, index, at, body)).collect();
        let first = self.next;
        self.next += bodies.len() as u64;
        self.report(&events).await?;
        self.taken.extend(first..self.next);
        Ok(())
    }

    async fn report(&self, events: &[String]) -> Result<()> {
        let text = self.request("events", &words::report(events));
        ask(&self.net, &self.wire, &text, || self.stage.tally().again += 1).await?;
        self.stage.tally().answered += events.len() as u64;
        Ok(())
    }

    fn request(&self, what: &str, body: &str) -> String {
        let path = format!("/v1/agent/runs/{}/attempts/1/{what}", self.run);
        request("POST", &path, &self.session, "user-agent: z-provisioner/0.1.0\r\n", Some(body))
    }
}

impl Stage {
    /// What was counted so far.
    pub fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_measured(&self, due: Instant) -> bool {
        self.times.borrow().is_some_and(|times| (times.measure..times.end).contains(&due))
    }
}

/// Renews a lease for ever.
async fn renew(
    stage: Arc<Stage>,
    net: Net,
    wire: Arc<Mutex<Option<Wire>>>,
    text: String,
    every: Duration,
) -> Result<()> {
    let mut due = Instant::now() + every;
    loop {
        sleep_until(due).await;
        ask(&net, &wire, &text, || stage.tally().again += 1).await?;
        if stage.is_measured(due) {
            stage.tally().leases.record(due.elapsed());
        }
        due += every;
    }
}
