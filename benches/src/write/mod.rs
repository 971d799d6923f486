//! The peer comparison: a verified write from HTTP to a file, ours beside every peer's and beside the limit.

mod peers_json;
pub mod ratios;
mod rounds;
mod table;
pub mod verdict;

use std::path::PathBuf;

use clap::Args;

use crate::children::interrupted;
use crate::failure::Result;
use crate::lab::{LEVEL, Lab, Options, Scale, total_length};
use crate::limits::{self, Material};
use crate::ours::Ours;
use crate::peers;
use crate::report::Report;
use crate::server::Server;
use crate::subject;
use crate::target;
use crate::tools;
use crate::units::{GIB, gib};
use crate::way::{Place, Way};
use crate::write::rounds::{Rounds, Series};

/// Options of `write`.
#[derive(Args, Clone, Debug)]
pub struct Write {
    #[command(flatten)]
    pub scale: Scale,
    /// Leave out the limits measured alone
    #[arg(long)]
    pub no_limits: bool,
    /// Only peers whose name contains one of these, such as --only qemu,zstd
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub only: Vec<String>,
    /// One more argument for `imgstream write`, such as --ours=--engine=direct; repeatable
    #[arg(long = "ours", value_name = "ARG", allow_hyphen_values = true)]
    pub ours: Vec<String>,
    /// Write what a plot of all ways needs to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub peers_json: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
}

/// Runs the benchmark. What was measured before an interruption is reported.
pub fn run(options: &Write) -> Result<Report> {
    tools::require(&["nginx", "cmp", "findmnt", "curl", "zstd", "openssl", "fio"])?;
    let lab = Lab::open(&options.options)?;
    let subject = subject::dense(&lab.cache, options.scale.size_or(8 * GIB))?;
    let server = Server::start(&lab.cache)?;
    let place = Place { lab: &lab, server: &server, subject: &subject };
    let material = Material::of(&lab, &server, &subject)?;
    let ways = ways(options);
    let programs: Vec<&str> = programs(&ways);
    let mut report = lab.report("write", &programs);
    describe(&mut report, &place, &material, options)?;

    let mut rounds = Rounds::new(ways, (!options.no_limits).then_some(&material));
    let measured = rounds.measure(&place, options.scale.rounds());
    if interrupted() {
        report
            .notes
            .push(format!("INTERRUPTED in round {}: what follows is of what was measured until then", rounds.done + 1));
    } else {
        measured?;
    }
    table::add(&mut report, &rounds, subject.size)?;
    limits::tabulate(&mut report, &material, &rounds.limits)?;
    verdict::add(&mut report, &rounds)?;
    if let Some(path) = &options.peers_json {
        peers_json::save(path, &place, &rounds)?;
    }
    Ok(report)
}

fn ways(options: &Write) -> Vec<Box<dyn Way>> {
    let wanted = |way: &dyn Way| options.only.is_empty() || options.only.iter().any(|word| way.name().contains(word));
    let mut ways: Vec<Box<dyn Way>> = vec![
        Box::new(Ours { read_back: false, arguments: options.ours.clone() }),
        Box::new(Ours { read_back: true, arguments: options.ours.clone() }),
    ];
    ways.extend(peers::all().into_iter().filter(|way| wanted(way.as_ref())));
    ways
}

fn programs(ways: &[Box<dyn Way>]) -> Vec<&'static str> {
    let mut programs: Vec<&str> = vec!["nginx", "fio", "openssl"];
    for program in ways.iter().flat_map(|way| way.needs()).map(|need| need.program) {
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    programs
}

fn describe(report: &mut Report, place: &Place<'_>, material: &Material, options: &Write) -> Result<()> {
    let zst = total_length([&place.lab.zst_of(place.subject)?]);
    let ratio =
        |bytes: u64| format!("{} ({bytes} bytes, {:.2} : 1)", gib(bytes), place.subject.size as f64 / bytes as f64);
    report.fact("image", place.subject.fact());
    report.fact("one zstd file", format!("zstd -T0 -{LEVEL}: {}", ratio(zst)));
    report.fact("our image", format!("level {LEVEL}: {}", ratio(material.compressed)));
    report.fact("source", "nginx on loopback, sendfile; every form is read into the page cache before each run");
    report.fact("target", format!("{}; every way ends in a flush", target::HOW));
    let rounds = options.scale.rounds();
    report
        .fact("rounds", format!("{rounds} interleaved, the order moving on, after one warm-up each, compared by cmp"));
    report.keep("subject", place.subject)?;
    report.keep("compressed_bytes", serde_json::json!({ "zst": zst, "imgstream": material.compressed }))
}

/// The series of our write without read-back, which all others are compared with.
fn base(series: &[Series]) -> Option<&Series> {
    series.iter().find(|series| series.way.ours())
}
