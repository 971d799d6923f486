//! Attaching: look at every way, do what helps, look again, until all are up or the time is over.
//!
//! All ways are worked on at once, so that one that is dead costs the others no time. Where each stands is read anew
//! each time; nothing is remembered but which orders the kernel was given.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Result};
use protocol::spec::FcpSpec;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Fabric;
use super::adapter::{Adapter, scans_luns};
use super::explain::{self, Words};
use super::standing::{Seen, Standing, standing};
use super::step::{BUSY, Step, helps};
use super::undo::{Attached, Set, Unanswered};
use crate::cio::{is_busy, is_ignored};
use crate::sysfs::Roots;

/// How often sysfs is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// When what is waited for is told first; then each time that has doubled.
const TELL: Duration = Duration::from_secs(5);

/// What [`Fabric::attach`] does.
pub(super) async fn attach(
    fabric: &Fabric,
    ways: &[FcpSpec],
    wait: Duration,
    tell: &(dyn Fn(String) + Sync),
    cancel: &CancellationToken,
) -> (Attached, Result<()>) {
    let now = Instant::now();
    let ways = ways.iter().map(|spec| Way { spec, seen: Arc::default(), standing: Standing::Unknown, since: now });
    let mut work = Work { roots: &fabric.roots, ways: ways.collect(), orders: HashMap::new(), set: Vec::new() };
    let ended = work.run(wait, tell, cancel).await;
    (work.into_attached(), ended)
}

/// One way, and where it stood when it was looked at.
struct Way<'a> {
    spec: &'a FcpSpec,
    seen: Arc<Seen>,
    standing: Standing,
    since: Instant,
}

/// An adapter's attribute, and what was written to it.
type Key = (String, PathBuf, String);

/// An order that was given, and what became of it.
struct Order {
    step: Step,
    doing: String,
    sets: Option<Set>,
    times: u32,
    running: Option<JoinHandle<io::Result<()>>>,
    ended: Instant,
    refused: Option<io::Error>,
}

struct Work<'a> {
    roots: &'a Roots,
    ways: Vec<Way<'a>>,
    orders: HashMap<Key, Order>,
    set: Vec<Set>,
}

