//! One fleet against one service: orders are given, agents enrol, everything is measured while all of them stream, agents end, and what
//! the service has kept is compared with what it has taken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent::{Agent, Place, Stage, Story, Tally, Times};
use super::histogram::Quantiles;
use super::house::{Cost, House};
use super::watcher::{self, Heard, History};
use super::wire::{Net, request};
use super::words;
use crate::children::check_interrupted;
use crate::failure::{Context, Failure, Result};

/// Connections on which runs are ordered.
const ORDERING: usize = 32;
/// Requests that one of them sends before it reads the answers.
const AHEAD: usize = 16;
/// Agents that enrol at once, and watchers that connect at once.
const AT_ONCE: usize = 32;
/// Agents that end in a second.
const ENDS: f64 = 500.0;
/// From the first report of progress until it is measured, at most.
const WARM: Duration = Duration::from_secs(5);
/// How long the service may take to tell again all that has happened.
const TELLING: Duration = Duration::from_secs(600);

/// How much is asked of the service.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Agents.
    pub agents: usize,
    /// Seconds that are measured.
    pub seconds: u64,
    /// Watchers of one run each.
    pub watchers: usize,
    /// Watchers of all runs.
    pub fleet_watchers: usize,
    /// Seconds between two events of high priority of one agent.
    pub high_every: u64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Agents.
    pub agents: usize,
    /// Milliseconds from when a report of progress was due until it was answered.
    pub progress: Quantiles,
    /// The same of reports of high priority.
    pub high: Quantiles,
    /// The same of the last reports, when agents end.
    pub ends: Quantiles,
    /// The same of leases that were renewed.
    pub leases: Quantiles,
    /// Events that were taken each second.
    pub events_per_second: f64,
    /// CPU time of the service for each of them, with all else it did meanwhile, in microseconds.
    pub cpu_per_event: f64,
    /// The part of that in the kernel.
    pub kernel_per_event: f64,
    /// The share of a core that it used.
    pub load: f64,
    /// Bytes resident once all had enrolled.
    pub enrolled: u64,
    /// Bytes resident at the end of the measurement.
    pub resident: u64,
    /// Bytes resident at most, at any time.
    pub peak: u64,
    /// Seconds in which all runs were ordered.
    pub ordering: f64,
    /// Seconds in which all agents enrolled.
    pub enrolling: f64,
    /// Events of progress that a watcher of one run was told, each second.
    pub told_progress: f64,
    /// Bytes that a watcher of all runs was told, each second.
    pub fleet_bytes: f64,
    /// Runs that a watcher of all runs was told of, each second.
    pub fleet_runs: f64,
    /// Bytes of the largest event `fleet`.
    pub largest_fleet: u64,
    /// Events of high priority that were taken.
    pub taken: usize,
    /// What was said again, because it was not answered.
    pub again: u64,
    /// What is missing, or wrong.
    pub losses: Vec<String>,
}

/// What was counted between two moments.
struct Window {
    from: (Cost, [u64; 5], u64),
    to: (Cost, [u64; 5], u64),
    seconds: f64,
}

/// Runs one.
pub async fn run(within: &Path, core: Option<usize>, size: Size) -> Result<Figures> {
    let Size { agents, watchers, fleet_watchers, .. } = size;
    let house = House::start(within, agents, watchers + fleet_watchers + 1, core)?;
    let result = measured(&house, size).await;
    result.map_err(|error| {
        let log = house.log();
        let last: Vec<&str> = log.lines().filter(|line| !line.contains("INFO")).rev().take(5).collect();
        Failure::new(format!("{agents} agents: {error}\n{}", last.join("\n")))
    })
}

