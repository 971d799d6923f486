//! The table of all ways, and what has to be known of each.

use crate::failure::Result;
use crate::measure::Usage;
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::units::{mib, rate};
use crate::write::rounds::{Rounds, Sample, Series};
use crate::write::{base, ratios};

/// Adds the table, command lines and notes to the report, and every sample to its data.
pub fn add(report: &mut Report, rounds: &Rounds<'_>, size: u64) -> Result<()> {
    let head = ["way", "verifies", "seconds", "× ours", "MiB/s", "CPU s", "server CPU s", "peak MiB"];
    let mut table = Table::new("From the source to the disk, median (min–max)", &head);
    for series in &rounds.series {
        table.row(row(series, base(&rounds.series), size));
    }
    report.tables.push(table);
    for series in &rounds.series {
        let name = series.way.name();
        if !series.command.is_empty() {
            report.fact(name, format!("`{}`", series.command));
        }
        report.notes.push(format!("{name}: {}", series.way.note()));
        if let Some(why) = &series.why_not {
            report.notes.push(format!("NOT MEASURED: {name}: {why}"));
        }
    }
    report.notes.push("× ours: seconds over those of imgstream write in the same round".into());
    report.notes.push("MiB/s is bytes of the raw image; peak MiB is the largest single process".into());
    let samples = rounds.series.iter().map(|series| (series.way.name(), &series.samples));
    report.keep("ways", samples.collect::<Vec<_>>())
}

fn row(series: &Series, base: Option<&Series>, size: u64) -> [String; 8] {
    let (name, verifies) = (series.way.name().to_string(), series.way.verifies().to_string());
    let dash = || "–".to_string();
    let Some(wall) = series.spread(|s| s.usage.wall) else {
        let why = match &series.why_not {
            Some(why) if why.starts_with("failed") => "failed",
            Some(_) => "not installed",
            None => "not measured",
        };
        return [name, verifies, why.into(), dash(), dash(), dash(), dash(), dash()];
    };
    let ratio = base.and_then(|base| ratios::of(series, base, |usage: &Usage| usage.wall));
    let shown = |spread: Option<Spread>| spread.map_or_else(dash, |spread| spread.show());
    [
        name,
        verifies,
        wall.show(),
        shown(ratio),
        rate(size, wall.median),
        shown(series.spread(|s| s.usage.cpu())),
        shown(series.spread(|s| s.server_cpu)),
        mib(series.peak()),
    ]
}

impl Series {
    /// The spread of a figure over the runs; `None` of no runs.
    pub fn spread(&self, figure: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(figure))
    }

    /// The largest process of all runs.
    pub fn peak(&self) -> u64 {
        self.samples.iter().map(|sample| sample.usage.max_rss).max().unwrap_or(0)
    }
}
