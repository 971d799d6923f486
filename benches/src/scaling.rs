//! From one core to all of them: what `imgstream write` gains, beside what independent decoders gain.
//!
//! Source and target must not be what limits, or there is nothing to see: the image comes from a folder, in the page
//! cache, and goes to a sparse file in memory (/dev/shm).

use std::path::Path;

use clap::Args;
use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};
use crate::lab::{Lab, Options, Scale};
use crate::limits::{Frames, SAMPLE, decode};
use crate::machine;
use crate::measure::Job;
use crate::measure::command;
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject;
use crate::target::Target;
use crate::tools;
use crate::units::{GIB, gib, rate};
use crate::write::ratios;

/// Options of `scaling`.
#[derive(Args, Clone, Debug)]
pub struct Scaling {
    #[command(flatten)]
    pub scale: Scale,
    #[command(flatten)]
    pub options: Options,
}

/// The least gain, as a share of the decoders'.
const LEAST: f64 = 0.95;

/// Memory that stays free beside the target.
const SPARE: u64 = GIB;

#[derive(Default)]
struct Samples {
    one: Vec<f64>,
    all: Vec<f64>,
    one_decoder: Vec<f64>,
    all_decoders: Vec<f64>,
}

/// Runs the benchmark.
pub fn run(options: &Scaling) -> Result<Report> {
    tools::require(&["zstd", "taskset", "findmnt"])?;
    if machine::cores() < 2 {
        return Err(Failure::new("this machine has one core: there is nothing to scale to"));
    }
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("scaling", &["zstd", "taskset"]);
    let subject = subject::dense(&lab.cache, options.scale.size_or(2 * GIB))?;
    let memory = in_memory(subject.size)?;
    let image = lab.cache.join(lab.image_of(&subject)?);
    let frames = Frames::of(&lab.data_blobs(&image)?)?.sample(&lab.scratch().join("frames"), SAMPLE)?;
    let rounds = options.scale.rounds();
    report.fact("image", subject.fact());
    report.fact("source and target", "a folder in the page cache; a new sparse file in /dev/shm");
    report.fact("rounds", format!("{rounds} interleaved after one warm-up"));
    let mut samples = Samples::default();
    for round in 0..=rounds {
        eprintln!("{}", if round > 0 { format!("round {round}/{rounds}") } else { "warm-up".into() });
        let one = write(&lab, &image, memory.path(), subject.size, &["taskset", "--cpu-list", "0"])?;
        let all = write(&lab, &image, memory.path(), subject.size, &[])?;
        let (one_decoder, all_decoders) = (decode(&lab, &frames, 1)?, decode(&lab, &frames, machine::cores())?);
        if round > 0 {
            samples.one.push(one);
            samples.all.push(all);
            samples.one_decoder.push(one_decoder);
            samples.all_decoders.push(all_decoders);
        }
    }
    tabulate(&mut report, &samples, subject.size)?;
    Ok(report)
}

/// A folder in memory with room for `size` bytes.
fn in_memory(size: u64) -> Result<TempDir> {
    let folder = Path::new("/dev/shm");
    let facts = nix::sys::statvfs::statvfs(folder).context("there is no /dev/shm, which this needs")?;
    let free = facts.blocks_available() * facts.fragment_size();
    let (free, needed) = (free.min(machine::memory_available()), size + SPARE);
    if free < needed {
        let (free, needed) = (gib(free), gib(needed));
        return Err(Failure::new(format!("/dev/shm has room for {free}, not {needed}: give a smaller --size")));
    }
    TempDir::with_prefix_in("bench-", folder).context("could not make a folder in /dev/shm")
}

fn write(lab: &Lab, image: &Path, folder: &Path, size: u64, before: &[&str]) -> Result<f64> {
    let target = Target::sparse(folder, size)?;
    let (image, path) = (image.display().to_string(), target.path().display().to_string());
    let trust = format!("{}.pub", lab.key()?);
    let mut argv = command(before);
    argv.extend(lab.ours(&["write", &image, &path, "--trust", &trust, "--no-read-back", "--json"])?);
    Ok(lab.run(&Job::one(argv))?.usage.wall)
}

fn tabulate(report: &mut Report, samples: &Samples, size: u64) -> Result<()> {
    let cores = machine::cores();
    let show = |values: &[f64]| Spread::of(values.iter().copied()).context("no samples");
    let (one, all) = (show(&samples.one)?, show(&samples.all)?);
    let ours = ratios::pairs(&samples.one, &samples.all).context("no pairs")?;
    let decoders = ratios::pairs(&samples.all_decoders, &samples.one_decoder).context("no pairs")?;
    let head = ["what", "one core", &format!("{cores} cores"), "gain"];
    let mut table = Table::new("From one core to all, median (min–max)", &head);
    table.row(["imgstream write, seconds".into(), one.show(), all.show(), ours.show()]);
    let each = [rate(size, one.median), rate(size, all.median)];
    table.row(["imgstream write, MiB/s".into(), each[0].clone(), each[1].clone(), String::new()]);
    let mib = |values: &[f64]| show(values).map(|spread| rate(spread.median as u64, 1.0));
    let (slow, fast) = (mib(&samples.one_decoder)?, mib(&samples.all_decoders)?);
    table.row(["independent decoders (zstd -b -d), MiB/s".into(), slow, fast, decoders.show()]);
    report.tables.push(table);
    let share = ours.median / decoders.median;
    report.notes.push(format!("imgstream's gain is {share:.2} × the decoders'; at least {LEAST} is wanted"));
    if share < LEAST {
        report.missed.push(format!(
            "MISSED: from one core to {cores} imgstream gains {:.2} where decoders gain {:.2}: {share:.2} of it; in the \
             way: whatever it does on one core alone, such as reading the index, opening and the last flush",
            ours.median, decoders.median
        ));
    }
    let figures = serde_json::json!({ "one": samples.one, "all": samples.all, "one_decoder": samples.one_decoder,
        "all_decoders": samples.all_decoders, "share": share });
    report.keep("scaling", figures)
}