async fn measured(house: &House, size: Size) -> Result<Figures> {
    let began = Instant::now();
    let places = order(house, size.agents).await?;
    let ordering = began.elapsed().as_secs_f64();
    eprintln!("  ordered in {ordering:.1} s");
    let (begins, times) = watch::channel(None);
    let stage = Arc::new(Stage {
        net: house.net.clone(),
        agents: size.agents,
        high_every: Duration::from_secs(size.high_every),
        times,
        tally: std::sync::Mutex::new(Tally::default()),
    });
    let began = Instant::now();
    let runs: Vec<String> = places.iter().take(size.watchers).map(|place| place.run.clone()).collect();
    let mut living = enrol(&stage, places).await?;
    let enrolling = began.elapsed().as_secs_f64();
    let enrolled = house.cost()?.resident;
    eprintln!("  enrolled in {enrolling:.1} s");
    let heard = Arc::new(Heard::default());
    let mut watching = watch_all(house, size, runs, &heard).await?;

    eprintln!("  watched");
    let begin = Instant::now() + Duration::from_millis(200);
    let seconds = Duration::from_secs(size.seconds);
    let measure = begin + WARM.min(seconds);
    let end = measure + seconds;
    let last = end + Duration::from_secs_f64((size.agents as f64 / ENDS).max(1.0));
    begins.send_replace(Some(Times { begin, measure, end, last }));
    let mut marks = Vec::new();
    for mark in [measure, end] {
        let mut stories = Vec::new();
        until(mark, &mut living, &mut stories).await?;
        marks.push((house.cost()?, counts(&heard), stage.tally().answered));
    }
    eprintln!("  measured");
    let stories = all(&mut living).await?;
    eprintln!("  ended");
    let mut losses = compare(house, size, &stories).await?;
    losses.extend(told_otherwise(&mut watching, &stories).await?);
    let [from, to] = marks[..] else { return Err(Failure::new("it was not measured")) };
    let window = Window { from, to, seconds: seconds.as_secs_f64() };
    let peak = house.cost()?.peak;
    let tally = stage.tally();
    Ok(Figures { ordering, enrolling, enrolled, peak, losses, ..window.figures(size, &tally, &heard, &stories) })
}

/// Orders the runs, and has a token for each.
async fn order(house: &House, agents: usize) -> Result<Vec<Place>> {
    #[derive(Deserialize)]
    struct Run {
        run: String,
    }
    #[derive(Deserialize)]
    struct Token {
        token: String,
    }
    let operator = &house.token;
    let requests = (0..agents).map(|number| {
        let key = format!("idempotency-key: simulated-{number}\r\n");
        request("POST", "/v1/runs", operator, &key, Some(&words::order(number)))
    });
    let created = answers(&house.net, requests.collect()).await?;
    let runs =
        created.iter().map(|body| serde_json::from_slice::<Run>(body).context("a run")).collect::<Result<Vec<_>>>()?;
    let tokens =
        runs.iter().map(|Run { run }| request("POST", &format!("/v1/runs/{run}/token"), operator, "", Some("{}")));
    let tokens = answers(&house.net, tokens.collect()).await?;
    let places = runs.into_iter().zip(tokens).enumerate().map(|(number, (Run { run }, body))| {
        let Token { token } = serde_json::from_slice(&body).context("an enrolment token")?;
        Ok(Place { number, run, token })
    });
    places.collect()
}

/// The answers to requests, several of which are under way at once on each of a few connections.
async fn answers(net: &Net, requests: Vec<String>) -> Result<Vec<Vec<u8>>> {
    let count = requests.len();
    let mut parts = vec![Vec::new(); ORDERING];
    requests.into_iter().enumerate().for_each(|(at, text)| parts[at % ORDERING].push((at, text)));
    let mut asking = JoinSet::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let net = net.clone();
        asking.spawn(async move {
            let mut wire = net.connect().await?;
            let mut answers = Vec::new();
            let mut left = part;
            while !left.is_empty() {
                let now: Vec<_> = left.drain(..left.len().min(AHEAD)).collect();
                wire.send(&now.iter().map(|(_, text)| text.as_str()).collect::<String>()).await?;
                for (at, text) in now {
                    match wire.answer().await? {
                        (200 | 201, body) => answers.push((at, body)),
                        (429 | 503, _) => left.push((at, text)),
                        (status, body) => {
                            let said = String::from_utf8_lossy(&body).into_owned();
                            return Err(Failure::new(format!("an order was answered {status}: {said}")));
                        }
                    }
                }
                if left.iter().map(|(at, _)| at).any(|at| answers.last().is_some_and(|(last, _)| at < last)) {
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Ok(answers)
        });
    }
    let mut all = vec![Vec::new(); count];
    while let Some(answers) = asking.join_next().await {
        for (at, body) in answers.context("asking")?? {
            all[at] = body;
        }
    }
    Ok(all)
}

/// Lets all agents enrol, a few at once, and live.
async fn enrol(stage: &Arc<Stage>, places: Vec<Place>) -> Result<JoinSet<Result<Story>>> {
    let (mut living, mut enrolling) = (JoinSet::new(), JoinSet::new());
    for place in places {
        if enrolling.len() >= AT_ONCE {
            begin(&mut enrolling, &mut living).await?;
        }
        enrolling.spawn(Agent::enrol(Arc::clone(stage), place));
    }
    while !enrolling.is_empty() {
        begin(&mut enrolling, &mut living).await?;
    }
    Ok(living)
}

async fn begin(enrolling: &mut JoinSet<Result<Agent>>, living: &mut JoinSet<Result<Story>>) -> Result<()> {
    check_interrupted()?;
    if let Some(agent) = enrolling.join_next().await {
        living.spawn(agent.context("enrolling")??.live());
    }
    Ok(())
}

/// Those who watch all, and those who watch one, whose run is named.
type Watching = JoinSet<Result<(Option<String>, History)>>;

async fn watch_all(house: &House, size: Size, runs: Vec<String>, heard: &Arc<Heard>) -> Result<Watching> {
    let mut watching = JoinSet::new();
    let (net, token) = (&house.net, &house.token);
    for (number, run) in runs.into_iter().map(Some).chain(vec![None; size.fleet_watchers]).enumerate() {
        let (net, token, heard) = (net.clone(), token.clone(), Arc::clone(heard));
        watching.spawn(async move {
            let history = match &run {
                Some(run) => watcher::of_one(net, token, run.clone(), heard).await?,
                None => watcher::of_all(net, token, None, size.agents, heard).await?,
            };
            Ok((run, history))
        });
        if number % AT_ONCE == AT_ONCE - 1 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    // Until the last of them has its first piece.
    sleep(Duration::from_secs(1)).await;
    Ok(watching)
}

/// Waits, while nothing goes wrong.
async fn until(when: Instant, living: &mut JoinSet<Result<Story>>, stories: &mut Vec<Story>) -> Result<()> {
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = sleep_until(when) => return Ok(()),
            _ = look.tick() => check_interrupted()?,
            Some(lived) = living.join_next() => stories.push(lived.context("an agent")??),
        }
    }
}