impl Work<'_> {
    async fn run(&mut self, wait: Duration, tell: &(dyn Fn(String) + Sync), cancel: &CancellationToken) -> Result<()> {
        let start = Instant::now();
        let mut next_tell = TELL;
        loop {
            if cancel.is_cancelled() {
                return Err(Error::cancelled("attaching zFCP LUNs"));
            }
            self.hear().await;
            self.look();
            let waited = start.elapsed();
            if waited >= wait || self.is_decided() {
                return self.verdict((waited >= wait).then_some(wait));
            }
            self.give_orders();
            if waited >= next_tell {
                next_tell *= 2;
                tell(self.waits_for(waited));
            }
            let pause = LOOK.min(wait.saturating_sub(waited));
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What the kernel answered in the meantime.
    async fn hear(&mut self) {
        for order in self.orders.values_mut() {
            let Some(running) = order.running.take_if(|running| running.is_finished()) else { continue };
            let answer = running.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            order.ended = Instant::now();
            order.refused = answer.err();
            if order.refused.is_some() {
                // Not done, or done by somebody else: not ours to undo.
                self.set.retain(|set| order.sets.as_ref() != Some(set));
            }
        }
    }

    fn look(&mut self) {
        let roots = self.roots;
        let (channels, scans_luns) = (roots.sys("bus/ccw").is_dir(), scans_luns(roots));
        let see = |bus_id: &str| {
            let adapter = Adapter::read(roots, bus_id);
            let ignored = adapter.is_none() && is_ignored(roots, bus_id);
            Arc::new(Seen { channels, ignored, scans_luns, adapter })
        };
        let mut seen = HashMap::new();
        for way in &mut self.ways {
            let bus_id = way.spec.adapter.as_str();
            way.seen = Arc::clone(seen.entry(bus_id).or_insert_with(|| see(bus_id)));
            let now = standing(way.spec, &way.seen);
            if now != way.standing {
                way.since = Instant::now();
            }
            way.standing = now;
        }
    }

    /// Gives the orders that help and were not given yet. An adapter does one thing at a time.
    fn give_orders(&mut self) {
        for number in 0..self.ways.len() {
            let way = &self.ways[number];
            let Some(step) = helps(&way.standing, &way.seen, way.since.elapsed()) else { continue };
            let Some(key) = self.key(step, way) else { continue };
            let times = match self.orders.get(&key) {
                _ if self.running(way).is_some() => continue,
                Some(order) if !order.may_be_repeated() => continue,
                Some(order) => order.times + 1,
                None => 1,
            };
            let (sets, doing) = (step.sets(way.spec), step.doing(way.spec));
            // Noted before it is done: a write that never returns may have its effect all the same.
            self.set.extend(sets.clone());
            tracing::debug!(attribute = %key.1.display(), value = key.2, "writing");
            let running = Some(self.roots.write_aside(&key.1, &key.2));
            self.orders.insert(key, Order { step, doing, sets, times, running, ended: Instant::now(), refused: None });
        }
    }

    fn key(&self, step: Step, way: &Way<'_>) -> Option<Key> {
        let (path, value) = step.attribute(way.spec, self.roots)?;
        Some((way.spec.adapter.to_string(), path, value))
    }

    /// What the way's adapter is doing.
    fn running(&self, way: &Way<'_>) -> Option<&Order> {
        let adapter = way.spec.adapter.as_str();
        self.orders.iter().find(|(key, order)| key.0 == adapter && order.running.is_some()).map(|(_, order)| order)
    }

    /// The order that helps at where `way` stands, where the kernel has answered it.
    fn answered(&self, way: &Way<'_>) -> Option<&Order> {
        let step = helps(&way.standing, &way.seen, way.since.elapsed())?;
        self.orders.get(&self.key(step, way)?).filter(|order| order.running.is_none())
    }

    /// Whether no waiting changes anything: each way is up or hopeless, and the kernel has answered everything.
    fn is_decided(&self) -> bool {
        let is_quiet = self.orders.values().all(|order| order.running.is_none());
        is_quiet && self.ways.iter().all(|way| way.standing == Standing::Up || self.is_hopeless(way))
    }

    fn is_hopeless(&self, way: &Way<'_>) -> bool {
        match way.standing {
            Standing::NoChannels | Standing::Foreign(_) => true,
            // The kernel said that it has looked at everything.
            Standing::Unknown => self.answered(way).is_some(),
            _ => self.answered(way).is_some_and(|order| order.has_failed().is_some()),
        }
    }

    fn words(&self, way: &Way<'_>) -> Words {
        let words = explain::words(way.spec, &way.standing, &way.seen);
        if let Some(order) = self.running(way).filter(|order| order.step.is_needed()) {
            return words.while_doing(&order.doing);
        }
        match self.answered(way).and_then(|order| Some((order, order.has_failed()?))) {
            Some((order, error)) => words.refused(&order.doing, error),
            None => words,
        }
    }

    fn waits_for(&self, waited: Duration) -> String {
        let waiting = self.ways.iter().filter(|way| way.standing != Standing::Up);
        let states = waiting.map(|way| format!("{}: {}", way.spec.adapter, self.words(way).state));
        format!("waiting for zFCP for {} s: {}", waited.as_secs(), explain::each_once(states))
    }

    fn verdict(&self, waited: Option<Duration>) -> Result<()> {
        let down = self.ways.iter().filter(|way| way.standing != Standing::Up);
        let told: Vec<_> = down
            .map(|way| {
                let words = self.words(way);
                let waited = waited.filter(|_| !self.is_hopeless(way));
                (words.sentence(way.spec.adapter.as_str(), waited), words)
            })
            .collect();
        if told.is_empty() { Ok(()) } else { Err(explain::error(&told)) }
    }

    fn into_attached(self) -> Attached {
        let up = self.ways.iter().filter(|way| way.standing == Standing::Up).count();
        let unanswered = self.orders.into_iter().filter_map(|(key, order)| {
            let doing = format!("{}: {}", key.0, order.doing);
            order.running.map(|answer| Unanswered { doing, answer })
        });
        Attached::new(self.set, unanswered.collect(), up)
    }
}

impl Order {
    fn may_be_repeated(&self) -> bool {
        let pause = if self.was_busy() { Some(BUSY) } else { self.step.again(self.times) };
        pause.is_some_and(|pause| self.ended.elapsed() >= pause)
    }

    /// Why nothing can come of it.
    fn has_failed(&self) -> Option<&io::Error> {
        self.refused.as_ref().filter(|_| self.step.is_needed() && !self.was_busy())
    }

    fn was_busy(&self) -> bool {
        self.refused.as_ref().is_some_and(is_busy)
    }
}
