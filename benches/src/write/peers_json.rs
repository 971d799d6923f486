//! What a plot of all ways needs, in a form of its own that other programs read (`--peers-json`).

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::failure::{Context, Result};
use crate::limits;
use crate::stats::Spread;
use crate::way::Place;
use crate::write::rounds::{Rounds, Series};
use crate::write::{base, ratios};

#[derive(Serialize)]
struct File {
    format: u32,
    command: String,
    subject: String,
    raw_bytes: u64,
    rounds: usize,
    limit_seconds: Option<f64>,
    limit_by: Option<&'static str>,
    ways: Vec<Way>,
}

#[derive(Serialize)]
struct Way {
    name: &'static str,
    ours: bool,
    verifies: String,
    seconds: Option<Spread>,
    cpu_seconds: Option<Spread>,
    peak_rss: Option<u64>,
    ratio_to_ours: Option<Spread>,
    command: String,
    note: String,
}

/// Writes the file.
pub fn save(path: &Path, place: &Place<'_>, rounds: &Rounds<'_>) -> Result<()> {
    let limit = limits::medians(&rounds.limits).map(|costs| costs.limit());
    let base = base(&rounds.series);
    let file = File {
        format: 1,
        command: format!("cargo xtask bench {}", own_arguments()),
        subject: place.subject.fact(),
        raw_bytes: place.subject.size,
        rounds: rounds.done,
        limit_seconds: limit.map(|limit| limit.seconds),
        limit_by: limit.map(|limit| limit.by),
        ways: rounds.series.iter().map(|series| way(series, base)).collect(),
    };
    let text = serde_json::to_string_pretty(&file).context("could not put the ways into JSON")?;
    fs::write(path, text + "\n").context(format!("could not write {}", path.display()))
}

fn way(series: &Series, base: Option<&Series>) -> Way {
    let compared = base.filter(|base| base.way.name() != series.way.name());
    Way {
        name: series.way.name(),
        ours: series.way.ours(),
        verifies: series.way.verifies().to_string(),
        seconds: series.spread(|s| s.usage.wall),
        cpu_seconds: series.spread(|s| s.usage.cpu()),
        peak_rss: (!series.samples.is_empty()).then(|| series.peak()),
        ratio_to_ours: compared.and_then(|base| ratios::of(series, base, |usage| usage.wall)),
        command: series.command.clone(),
        note: series.why_not.clone().unwrap_or_else(|| series.way.note().into()),
    }
}

/// The arguments of this run.
fn own_arguments() -> String {
    std::env::args().skip(1).map(|argument| without_folders(&argument)).collect::<Vec<_>>().join(" ")
}

/// An argument, the file it names without its folders.
fn without_folders(argument: &str) -> String {
    let (before, value) = match argument.split_once('=') {
        Some((option, value)) => (format!("{option}="), value),
        None => (String::new(), argument),
    };
    match Path::new(value).file_name() {
        Some(name) if Path::new(value).is_absolute() => format!("{before}{}", name.to_string_lossy()),
        _ => argument.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_path_gets_out() {
        let told = ["write", "/tmp/x/a.json", "--peers-json=/tmp/x/b.json", "--size=1GiB"].map(without_folders);
        assert_eq!(told, ["write", "a.json", "--peers-json=b.json", "--size=1GiB"]);
    }
}
