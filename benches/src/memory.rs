//! Peak memory and time of packing and writing, for small, large and enormous images: memory is the same whatever the
//! size, and time grows with the data, not with the holes around it.

use std::fs;

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::lab::{Lab, Options};
use crate::measure::{Job, Usage};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::Spread;
use crate::subject::{self, Subject};
use crate::target::Target;
use crate::tools;
use crate::units::{self, mib};

/// Options of `memory`.
#[derive(Args, Clone, Debug)]
pub struct Memory {
    /// Sizes of the images full of data
    #[arg(long, default_value = "1GiB,8GiB", value_delimiter = ',', value_parser = units::parse_size)]
    pub sizes: Vec<u64>,
    /// Sizes of the sparse images, all with the same data
    #[arg(long, default_value = "1GiB,8GiB,1TiB", value_delimiter = ',', value_parser = units::parse_size)]
    pub sparse: Vec<u64>,
    /// Runs of each command for each image; the medians and the largest peak are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Peak resident memory allowed to each process
    #[arg(long, default_value = "160MiB", value_parser = units::parse_size)]
    pub budget: u64,
    #[command(flatten)]
    pub options: Options,
}

/// How much longer the largest sparse image may take than the smallest, which has the same data: a share, and the seconds
/// that starting a process and a server's first answer may differ by.
const GROWTH: (f64, f64) = (1.25, 0.25);

/// One command's runs on one image.
#[derive(Serialize)]
struct Series {
    image: String,
    sparse: bool,
    command: &'static str,
    runs: Vec<Usage>,
}

impl Series {
    fn peak(&self) -> u64 {
        self.runs.iter().map(|run| run.max_rss).max().unwrap_or(0)
    }

    fn median(&self, figure: fn(&Usage) -> f64) -> f64 {
        Spread::of(self.runs.iter().map(figure)).map_or(0.0, |spread| spread.median)
    }
}

/// Runs the benchmark.
pub fn run(options: &Memory) -> Result<Report> {
    tools::require(&["nginx", "findmnt"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("memory", &["nginx"]);
    let mut subjects = Vec::new();
    for size in &options.sizes {
        subjects.push((subject::dense(&lab.cache, *size)?, false));
    }
    for size in &options.sparse {
        subjects.push((subject::sparse(&lab.cache, *size)?, true));
    }
    let server = Server::start(lab.scratch())?;
    let mut all = Vec::new();
    for (subject, sparse) in &subjects {
        let kind = if *sparse { "sparse" } else { "data" };
        report.fact(&format!("image {} {kind}", subject.name()), subject.fact());
        all.extend(measure(&lab, &server, subject, *sparse, options.rounds)?);
    }
    tabulate(&mut report, &all, options.budget);
    report.fact("rounds", format!("{} of each, medians; the peak is the largest", options.rounds));
    report.keep("budget", options.budget)?;
    report.keep("samples", all)?;
    Ok(report)
}

/// Packs `subject`, then writes it over HTTP into a sparse file, all at default settings.
fn measure(lab: &Lab, server: &Server, subject: &Subject, sparse: bool, rounds: u16) -> Result<[Series; 2]> {
    let image = format!("{} {}", subject.name(), if sparse { "sparse" } else { "data" });
    let folder = lab.scratch().join("image");
    let series = |command| Series { image: image.clone(), sparse, command, runs: Vec::new() };
    let [mut packing, mut writing] = [series("pack"), series("write")];
    // Packing a full image takes minutes and its peak is the same every time; a sparse one takes seconds.
    for _ in 0..if sparse { rounds } else { 1 } {
        eprintln!("packing {image}");
        let _ = fs::remove_dir_all(&folder);
        packing.runs.push(lab.run(&lab.pack(&subject.raw, &folder, None)?)?.usage);
    }
    for _ in 0..rounds {
        eprintln!("writing {image}");
        let target = Target::sparse(lab.scratch(), subject.size)?;
        let (url, path) = (server.url("image"), target.path().display().to_string());
        let trust = format!("{}.pub", lab.key()?);
        let write = lab.ours(&["write", &url, &path, "--trust", &trust, "--no-read-back", "--json"])?;
        writing.runs.push(lab.run(&Job::one(write))?.usage);
    }
    let removed = fs::remove_dir_all(&folder);
    removed.map_err(|e| Failure::new(format!("could not remove {}: {e}", folder.display())))?;
    Ok([packing, writing])
}

fn tabulate(report: &mut Report, all: &[Series], budget: u64) {
    let head = ["image", "command", "seconds", "CPU s", "peak MiB", "verdict"];
    let mut table = Table::new("Packing, and writing to a sparse file without read-back", &head);
    for series in all {
        let fits = series.peak() <= budget;
        table.row([
            series.image.clone(),
            series.command.into(),
            format!("{:.2}", series.median(|run| run.wall)),
            format!("{:.2}", series.median(Usage::cpu)),
            mib(series.peak()),
            if fits { "pass" } else { "FAIL" }.into(),
        ]);
        if !fits {
            let (command, image) = (series.command, &series.image);
            report.missed.push(format!("MISSED: {command} of {image} is above the budget of {} MiB", mib(budget)));
        }
    }
    report.tables.push(table);
    report.notes.push(format!("verdict: within the budget of {} MiB per process; default settings", mib(budget)));
    let seconds = |series: &Series| series.median(|run| run.wall);
    let sparse: Vec<&Series> = all.iter().filter(|series| series.sparse && series.command == "write").collect();
    let (Some(small), Some(large)) = (sparse.first(), sparse.last()) else {
        return;
    };
    let (few, many) = (seconds(small), seconds(large));
    report.notes.push(format!("with the same data, {} took {many:.2} s and {} {few:.2} s", large.image, small.image));
    if !grows_with_the_data(few, many) {
        report.missed.push(format!(
            "MISSED: {} took {many:.2} s, {} with the same data {few:.2} s: time grew with the image's size",
            large.image, small.image
        ));
    }
}

/// Whether `large` seconds for an image with the same data as one that took `small` mean that size costs nothing.
fn grows_with_the_data(small: f64, large: f64) -> bool {
    large <= small * GROWTH.0 + GROWTH.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_may_grow_a_little() {
        assert!(grows_with_the_data(0.2, 0.4));
        assert!(grows_with_the_data(10.0, 12.0));
        assert!(!grows_with_the_data(0.2, 0.6));
        assert!(!grows_with_the_data(10.0, 14.0));
    }
}
