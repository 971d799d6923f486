//! The headline benchmark: a verified write from HTTP to an O_DIRECT file, beside `curl | zstd -dc | dd`.
//!
//! Rounds are interleaved and the order within a round alternates, so that a machine that slows down or speeds up treats
//! both the same. Every way runs once before anything counts, and what it wrote then is compared with the raw image.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::children::check_interrupted;
use crate::failure::{Context, Failure, Result};
use crate::lab::{Lab, Options, total_length};
use crate::limits::{self, Material};
use crate::measure::{Job, Usage, command};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::Spread;
use crate::subject::{self, Subject};
use crate::target::{self, Target};
use crate::tools;
use crate::units::{self, gib, mib, rate};

/// Options of `write`.
#[derive(Args, Debug)]
pub struct Write {
    /// Size of the image
    #[arg(long, default_value = "8GiB", value_parser = units::parse_size)]
    size: u64,
    /// Measured rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Leave out the limits measured alone
    #[arg(long)]
    no_limits: bool,
    /// One more argument for `imgstream write`, such as --ours=--engine=direct; repeatable
    #[arg(long = "ours", value_name = "ARG", allow_hyphen_values = true)]
    ours: Vec<String>,
    #[command(flatten)]
    options: Options,
}

/// One way of getting the image onto the target.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Ours,
    Pipe,
    OursProved,
}

/// One run of one way.
#[derive(Serialize)]
struct Sample {
    #[serde(flatten)]
    usage: Usage,
    server_cpu: f64,
    summary: Option<Value>,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Ours => "imgstream write, verified",
            Way::Pipe => "curl | zstd -dc | dd",
            Way::OursProved => "imgstream write, verified and read back",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Way::Ours => "imgstream",
            Way::Pipe => "curl_zstd_dd",
            Way::OursProved => "imgstream_read_back",
        }
    }
}

/// What all runs share.
struct Track<'a> {
    lab: &'a Lab,
    server: Server,
    subject: Subject,
    ours: Vec<String>,
    image: Option<String>,
    zst: String,
}

impl Track<'_> {
    fn job(&self, way: Way, target: &Target) -> Result<Job> {
        let path = target.path().display().to_string();
        if way == Way::Pipe {
            let output = format!("of={path}");
            return Ok(Job::pipe(vec![
                command(&["curl", "-sf", &self.server.url(&self.zst)]),
                command(&["zstd", "-dc"]),
                command(&[
                    "dd",
                    &output,
                    "bs=4M",
                    "oflag=direct",
                    "iflag=fullblock",
                    "conv=notrunc,fsync",
                    "status=none",
                ]),
            ]));
        }
        let url = self.server.url(self.image.as_deref().context("there is no image")?);
        let trust = format!("{}.pub", self.lab.key()?);
        let mut argv = self.lab.ours(&["write", &url, &path, "--trust", &trust, "--json"])?;
        if way == Way::Ours {
            argv.push("--no-read-back".into());
        }
        argv.extend(self.ours.iter().cloned());
        Ok(Job::one(argv))
    }

    fn run(&self, way: Way, check: bool) -> Result<Sample> {
        let target = Target::preallocated(self.lab.scratch(), self.subject.size)?;
        let job = self.job(way, &target)?;
        let before = self.server.cpu();
        let outcome = self.lab.run(&job)?;
        let server_cpu = self.server.cpu() - before;
        if check {
            self.compare(way, &target)?;
        }
        let summary = outcome.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        Ok(Sample { usage: outcome.usage, server_cpu, summary })
    }

    /// A benchmark of a writer that writes something else is worth nothing.
    fn compare(&self, way: Way, target: &Target) -> Result<()> {
        let (raw, written) = (self.subject.raw.display().to_string(), target.path().display().to_string());
        let length = self.subject.size.to_string();
        let equal = Job::one(command(&["cmp", "-n", &length, &raw, &written]));
        let compared = self.lab.run(&equal);
        check_interrupted()?;
        compared.map(drop).map_err(|e| Failure::new(format!("{} wrote something else: {e}", way.name())))
    }
}

impl Write {
    /// The options all benchmarks share.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Runs the benchmark.
pub fn run(options: &Write) -> Result<Report> {
    tools::require(&["nginx", "curl", "zstd", "dd", "cmp", "findmnt", "openssl"])?;
    let lab = Lab::open(&options.options)?;
    let mut report = lab.report("write", &["zstd", "curl", "dd", "nginx", "fio", "openssl"]);
    let subject = subject::dense(&lab.cache, options.size)?;
    let image = lab.has_ours().then(|| lab.image_of(&subject)).transpose()?;
    let zst = lab.zst_of(&subject)?;
    let server = Server::start(&lab.cache)?;
    let track = Track { lab: &lab, server, subject, ours: options.ours.clone(), image, zst };
    let material = material(&track)?;
    describe(&mut report, &track, &material, options)?;
    let samples = measure(&track, usize::from(options.rounds))?;
    tabulate(&mut report, &track, &samples)?;
    if !options.no_limits {
        limits::run(&lab, &track.server, &material, usize::from(options.rounds).min(3), &mut report)?;
    }
    Ok(report)
}

fn measure(track: &Track<'_>, rounds: usize) -> Result<Vec<(Way, Vec<Sample>)>> {
    let ways: &[Way] = if track.lab.has_ours() { &[Way::Ours, Way::Pipe, Way::OursProved] } else { &[Way::Pipe] };
    let mut samples: Vec<(Way, Vec<Sample>)> = ways.iter().map(|way| (*way, Vec::new())).collect();
    for way in ways {
        eprintln!("warm-up: {}, result compared with the raw image", way.name());
        track.run(*way, true)?;
    }
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        if round % 2 == 1 && order.len() > 1 {
            order.swap(0, 1);
        }
        for i in order {
            let sample = track.run(samples[i].0, false)?;
            eprintln!("round {}/{rounds}: {:.2} s  {}", round + 1, sample.usage.wall, samples[i].0.name());
            samples[i].1.push(sample);
        }
    }
    Ok(samples)
}

