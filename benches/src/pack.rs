//! Packing and signing beside plain `zstd -T0` at the same level: time, CPU and size.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::failure::{Context, Result};
use crate::lab::{LEVEL, Lab, Options, total_length};
use crate::measure::{Job, Usage};
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject::{self, Subject};
use crate::tools;
use crate::units::{self, gib, rate};

/// Options of `pack`.
#[derive(Args, Debug)]
pub struct Pack {
    /// Size of the image
    #[arg(long, default_value = "8GiB", value_parser = units::parse_size)]
    size: u64,
    /// Measured rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    options: Options,
}

#[derive(Serialize)]
struct Series {
    name: String,
    usages: Vec<Usage>,
    bytes: u64,
}

impl Series {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), usages: Vec::new(), bytes: 0 }
    }

    fn median(&self) -> f64 {
        Spread::of(self.usages.iter().map(|u| u.wall)).map_or(0.0, |s| s.median)
    }
}

impl Pack {
    /// The options all benchmarks share.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Runs the benchmark.
pub fn run(options: &Pack) -> Result<Report> {
    tools::require(&["zstd", "findmnt"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("pack", &["zstd"]);
    let subject = subject::dense(&lab.cache, options.size)?;
    report.fact("image", subject.fact());
    report.fact("rounds", format!("{} interleaved after one warm-up each", options.rounds));
    let mut peer = Series::new(format!("zstd -T0 -{LEVEL}"));
    let mut ours = Series::new(format!("imgstream pack --level {LEVEL}"));
    for round in 0..=options.rounds {
        let counts = round > 0;
        eprintln!("{}", if counts { format!("round {round}/{}", options.rounds) } else { "warm-up".into() });
        add(&mut peer, run_peer(&lab, &subject)?, counts);
        if lab.has_ours() {
            add(&mut ours, run_ours(&lab, &subject)?, counts);
        }
    }
    tabulate(&mut report, &subject, &peer, lab.has_ours().then_some(&ours))?;
    Ok(report)
}

fn add(series: &mut Series, (usage, bytes): (Usage, u64), counts: bool) {
    series.bytes = bytes;
    if counts {
        eprintln!("  {:.2} s  {}", usage.wall, series.name);
        series.usages.push(usage);
    }
}

fn run_peer(lab: &Lab, subject: &Subject) -> Result<(Usage, u64)> {
    let zst = lab.scratch().join("packed.zst");
    measured(lab, &lab.compress(&subject.raw, &zst), &zst, |zst| Ok(vec![zst.into()]))
}

fn run_ours(lab: &Lab, subject: &Subject) -> Result<(Usage, u64)> {
    let image = lab.scratch().join("packed");
    measured(lab, &lab.pack(&subject.raw, &image, Some(LEVEL))?, &image, |image| lab.data_blobs(image))
}

fn measured(lab: &Lab, job: &Job, made: &Path, parts: impl Fn(&Path) -> Result<Vec<PathBuf>>) -> Result<(Usage, u64)> {
    let usage = lab.run(job)?.usage;
    let bytes = total_length(&parts(made)?);
    let removed = if made.is_dir() { fs::remove_dir_all(made) } else { fs::remove_file(made) };
    removed.context(format!("could not remove {}", made.display()))?;
    Ok((usage, bytes))
}

fn tabulate(report: &mut Report, subject: &Subject, peer: &Series, ours: Option<&Series>) -> Result<()> {
    let head = ["command", "seconds", "MiB/s", "CPU s", "compressed", "ratio"];
    let mut table = Table::new("Packing, median (min–max)", &head);
    for series in [Some(peer), ours].into_iter().flatten() {
        let spread = |f: fn(&Usage) -> f64| Spread::of(series.usages.iter().map(f)).context("no samples");
        let wall = spread(|u| u.wall)?;
        table.row([
            series.name.clone(),
            wall.show(),
            rate(subject.size, wall.median),
            spread(Usage::cpu)?.show(),
            gib(series.bytes),
            format!("{:.3}", subject.size as f64 / series.bytes as f64),
        ]);
    }
    report.tables.push(table);
    if let Some(ours) = ours {
        let (speed, size) = (peer.median() / ours.median(), ours.bytes as f64 / peer.bytes as f64);
        report.notes.push(format!(
            "imgstream pack ran at {speed:.2} × the speed of zstd -T0 and made {size:.3} × the bytes; it also hashes every \
             chunk, raw and compressed, and signs"
        ));
        report.keep("imgstream", ours)?;
    }
    report.keep("zstd", peer)
}
