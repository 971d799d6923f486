//! What Prometheus is told: what has happened so far, counted where it happens, and what is so now, looked at when it asks.
//!
//! Nothing here has a label whose values somebody outside can invent: no run, no server, no image, no error's text. So there are as many
//! series in a year as there are today, and nothing secret or hostile can get into them.

mod labels;
mod process;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use protocol::control::key::KeyAction;
use protocol::control::run::{WaitsFor, What};
use protocol::event::Rates;

use crate::model::State;
use labels::{Action, Answered, Event, For, In, Outcome, Stage};
use process::Process;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What every name begins with, besides those of the process.
const PREFIX: &str = "z_orchestrator";
/// Upper bounds of what takes time, in seconds.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The service's metrics. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<All>);

#[derive(Debug)]
struct All {
    registry: Registry,
    runs: Family<In, Gauge>,
    waits: Family<For, Gauge>,
    rates: Family<Stage, Gauge>,
    entered: Family<In, Counter>,
    pruned: Counter,
    kept_for_key: Gauge,
    keys: Family<Action, Counter>,
    keys_to_erase: Gauge,
    keys_to_reseal: Gauge,
    keys_shut: Gauge,
    events: Family<Event, Counter>,
    commits: Family<Outcome, Counter>,
    commit_seconds: Histogram,
    requests: Family<Answered, Counter>,
    request_seconds: Histogram,
    connections: Gauge,
    refused: Counter,
    handshakes_failed: Counter,
    watchers: Gauge,
    store_up: Gauge,
}

/// What is so at the moment: of runs that are not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many are in which state.
    pub states: Vec<(State, u64)>,
    /// How many wait for what, by its word.
    pub waits: Vec<(String, u64)>,
    /// Bytes per second of all agents together, as they last reported.
    pub rates: Rates,
}

/// What is so at the moment, besides runs.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Streams of events that are open.
    pub watchers: usize,
    /// Whether the store answers.
    pub store_up: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register(format!("{PREFIX}_build"), "The program", build);
        let all = All {
            runs: registered(&mut registry, "runs", "Runs that are not over, by state"),
            waits: registered(&mut registry, "runs_waiting", "Runs that wait, by what for"),
            rates: registered(&mut registry, "stage_bytes_per_second", "What all agents together move, by stage"),
            entered: registered(&mut registry, "run_states_entered", "Runs that have come into a state"),
            pruned: registered(&mut registry, "runs_pruned", "Runs that were removed, long after their end"),
            kept_for_key: registered(
                &mut registry,
                "runs_kept_for_key",
                "Runs that would be removed if it were not for their key",
            ),
            keys: registered(&mut registry, "keys", "What was done with keys of disks"),
            keys_to_erase: registered(
                &mut registry,
                "keys_to_erase",
                "Keys that are nobody's any more, and are not known to be destroyed where they are kept",
            ),
            keys_to_reseal: registered(&mut registry, "keys_to_reseal", "Keys under a previous key-encryption key"),
            keys_shut: registered(&mut registry, "keys_shut", "Keys that do not open"),
            events: registered(&mut registry, "events", "Events of agents that were accepted"),
            commits: registered(&mut registry, "commits", "Transactions of the store"),
            commit_seconds: histogram(&mut registry, "commit_seconds", "How long transactions took"),
            requests: registered(&mut registry, "requests", "Requests that were answered"),
            request_seconds: histogram(&mut registry, "request_seconds", "How long answers took, to their head"),
            connections: registered(&mut registry, "connections", "Connections that are open"),
            refused: registered(&mut registry, "connections_refused", "Connections beyond what there may be"),
            handshakes_failed: registered(&mut registry, "handshakes_failed", "TLS handshakes that failed"),
            watchers: registered(&mut registry, "watchers", "Streams of events that are open"),
            store_up: registered(&mut registry, "store_up", "Whether the store answers"),
            registry,
        };
        all.show_zeros();
        Metrics(Arc::new(all))
    }
}

/// A metric of this name, which is zero for now.
fn registered<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(format!("{PREFIX}_{name}"), help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let metric = Histogram::new(SECONDS);
    registry.register(format!("{PREFIX}_{name}"), help, metric.clone());
    metric
}