async fn all(living: &mut JoinSet<Result<Story>>) -> Result<Vec<Story>> {
    let mut stories = Vec::new();
    while let Some(lived) = living.join_next().await {
        check_interrupted()?;
        stories.push(lived.context("an agent")??);
    }
    Ok(stories)
}

/// Has everything told again, and compares.
async fn compare(house: &House, size: Size, stories: &[Story]) -> Result<Vec<String>> {
    let heard = Arc::new(Heard::default());
    let telling = watcher::of_all(house.net.clone(), house.token.clone(), Some(0), size.agents, heard);
    let told = tokio::time::timeout(TELLING, telling).await;
    let history = told.map_err(|_| Failure::new("the service did not tell all runs' ends"))??;
    let mut losses = history.losses(stories);
    if stories.len() != size.agents {
        losses.push(format!("{} of {} agents ended", stories.len(), size.agents));
    }
    Ok(losses)
}

/// What watchers were told otherwise.
async fn told_otherwise(watching: &mut Watching, stories: &[Story]) -> Result<Vec<String>> {
    let mut losses = Vec::new();
    while let Some(watched) =
        tokio::time::timeout(TELLING, watching.join_next()).await.context("a watcher waits for ever")?
    {
        check_interrupted()?;
        let (run, history) = watched.context("a watcher")??;
        // One of all has begun in the middle: what counts is that no number is missing.
        let story: &[Story] = match &run {
            Some(run) => stories.iter().position(|of| of.run == *run).map_or(&[], |at| &stories[at..=at]),
            None => &[],
        };
        losses.extend(history.losses(story).into_iter().map(|loss| format!("a watcher was told otherwise: {loss}")));
    }
    Ok(losses)
}

fn counts(heard: &Heard) -> [u64; 5] {
    let Heard { progress, fleets, glances, largest, bytes } = heard;
    [progress, fleets, glances, largest, bytes].map(|count| count.load(Ordering::Relaxed))
}

impl Window {
    fn figures(&self, size: Size, tally: &Tally, heard: &Heard, stories: &[Story]) -> Figures {
        let Window { from: (before, counted, first), to: (after, counts, last), seconds } = self;
        let events = (last - first) as f64;
        let (user, system) = (after.user - before.user, after.system - before.system);
        let each =
            |which: usize, watchers: usize| (counts[which] - counted[which]) as f64 / seconds / watchers.max(1) as f64;
        Figures {
            agents: size.agents,
            progress: tally.progress.quantiles(),
            high: tally.high.quantiles(),
            ends: tally.ends.quantiles(),
            leases: tally.leases.quantiles(),
            events_per_second: events / seconds,
            cpu_per_event: (user + system) * 1e6 / events.max(1.0),
            kernel_per_event: system * 1e6 / events.max(1.0),
            load: (user + system) / seconds,
            enrolled: 0,
            resident: after.resident,
            peak: after.peak,
            ordering: 0.0,
            enrolling: 0.0,
            told_progress: each(0, size.watchers.min(size.agents)),
            fleet_bytes: each(4, size.fleet_watchers),
            fleet_runs: each(2, size.fleet_watchers),
            largest_fleet: heard.largest.load(Ordering::Relaxed),
            taken: stories.iter().map(|story| story.taken.len()).sum(),
            again: tally.again,
            losses: Vec::new(),
        }
    }
}
