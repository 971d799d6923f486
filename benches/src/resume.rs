//! A target that already holds the image: `imgstream write --resume` beside reading the device and hashing, each alone.

use clap::Args;
use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::lab::{Lab, Options, Scale};
use crate::limits::{Direction, fio, sha256};
use crate::machine;
use crate::measure::Job;
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::Spread;
use crate::subject;
use crate::target::Target;
use crate::tools;
use crate::units::{GIB, MIB};
use crate::write::ratios;

/// Options of `resume`.
#[derive(Args, Clone, Debug)]
pub struct Resume {
    #[command(flatten)]
    pub scale: Scale,
    #[command(flatten)]
    pub options: Options,
}

/// The least speed, as a share of the slower of reading and hashing.
const LEAST: f64 = 0.9;

#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    cpu: Vec<f64>,
    device: Vec<f64>,
    hash: Vec<f64>,
    limit: Vec<f64>,
}

/// Runs the benchmark.
pub fn run(options: &Resume) -> Result<Report> {
    tools::require(&["nginx", "fio", "openssl", "findmnt"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("resume", &["nginx", "fio", "openssl"]);
    let subject = subject::dense(&lab.cache, options.scale.size_or(8 * GIB))?;
    let image = lab.image_of(&subject)?;
    let server = Server::start(&lab.cache)?;
    let rounds = options.scale.rounds();
    report.fact("image", subject.fact());
    report.fact("target", "one preallocated file, written once with imgstream; read with O_DIRECT");
    report.fact("rounds", format!("{rounds} interleaved after one warm-up"));
    let target = Target::preallocated(lab.scratch(), subject.size)?;
    let (url, path, trust) = (server.url(&image), target.path().display().to_string(), format!("{}.pub", lab.key()?));
    let argv = lab.ours(&["write", &url, &path, "--trust", &trust, "--json"])?;
    eprintln!("writing the image once");
    lab.run(&Job::one(argv.clone()))?;
    let mut resumed = argv;
    resumed.push("--resume".into());
    let resume = Job::one(resumed);
    report.fact("imgstream write --resume", format!("`{}`", lab.anywhere(&resume, &path, &server.url(""))));
    let mut rates = Rates::default();
    let size = subject.size as f64;
    for round in 0..=rounds {
        eprintln!("{}", if round > 0 { format!("round {round}/{rounds}") } else { "warm-up".into() });
        let outcome = lab.run(&resume)?;
        nothing_fetched(&outcome.stdout, subject.size)?;
        let (seconds, _) = fio(&lab, target.path(), subject.size, Direction::Read)?;
        let hash = sha256(&lab, machine::cores())?;
        if round > 0 {
            rates.ours.push(size / outcome.usage.wall);
            rates.cpu.push(outcome.usage.cpu());
            rates.device.push(size / seconds);
            rates.hash.push(hash);
            rates.limit.push(hash.min(size / seconds));
        }
    }
    tabulate(&mut report, &rates)?;
    Ok(report)
}

/// A resume that fetched data did not find the image, and is not what was to be measured. The chunks at the image's ends
/// may be fetched: a backup GPT is computed from them.
fn nothing_fetched(told: &str, size: u64) -> Result<()> {
    let summary: Option<Value> = told.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let fetched = summary.as_ref().and_then(|summary| summary.pointer("/report/fetched_bytes")?.as_u64());
    let fetched = fetched.context("imgstream write --resume told no summary")?;
    if fetched > size / 20 {
        return Err(Failure::new(format!("imgstream write --resume fetched {fetched} bytes of an unchanged target")));
    }
    Ok(())
}

fn tabulate(report: &mut Report, rates: &Rates) -> Result<()> {
    let cores = machine::cores();
    let mib = |values: &[f64]| {
        let spread = Spread::of(values.iter().map(|rate| rate / MIB as f64)).context("no samples")?;
        Ok(format!("{:.0} ({:.0}–{:.0})", spread.median, spread.min, spread.max))
    };
    let head = ["what", "MiB/s of raw image"];
    let mut table = Table::new("An unchanged target, median (min–max)", &head);
    table.row(["imgstream write --resume".into(), mib(&rates.ours)?]);
    table.row(["device read: fio io_uring 16 × 1 MiB".into(), mib(&rates.device)?]);
    table.row([format!("SHA-256 on {cores} cores: openssl speed -multi {cores}"), mib(&rates.hash)?]);
    report.tables.push(table);
    let share = ratios::pairs(&rates.ours, &rates.limit).context("no pairs")?;
    let slower = if rates.limit == rates.hash { "SHA-256" } else { "the device" };
    report.notes.push(format!(
        "--resume runs at {} × the slower of the two in the same round; at least {LEAST} is wanted",
        share.show()
    ));
    if share.median < LEAST {
        let cpu = Spread::of(rates.cpu.iter().copied()).map_or(0.0, |spread| spread.median);
        report.missed.push(format!(
            "MISSED: --resume of an unchanged target at {:.2} × the slower of device read and SHA-256 (here {slower}); \
             in the way: {cpu:.2} CPU s on {cores} cores, reading and hashing at once",
            share.median
        ));
    }
    let figures =
        serde_json::json!({ "ours": rates.ours, "device": rates.device, "sha256": rates.hash, "cpu": rates.cpu });
    report.keep("bytes_per_second", figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_that_fetched_is_refused() {
        let told = |bytes: u64| format!("{{}}\n{{\"report\":{{\"fetched_bytes\":{bytes}}}}}\n");
        assert!(nothing_fetched(&told(0), 1 << 30).is_ok());
        assert!(nothing_fetched(&told(1 << 30), 1 << 30).is_err());
        assert!(nothing_fetched("", 1 << 30).is_err());
    }
}
