//! The orchestrating service under load: agents that report once a second each, and those who watch them, against the real service on a
//! core of its own.
//!
//! Every agent's reports are due at fixed times, and the time until each is answered counts from then: a service that stands still for a
//! second has been slow to all who should have reported meanwhile, not to those alone that did. What is due is known beforehand, so the
//! simulator, on the other core, is one thread and little more than the bytes that go over the wire.

mod agent;
mod histogram;
mod house;
mod trial;
mod watcher;
mod wire;
mod words;

use std::path::PathBuf;

use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::failure::{Context, Result};
use crate::lab::Options;
use crate::report::{Report, Table};
use crate::units::MIB;
use crate::{machine, tools};
use histogram::Quantiles;
use trial::{Figures, Size};

/// How much more an event may cost in a fleet than in any smaller one: it must not grow with the number of agents, and two measurements
/// of the same differ. That it costs less in a larger fleet, where what is done once a second or once a batch is shared by more, is no miss.
const GROWTH: f64 = 1.25;

/// Open files besides connections.
const SPARE: u64 = 1024;

/// Options of `service`.
#[derive(Args, Clone, Debug)]
pub struct Service {
    /// How many agents; several numbers, one fleet after the other
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000", value_name = "N,…")]
    pub agents: Vec<usize>,
    /// Seconds that are measured of each fleet
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Watchers of one run each, no more than there are agents
    #[arg(long, default_value_t = 1000)]
    pub watchers: usize,
    /// Watchers of all runs
    #[arg(long, default_value_t = 50)]
    pub fleet_watchers: usize,
    /// Seconds between two events of high priority of one agent
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub high_every: u64,
    /// The goal: milliseconds until 99 of 100 reports are answered
    #[arg(long, default_value_t = 100.0, value_name = "MS")]
    pub p99: f64,
    /// The goal: MiB that the service takes at most
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    pub memory: u64,
    #[command(flatten)]
    pub options: Options,
}

/// Runs the benchmark.
pub fn run(options: &Service) -> Result<Report> {
    let within = options.options.target_dir.clone().unwrap_or_else(|| PathBuf::from("/var/tmp"));
    let mut report = Report::new("service", machine::facts(&within));
    report.fact("service", tools::version(&tools::orchestrator()?));
    let largest = options.agents.iter().max().copied().unwrap_or(0);
    may_open(largest + options.watchers + options.fleet_watchers)?;
    let core = apart()?;
    let where_it_runs = "the service on one core, the simulator on another";
    report.fact("cores", core.map_or("one, shared by service and simulator", |_| where_it_runs));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start the simulator's runtime")?;
    let mut all = Vec::new();
    for agents in &options.agents {
        eprintln!("{agents} agents");
        let size = Size {
            agents: *agents,
            seconds: options.seconds,
            watchers: options.watchers.min(*agents),
            fleet_watchers: options.fleet_watchers,
            high_every: options.high_every,
        };
        let figures = runtime.block_on(trial::run(&within, core, size))?;
        eprintln!("{}", serde_json::to_string(&figures).context("figures")?);
        all.push(figures);
    }
    tell(&mut report, options, &all)?;
    Ok(report)
}

/// Lets this process, and the service that it starts, have as many connections as there will be.
fn may_open(connections: usize) -> Result<()> {
    let most = connections as u64 + SPARE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("could not read how many files may be open")?;
    if soft >= most {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, hard.max(most)).context(format!(
        "{most} files must be open, and may not: raise the limit (ulimit -Hn {most}), or ask for fewer agents"
    ))
}

/// Puts this thread on the second core that it may use; the first is the service's. Nothing where there is one only.
fn apart() -> Result<Option<usize>> {
    let this = Pid::from_raw(0);
    let may = sched_getaffinity(this).context("could not read which cores may be used")?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| may.is_set(*core).unwrap_or(false)).collect();
    let [first, second, ..] = cores[..] else { return Ok(None) };
    let mut other = CpuSet::new();
    other.set(second).context("could not name a core")?;
    sched_setaffinity(this, &other).context("could not move to a core")?;
    Ok(Some(first))
}

fn tell(report: &mut Report, options: &Service, all: &[Figures]) -> Result<()> {
    report.tables = vec![latencies(all), costs(all), watched(all)];
    report.notes.push(format!(
        "each agent reports progress once a second and another event every {} s, and renews its lease, on one connection; {} watchers of \
         one run each, {} of all. Milliseconds count from when a report was due. CPU time of the service is divided by the events that it \
         took, whatever else it did meanwhile",
        options.high_every, options.watchers, options.fleet_watchers
    ));
    for figures in all {
        let Figures { agents, progress, high, peak, losses, .. } = figures;
        let mut miss = |text: String| report.missed.push(format!("{agents} agents: {text}"));
        for (what, p99) in [("progress", progress.p99), ("high priority", high.p99)] {
            if p99 > options.p99 {
                miss(format!("99 of 100 reports of {what} took up to {p99:.1} ms, and may take {} ms", options.p99));
            }
        }
        if *peak > options.memory * MIB {
            miss(format!("the service took {} MiB, and may take {}", peak / MIB, options.memory));
        }
        losses.iter().take(5).for_each(|loss| miss(loss.clone()));
        if losses.len() > 5 {
            miss(format!("and {} more losses", losses.len() - 5));
        }
    }
    let mut by_size: Vec<&Figures> = all.iter().collect();
    by_size.sort_by_key(|figures| figures.agents);
    let mut cheapest = f64::INFINITY;
    for Figures { agents, cpu_per_event: cost, .. } in by_size {
        if *cost > cheapest * GROWTH {
            let fewer = format!("and {cheapest:.0} µs with fewer");
            report.missed.push(format!("an event costs {cost:.0} µs with {agents} agents, {fewer}"));
        }
        cheapest = cheapest.min(*cost);
    }
    report.keep("fleets", all)
}