impl All {
    /// What has not happened yet is zero, and not unknown: rates and alerts are right from the first time on.
    fn show_zeros(&self) {
        // Zero would say that nothing is left of a key-encryption key before anybody has looked.
        self.keys_to_reseal.set(-1);
        self.keys_shut.set(-1);
        for state in State::ALL {
            drop(self.entered.get_or_create(&In { state: state.name() }));
        }
        for state in State::ALL.into_iter().filter(|state| !state.is_over()) {
            drop(self.runs.get_or_create(&In { state: state.name() }));
        }
        for what in WaitsFor::ALL {
            drop(self.waits.get_or_create(&For { what: what.name().to_owned() }));
        }
        for action in KeyAction::ALL.iter().filter_map(Action::of) {
            drop(self.keys.get_or_create(&action));
        }
        for event in Event::ALL {
            drop(self.events.get_or_create(&event));
        }
        for outcome in Outcome::ALL {
            drop(self.commits.get_or_create(&outcome));
        }
    }
}

impl Metrics {
    /// Something was told, and is stored.
    pub fn told(&self, what: &What) {
        match what {
            What::State(changed) => {
                if let Some(state) = State::ALL.into_iter().find(|state| state.name() == changed.state.name()) {
                    self.0.entered.get_or_create(&In { state: state.name() }).inc();
                }
            }
            What::Agent(_) => {
                self.0.events.get_or_create(&Event::HIGH).inc();
            }
            What::Key(event) => {
                if let Some(action) = Action::of(&event.action) {
                    self.0.keys.get_or_create(&action).inc();
                }
            }
        }
    }

    /// An agent has reported progress, so many times.
    pub fn progressed(&self, events: usize) {
        self.0.events.get_or_create(&Event::PROGRESS).inc_by(events as u64);
    }

    /// So many keys are to be destroyed where they are kept.
    pub fn to_erase(&self, keys: usize) {
        self.0.keys_to_erase.set(whole(keys as u64));
    }

    /// A transaction has ended. `done`: it is known to be stored.
    pub fn committed(&self, done: bool, took: Duration) {
        let outcome = if done { Outcome::STORED } else { Outcome::NOT_STORED };
        self.0.commits.get_or_create(&outcome).inc();
        self.0.commit_seconds.observe(took.as_secs_f64());
    }

    /// A request was answered. `route`: the path as it is described, never as it came.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.0.requests.get_or_create(&Answered::new(method, route, status)).inc();
        self.0.request_seconds.observe(took.as_secs_f64());
    }

    /// A connection was made. It ends with what this returns.
    pub fn connected(&self) -> Connected {
        self.0.connections.inc();
        Connected(self.clone())
    }

    /// A connection was refused, because there are enough.
    pub fn refused(&self) {
        self.0.refused.inc();
    }

    /// A TLS handshake has failed.
    pub fn handshake_failed(&self) {
        self.0.handshakes_failed.inc();
    }

    /// All keys that are stored were looked at: so many are still to be sealed anew, and so many do not open.
    pub fn keys_looked_at(&self, to_reseal: u64, shut: u64) {
        self.0.keys_to_reseal.set(whole(to_reseal));
        self.0.keys_shut.set(whole(shut));
    }

    /// Runs were removed.
    pub fn pruned(&self, runs: usize) {
        self.0.pruned.inc_by(runs as u64);
    }

    /// All runs were looked at: so many are kept only because the service has the key of their disk.
    pub fn kept_for_key(&self, runs: u64) {
        self.0.kept_for_key.set(whole(runs));
    }

    /// All of it, in the format of OpenMetrics.
    pub fn text(&self, tally: &Tally, now: Now) -> String {
        let all = &self.0;
        for (state, count) in &tally.states {
            all.runs.get_or_create(&In { state: state.name() }).set(whole(*count));
        }
        for (what, count) in &tally.waits {
            all.waits.get_or_create(&For { what: what.clone() }).set(whole(*count));
        }
        let Rates { source, decode, write, read_back } = tally.rates;
        for (stage, rate) in [("source", source), ("decode", decode), ("write", write), ("read-back", read_back)] {
            all.rates.get_or_create(&Stage { stage }).set(whole(rate));
        }
        all.watchers.set(whole(now.watchers as u64));
        all.store_up.set(i64::from(now.store_up));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &all.registry);
        text
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A connection that is open. It is none any more when this is dropped.
#[derive(Debug)]
pub struct Connected(Metrics);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.connections.dec();
    }
}

#[cfg(test)]
mod tests;
