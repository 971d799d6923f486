//! Whether ours is near the limit and ahead of every peer, and what is in the way where it is not.

use crate::failure::Result;
use crate::limits::{self, Costs, Limit};
use crate::machine;
use crate::report::Report;
use crate::units::{MIB, mib};
use crate::write::rounds::{Rounds, Series};
use crate::write::{base, ratios};

/// How far from the limit a write may be, in wall time and in CPU time.
const NEAR: f64 = 1.15;

/// The memory that imgstream may take at its peak.
pub const MOST_MEMORY: u64 = 160 * MIB;

/// Adds the verdicts.
pub fn add(report: &mut Report, rounds: &Rounds<'_>) -> Result<()> {
    if let Some(costs) = limits::medians(&rounds.limits) {
        for series in rounds.series.iter().filter(|series| series.way.ours()) {
            against_limit(report, series, &costs, rounds)?;
        }
    }
    for series in rounds.series.iter().filter(|series| series.way.ours() && series.peak() > MOST_MEMORY) {
        let (name, peak) = (series.way.name(), mib(series.peak()));
        report.missed.push(format!("MISSED: {name} took {peak} MiB of memory, more than {} MiB", mib(MOST_MEMORY)));
    }
    let Some(ours) = base(&rounds.series) else {
        return Ok(());
    };
    for peer in rounds.series.iter().filter(|series| !series.way.ours()) {
        let Some(ratio) = ratios::of(peer, ours, |usage| usage.wall).filter(|ratio| ratio.median <= 1.0) else {
            continue;
        };
        let (name, ratio) = (peer.way.name(), ratio.show());
        report.missed.push(format!("MISSED: {name} takes {ratio} × our time; it verifies: {}", peer.way.verifies()));
    }
    Ok(())
}

fn limit_of(series: &Series, costs: &Costs) -> Limit {
    let read_back = series.way.verifies() == crate::way::Verifies::Media;
    if read_back { costs.limit_read_back() } else { costs.limit() }
}

fn against_limit(report: &mut Report, series: &Series, costs: &Costs, rounds: &Rounds<'_>) -> Result<()> {
    let name = series.way.name();
    let limit = limit_of(series, costs);
    let cpu_with_server = |s: &crate::write::rounds::Sample| s.usage.cpu() + s.server_cpu;
    let (Some(wall), Some(cpu)) = (series.spread(|s| s.usage.wall), series.spread(cpu_with_server)) else {
        return Ok(());
    };
    let of_round = |figure: fn(&Limit) -> f64| -> Vec<f64> {
        rounds.limits.iter().map(|round| figure(&limit_of(series, round.costs()))).collect()
    };
    let walls: Vec<f64> = series.samples.iter().map(|s| s.usage.wall).collect();
    let cpus: Vec<f64> = series.samples.iter().map(cpu_with_server).collect();
    let walls = ratios::pairs(&walls, &of_round(|limit| limit.seconds));
    let cpus = ratios::pairs(&cpus, &of_round(|limit| limit.cpu_seconds));
    let (wall_ratio, cpu_ratio) = (wall.median / limit.seconds, cpu.median / limit.cpu_seconds);
    let told = format!(
        "{name}: {wall_ratio:.2} × the limit's seconds (per round {}), {cpu_ratio:.2} × its CPU seconds, nginx's \
         included (per round {})",
        walls.map_or_else(String::new, |s| s.show()),
        cpus.map_or_else(String::new, |s| s.show()),
    );
    report.notes.push(told);
    let figures =
        serde_json::json!({ "wall": wall_ratio, "cpu": cpu_ratio, "wall_per_round": walls, "cpu_per_round": cpus });
    report.keep(&format!("{name}: against the limit"), figures)?;
    for (what, ratio) in [("seconds", wall_ratio), ("CPU seconds", cpu_ratio)] {
        if ratio > NEAR {
            let way = in_the_way(series, costs, &limit, wall.median, cpu.median);
            report
                .missed
                .push(format!("MISSED: {name} takes {ratio:.2} × the limit's {what}, more than {NEAR}; {way}"));
        }
    }
    Ok(())
}

/// What stood in the way, as far as the figures tell.
fn in_the_way(series: &Series, costs: &Costs, limit: &Limit, wall: f64, cpu: f64) -> String {
    let cores = machine::cores() as f64;
    let own = series.spread(|s| s.usage.cpu()).map_or(0.0, |s| s.median);
    let mut named: Vec<&str> = Vec::new();
    for stage in series.samples.iter().filter_map(|s| s.summary.as_ref()?.pointer("/report/limited_by")?.as_str()) {
        if !named.contains(&stage) {
            named.push(stage);
        }
    }
    format!(
        "in the way: it used {own:.2} CPU s itself where the parts take {:.2}, and with nginx kept the {cores} cores busy \
         for {:.0} % of its time; alone the cores need {:.2} s, the device {:.2} s, the source {:.2} s; it names as \
         its limit: {}",
        limit.cpu_seconds - costs.server,
        100.0 * cpu / wall / cores,
        limit.cpu_seconds / costs.speedup.max(1.0),
        costs.device_write,
        costs.source,
        if named.is_empty() { "nothing".into() } else { named.join(", ") },
    )
}
