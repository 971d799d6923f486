//! Packing and signing beside plain `zstd -T0` at the same level: time, CPU and size.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::failure::{Context, Result};
use crate::lab::{LEVEL, Lab, Options, Scale, total_length};
use crate::measure::{Job, Usage, command};
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject::{self, Subject};
use crate::tools;
use crate::units::{GIB, gib, rate};
use crate::write::ratios;

/// Options of `pack`.
#[derive(Args, Clone, Debug)]
pub struct Pack {
    #[command(flatten)]
    pub scale: Scale,
    #[command(flatten)]
    pub options: Options,
}

/// The least speed, as a share of that of `zstd -T0`.
const LEAST_SPEED: f64 = 0.85;

/// The most bytes, as a multiple of what `zstd -T0` makes.
const MOST_BYTES: f64 = 1.02;

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

    fn walls(&self) -> Vec<f64> {
        self.usages.iter().map(|usage| usage.wall).collect()
    }
}

/// Runs the benchmark.
pub fn run(options: &Pack) -> Result<Report> {
    tools::require(&["zstd", "findmnt"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("pack", &["zstd"]);
    let subject = subject::dense(&lab.cache, options.scale.size_or(8 * GIB))?;
    let rounds = options.scale.rounds();
    report.fact("image", subject.fact());
    report.fact("rounds", format!("{rounds} interleaved after one warm-up each"));
    let mut peer = Series::new(format!("zstd -T0 -{LEVEL}, sync"));
    let mut ours = Series::new(format!("imgstream pack --level {LEVEL}"));
    for round in 0..=rounds {
        let counts = round > 0;
        eprintln!("{}", if counts { format!("round {round}/{rounds}") } else { "warm-up".into() });
        add(&mut peer, run_peer(&lab, &subject)?, counts);
        add(&mut ours, run_ours(&lab, &subject)?, counts);
    }
    tabulate(&mut report, &subject, &peer, &ours)?;
    judge(&mut report, &peer, &ours);
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
    // imgstream flushes what it packs, so zstd's file is flushed too.
    let job = lab.compress(&subject.raw, &zst).then(command(&["sync".to_string(), zst.display().to_string()]));
    measured(lab, &job, &zst, |zst| Ok(vec![zst.into()]))
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

fn tabulate(report: &mut Report, subject: &Subject, peer: &Series, ours: &Series) -> Result<()> {
    let head = ["command", "seconds", "MiB/s", "CPU s", "compressed", "ratio"];
    let mut table = Table::new("Packing, median (min–max)", &head);
    for series in [peer, ours] {
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
    report.keep("imgstream", ours)?;
    report.keep("zstd", peer)
}

fn judge(report: &mut Report, peer: &Series, ours: &Series) {
    let bytes = ours.bytes as f64 / peer.bytes as f64;
    let Some(speed) = ratios::pairs(&peer.walls(), &ours.walls()) else {
        return;
    };
    report.notes.push(format!(
        "imgstream pack ran at {} × the speed of zstd -T0 (per pair) and made {bytes:.3} × the bytes, in independent \
         chunks; it also hashes every chunk, raw and compressed, and signs",
        speed.show()
    ));
    if speed.median < LEAST_SPEED {
        let (zstd, own) = (cpu(peer), cpu(ours));
        report.missed.push(format!(
            "MISSED: packing at {:.2} × the speed of zstd -T0 is below {LEAST_SPEED}; in the way: {own:.2} CPU s where \
             zstd takes {zstd:.2}; two SHA-256 of every chunk are among them",
            speed.median
        ));
    }
    if bytes > MOST_BYTES {
        report.missed.push(format!(
            "MISSED: {bytes:.3} × the bytes of zstd -T0 is above {MOST_BYTES}; in the way: chunks that know nothing of each \
             other"
        ));
    }
}

fn cpu(series: &Series) -> f64 {
    Spread::of(series.usages.iter().map(Usage::cpu)).map_or(0.0, |spread| spread.median)
}
