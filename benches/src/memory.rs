//! Peak memory of packing and writing, for small, large and enormous images: the same, whatever the size.

use std::fs;

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::lab::{Lab, Options};
use crate::measure::{Job, Usage};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::subject::{self, Subject};
use crate::target::Target;
use crate::tools;
use crate::units::{self, mib};

/// Options of `memory`.
#[derive(Args, Debug)]
pub struct Memory {
    /// Sizes of the images full of data
    #[arg(long, default_value = "1GiB,8GiB", value_delimiter = ',', value_parser = units::parse_size)]
    sizes: Vec<u64>,
    /// Size of the sparse image
    #[arg(long, default_value = "1TiB", value_parser = units::parse_size)]
    sparse: u64,
    /// Peak resident memory allowed to each process
    #[arg(long, default_value = "256MiB", value_parser = units::parse_size)]
    budget: u64,
    #[command(flatten)]
    options: Options,
}

#[derive(Serialize)]
struct Sample {
    image: String,
    command: &'static str,
    #[serde(flatten)]
    usage: Usage,
}

impl Memory {
    /// The options all benchmarks share.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Runs the benchmark.
pub fn run(options: &Memory) -> Result<Report> {
    if options.options.peers_only {
        return Err(Failure::new("`memory` measures imgstream; it makes no sense with --peers-only"));
    }
    tools::require(&["nginx", "findmnt"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("memory", &["nginx"]);
    let mut subjects = Vec::new();
    for size in &options.sizes {
        subjects.push((subject::dense(&lab.cache, *size)?, "data"));
    }
    subjects.push((subject::sparse(&lab.cache, options.sparse)?, "sparse"));
    let server = Server::start(lab.scratch())?;
    let mut samples = Vec::new();
    for (subject, kind) in &subjects {
        report.fact(&format!("image {}", subject.name()), subject.fact());
        samples.extend(measure(&lab, &server, subject, kind)?);
    }
    tabulate(&mut report, &samples, options.budget);
    report.keep("budget", options.budget)?;
    report.keep("samples", samples)?;
    Ok(report)
}

/// Packs `subject`, then writes it over HTTP into a sparse file, all at default settings.
fn measure(lab: &Lab, server: &Server, subject: &Subject, kind: &str) -> Result<Vec<Sample>> {
    let image = format!("{} {kind}", subject.name());
    let folder = lab.scratch().join("image");
    eprintln!("packing {image}");
    let packed = lab.run(&lab.pack(&subject.raw, &folder, None)?)?.usage;
    eprintln!("writing {image}");
    let target = Target::sparse(lab.scratch(), subject.size)?;
    let (url, path, trust) = (server.url("image"), target.path().display().to_string(), format!("{}.pub", lab.key()?));
    let write = Job::one(lab.ours(&["write", &url, &path, "--trust", &trust, "--no-read-back", "--json"])?);
    let written = lab.run(&write)?.usage;
    let removed = fs::remove_dir_all(&folder);
    removed.map_err(|e| Failure::new(format!("could not remove {}: {e}", folder.display())))?;
    let sample = |command, usage| Sample { image: image.clone(), command, usage };
    Ok(vec![sample("pack", packed), sample("write", written)])
}

fn tabulate(report: &mut Report, samples: &[Sample], budget: u64) {
    let mut table =
        Table::new("Peak resident memory", &["image", "command", "peak MiB", "seconds", "CPU s", "verdict"]);
    for sample in samples {
        let fits = sample.usage.max_rss <= budget;
        table.row([
            sample.image.clone(),
            sample.command.into(),
            mib(sample.usage.max_rss),
            format!("{:.2}", sample.usage.wall),
            format!("{:.2}", sample.usage.cpu()),
            if fits { "pass" } else { "FAIL" }.into(),
        ]);
        if !fits {
            let (command, image) = (sample.command, &sample.image);
            report.missed.push(format!("MISSED: {command} of {image} is above the budget of {} MiB", mib(budget)));
        }
    }
    report.tables.push(table);
    report.notes.push(format!(
        "budget {} MiB per process; default settings; written without read-back to a sparse file",
        mib(budget)
    ));
}