fn material(track: &Track<'_>) -> Result<Material> {
    let zst = track.lab.cache.join(&track.zst);
    let blobs = match &track.image {
        Some(image) => track.lab.data_blobs(&track.lab.cache.join(image))?,
        None => Vec::new(),
    };
    let compressed = total_length(if blobs.is_empty() { std::slice::from_ref(&zst) } else { &blobs });
    Ok(Material {
        size: track.subject.size,
        data: track.subject.data.next_multiple_of(units::MIB),
        zst_url: track.server.url(&track.zst),
        zst,
        blobs,
        compressed,
    })
}

fn describe(report: &mut Report, track: &Track<'_>, material: &Material, options: &Write) -> Result<()> {
    let zst = total_length([&material.zst]);
    let ratio =
        |bytes: u64| format!("{} ({bytes} bytes, {:.2} : 1)", gib(bytes), track.subject.size as f64 / bytes as f64);
    report.fact("image", track.subject.fact());
    report.fact("compressed for the pipe", format!("zstd -T0 -{}: {}", crate::lab::LEVEL, ratio(zst)));
    if track.image.is_some() {
        report.fact("compressed for imgstream", format!("level {}: {}", crate::lab::LEVEL, ratio(material.compressed)));
    }
    report.fact("source", "nginx on loopback, sendfile, all files in the page cache after the warm-up");
    report.fact("target", format!("{}; every way ends in fsync", target::HOW));
    report.fact("rounds", format!("{} interleaved, order alternating, after one warm-up each", options.rounds));
    let target = Target::sparse(track.lab.scratch(), units::MIB)?;
    let ways = if track.lab.has_ours() { vec![Way::Ours, Way::Pipe, Way::OursProved] } else { vec![Way::Pipe] };
    for way in ways {
        let shown = track.lab.anywhere(&track.job(way, &target)?, &track.server.url(""));
        report.fact(way.name(), format!("`{shown}`"));
    }
    report.keep("subject", &track.subject)?;
    report.keep("compressed_bytes", serde_json::json!({ "zst": zst, "imgstream": material.compressed }))
}

fn tabulate(report: &mut Report, track: &Track<'_>, samples: &[(Way, Vec<Sample>)]) -> Result<()> {
    let head = ["way", "seconds", "MiB/s", "CPU s", "server CPU s", "peak MiB"];
    let mut table = Table::new("From HTTP to the disk, median (min–max)", &head);
    for (way, runs) in samples {
        let spread = |f: fn(&Sample) -> f64| Spread::of(runs.iter().map(f)).context("no samples");
        let wall = spread(|s| s.usage.wall)?;
        let peak = runs.iter().map(|s| s.usage.max_rss).max().unwrap_or(0);
        table.row([
            way.name().into(),
            wall.show(),
            rate(track.subject.size, wall.median),
            spread(|s| s.usage.cpu())?.show(),
            spread(|s| s.server_cpu)?.show(),
            mib(peak),
        ]);
        report.keep(way.key(), runs)?;
    }
    report.tables.push(table);
    report.notes.push("MiB/s is bytes of the raw image; peak MiB is the largest single process".into());
    report.notes.push("the pipe verifies nothing but zstd's own checksum, and writes the zeros too".into());
    compare_pairs(report, samples)
}

/// How many times as long the pipe took.
fn compare_pairs(report: &mut Report, samples: &[(Way, Vec<Sample>)]) -> Result<()> {
    let of = |way| samples.iter().find(|(w, _)| *w == way).map(|(_, runs)| runs.as_slice()).unwrap_or_default();
    let pipe = of(Way::Pipe);
    for way in [Way::Ours, Way::OursProved] {
        let ours = of(way);
        let pairs = ours.iter().zip(pipe).map(|(a, b)| b.usage.wall / a.usage.wall);
        let cpu = ours.iter().zip(pipe).map(|(a, b)| b.usage.cpu() / a.usage.cpu());
        let (Some(pairs), Some(cpu)) = (Spread::of(pairs), Spread::of(cpu)) else {
            continue;
        };
        let median = |runs: &[Sample]| Spread::of(runs.iter().map(|s| s.usage.wall)).map_or(0.0, |s| s.median);
        let medians = median(pipe) / median(ours);
        let (wall_pairs, cpu_pairs) = (pairs.show(), cpu.show());
        report.notes.push(format!(
            "{}: the pipe took {medians:.2} times as long (ratio of medians; per pair {wall_pairs}; CPU {cpu_pairs})",
            way.name()
        ));
        let figures = serde_json::json!({ "of_medians": medians, "per_pair": pairs, "cpu_per_pair": cpu });
        report.keep(&format!("{}_speedup", way.key()), figures)?;
        if way == Way::Ours && medians <= 1.0 {
            report.missed.push("MISSED: imgstream write is not faster than the pipe".into());
        }
    }
    Ok(())
}