fn latencies(all: &[Figures]) -> Table {
    let head = ["agents", "report", "p50 ms", "p90", "p99", "p99.9", "max"];
    let mut table = Table::new("From when a report was due until it was answered", &head);
    for figures in all {
        let kinds = [
            ("progress", figures.progress),
            ("high priority", figures.high),
            ("lease", figures.leases),
            ("end", figures.ends),
        ];
        for (kind, Quantiles { p50, p90, p99, p999, max }) in kinds {
            let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| format!("{value:.1}"));
            table.row([figures.agents.to_string(), kind.to_owned(), p50, p90, p99, p999, max]);
        }
    }
    table
}

fn costs(all: &[Figures]) -> Table {
    let head = [
        "agents",
        "events/s",
        "CPU µs/event",
        "of that kernel",
        "core",
        "MiB enrolled",
        "MiB steady",
        "MiB peak",
        "kept",
        "lost",
        "again",
    ];
    let mut table = Table::new("What the service costs", &head);
    for figures in all {
        let mib = |bytes: u64| format!("{}", bytes / MIB);
        table.row([
            figures.agents.to_string(),
            format!("{:.0}", figures.events_per_second),
            format!("{:.1}", figures.cpu_per_event),
            format!("{:.1}", figures.kernel_per_event),
            format!("{:.0} %", figures.load * 100.0),
            mib(figures.enrolled),
            mib(figures.resident),
            mib(figures.peak),
            figures.taken.to_string(),
            figures.losses.len().to_string(),
            figures.again.to_string(),
        ]);
    }
    table
}

fn watched(all: &[Figures]) -> Table {
    let head = [
        "agents",
        "progress/s of one",
        "fleet KiB/s of all",
        "runs/s of all",
        "largest KiB",
        "s to order",
        "s to enrol",
    ];
    let mut table = Table::new("What watchers are told", &head);
    for figures in all {
        let kib = |bytes: f64| format!("{:.0}", bytes / 1024.0);
        table.row([
            figures.agents.to_string(),
            format!("{:.2}", figures.told_progress),
            kib(figures.fleet_bytes),
            format!("{:.0}", figures.fleet_runs),
            kib(figures.largest_fleet as f64),
            format!("{:.1}", figures.ordering),
            format!("{:.1}", figures.enrolling),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        service: Service,
    }

    fn figures(agents: usize, cpu_per_event: f64, p99: f64, peak: u64, losses: &[&str]) -> Figures {
        let quantiles = Quantiles { p99, ..Quantiles::default() };
        Figures {
            agents,
            progress: quantiles,
            high: quantiles,
            ends: quantiles,
            leases: quantiles,
            events_per_second: 1.0,
            cpu_per_event,
            kernel_per_event: 1.0,
            load: 0.5,
            enrolled: 0,
            resident: 0,
            peak,
            ordering: 0.0,
            enrolling: 0.0,
            told_progress: 1.0,
            fleet_bytes: 0.0,
            fleet_runs: 0.0,
            largest_fleet: 0,
            taken: 0,
            again: 0,
            losses: losses.iter().map(ToString::to_string).collect(),
        }
    }

    fn missed(all: &[Figures]) -> Vec<String> {
        let options = Program::parse_from(["service"]).service;
        let mut report = Report::new("service", Vec::new());
        tell(&mut report, &options, all).unwrap();
        report.missed
    }

    #[test]
    fn every_goal_is_looked_at() {
        assert_eq!(missed(&[figures(100, 70.0, 2.0, MIB, &[]), figures(10_000, 80.0, 90.0, 500 * MIB, &[])]), [""; 0]);
        let all = [figures(100, 50.0, 2.0, MIB, &["event 3 is missing"]), figures(10_000, 80.0, 101.0, 513 * MIB, &[])];
        let missed = missed(&all);
        for (at, says) in ["event 3", "progress took up to 101.0", "high priority took", "513 MiB", "80 µs with 10000"]
            .iter()
            .enumerate()
        {
            assert!(missed[at].contains(says), "{missed:?}");
        }
        assert_eq!(missed.len(), 5);
    }

    #[test]
    fn what_an_event_costs_may_fall_and_must_not_grow_with_the_fleet() {
        let cost = |costs: [f64; 3]| {
            let fleets = [10_000, 100, 1_000].into_iter().zip(costs);
            missed(&fleets.map(|(agents, cost)| figures(agents, cost, 2.0, MIB, &[])).collect::<Vec<_>>())
        };
        assert_eq!(cost([60.0, 400.0, 180.0]), [""; 0]);
        assert_eq!(cost([110.0, 100.0, 120.0]), [""; 0], "nothing but noise");
        assert_eq!(cost([60.0, 50.0, 70.0]), ["an event costs 70 µs with 1000 agents, and 50 µs with fewer"]);
        assert_eq!(cost([90.0, 400.0, 60.0]), ["an event costs 90 µs with 10000 agents, and 60 µs with fewer"]);
    }
}
