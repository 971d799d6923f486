//! What each part of the way costs alone, measured with tools that are not ours, and the limit that follows from it.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::failure::{Context, Result};
use crate::lab::Lab;
use crate::machine;
use crate::measure::{Job, Usage, command};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::Spread;
use crate::target::Target;
use crate::tools;
use crate::units::{MIB, rate};

/// What there is to measure with.
pub struct Material {
    /// Bytes of the raw image.
    pub size: u64,
    /// Bytes of it that are not holes: what has to reach the device.
    pub data: u64,
    /// The image as one zstd file.
    pub zst: PathBuf,
    /// The same, served.
    pub zst_url: String,
    /// Our data blobs; empty without imgstream.
    pub blobs: Vec<PathBuf>,
    /// Bytes of what imgstream fetches (of `zst` without imgstream).
    pub compressed: u64,
}

/// One part of the way: seconds and CPU seconds of each run.
#[derive(Default, Serialize)]
struct Part {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Part {
    fn add(&mut self, wall: f64, cpu: f64) {
        self.wall.push(wall);
        self.cpu.push(cpu);
    }

    fn wall(&self) -> f64 {
        Spread::of(self.wall.iter().copied()).map_or(0.0, |s| s.median)
    }

    fn cpu(&self) -> f64 {
        Spread::of(self.cpu.iter().copied()).map_or(0.0, |s| s.median)
    }
}

/// All parts.
#[derive(Default, Serialize)]
struct Parts {
    decode: Part,
    decode_copies: Part,
    hash: Part,
    receive: Part,
    server: Part,
    dd: Part,
    device_write: Part,
    device_read: Part,
}

/// Measures every part `rounds` times and adds the tables to `report`.
pub fn run(lab: &Lab, server: &Server, material: &Material, rounds: usize, report: &mut Report) -> Result<()> {
    let fio = tools::present("fio");
    if !fio {
        report.notes.push("fio is not installed: the device's figure is dd's, scaled to the data's share".into());
    }
    let mut parts = Parts::default();
    for round in 0..rounds {
        eprintln!("limits {}/{rounds}", round + 1);
        decode(lab, material, &mut parts)?;
        hash(lab, material, &mut parts)?;
        receive(lab, server, material, &mut parts)?;
        device(lab, material, fio, &mut parts)?;
    }
    report.tables.push(table(&parts, material));
    conclude(&parts, report)?;
    report.keep("limits", &parts)
}

/// Decoding alone: on one core, and as many copies at once as there are cores.
fn decode(lab: &Lab, material: &Material, parts: &mut Parts) -> Result<()> {
    let mut argv = command(&["zstd", "-dcq"]);
    let files = if material.blobs.is_empty() { std::slice::from_ref(&material.zst) } else { &material.blobs };
    argv.extend(files.iter().map(|f| f.display().to_string()));
    let one = lab.run_quietly(&Job::one(argv.clone()))?.usage;
    parts.decode.add(one.wall, one.cpu());
    let all = lab.run_quietly(&Job::copies(argv, machine::cores()))?.usage;
    parts.decode_copies.add(all.wall, all.cpu());
    Ok(())
}

/// SHA-256 of the compressed bytes on one core, from OpenSSL's rate for blocks of 1 MiB.
fn hash(lab: &Lab, material: &Material, parts: &mut Parts) -> Result<()> {
    let argv = command(&["openssl", "speed", "-mr", "-seconds", "3", "-bytes", &MIB.to_string(), "-evp", "sha256"]);
    let told = lab.run(&Job::one(argv))?.stdout;
    let per_second = openssl_rate(&told).context("openssl speed printed no rate")?;
    let seconds = material.compressed as f64 / per_second;
    parts.hash.add(seconds, seconds);
    Ok(())
}

/// Bytes per second in `openssl speed -mr` output: the last field of the `+F:` line.
fn openssl_rate(told: &str) -> Option<f64> {
    let line = told.lines().find(|l| l.starts_with("+F:"))?;
    line.rsplit(':').next()?.trim().parse().ok().filter(|rate| *rate > 0.0)
}

/// Fetching alone, and what the server spends on it.
fn receive(lab: &Lab, server: &Server, material: &Material, parts: &mut Parts) -> Result<()> {
    let before = server.cpu();
    let usage = lab.run_quietly(&Job::one(command(&["curl", "-sf", &material.zst_url])))?.usage;
    parts.receive.add(usage.wall, usage.cpu());
    parts.server.add(usage.wall, server.cpu() - before);
    Ok(())
}

/// Writing alone, to targets made as for the measured runs, and reading back.
fn device(lab: &Lab, material: &Material, fio: bool, parts: &mut Parts) -> Result<()> {
    let target = Target::preallocated(lab.scratch(), material.size)?;
    let (output, blocks) = (format!("of={}", target.path().display()), material.size.div_ceil(4 * MIB).to_string());
    let count = format!("count={blocks}");
    let dd = ["dd", "if=/dev/zero", &output, "bs=4M", &count, "oflag=direct", "conv=notrunc,fsync", "status=none"];
    let usage: Usage = lab.run(&Job::one(command(&dd)))?.usage;
    parts.dd.add(usage.wall, usage.cpu());
    drop(target);
    if !fio {
        let share = material.data as f64 / material.size as f64;
        parts.device_write.add(usage.wall * share, usage.cpu() * share);
        return Ok(());
    }
    let target = Target::preallocated(lab.scratch(), material.size)?;
    let (wall, cpu) = run_fio(lab, &target, material.data, "write")?;
    parts.device_write.add(wall, cpu);
    let (wall, cpu) = run_fio(lab, &target, material.size, "read")?;
    parts.device_read.add(wall, cpu);
    Ok(())
}

fn run_fio(lab: &Lab, target: &Target, size: u64, direction: &str) -> Result<(f64, f64)> {
    let own =
        [format!("--filename={}", target.path().display()), format!("--size={size}"), format!("--rw={direction}")];
    let mut argv = command(&["fio", "--name=device", "--ioengine=io_uring", "--iodepth=16", "--bs=1M", "--direct=1"]);
    argv.extend(command(&["--end_fsync=1", "--fallocate=none", "--allow_file_create=0", "--output-format=json"]));
    argv.extend(own);
    let told = lab.run(&Job::one(argv))?.stdout;
    let begin = told.find('{').context("fio printed no JSON")?;
    let told: Value = serde_json::from_str(&told[begin..]).context("could not read fio's JSON")?;
    fio_cost(&told, direction).context("fio's JSON lacks the figures we need")
}

/// Seconds and CPU seconds of fio's only job.
fn fio_cost(told: &Value, direction: &str) -> Option<(f64, f64)> {
    let job = told.get("jobs")?.get(0)?;
    // `job_runtime` covers the final fsync, the direction's own `runtime` does not.
    let seconds = job.get("job_runtime")?.as_f64()?.max(job.get(direction)?.get("runtime")?.as_f64()?) / 1e3;
    let percent = job.get("usr_cpu")?.as_f64()? + job.get("sys_cpu")?.as_f64()?;
    Some((seconds, seconds * percent / 100.0))
}

fn table(parts: &Parts, material: &Material) -> Table {
    let cores = machine::cores();
    let decoder = if material.blobs.is_empty() { "zstd -dc of the .zst" } else { "zstd -dc of our data blobs" };
    let mut table = Table::new("Each part alone, medians", &["part", "seconds", "MiB/s", "CPU s"]);
    let mut row = |name: String, part: &Part, bytes: u64| {
        if !part.wall.is_empty() {
            table.row([name, format!("{:.2}", part.wall()), rate(bytes, part.wall()), format!("{:.2}", part.cpu())]);
        }
    };
    row(format!("decode, {decoder}"), &parts.decode, material.size);
    row(format!("decode, {cores} copies at once"), &parts.decode_copies, material.size * cores as u64);
    row("SHA-256 of the compressed bytes (openssl speed)".into(), &parts.hash, material.compressed);
    row("receive, curl to /dev/null".into(), &parts.receive, material.compressed);
    row("nginx meanwhile".into(), &parts.server, material.compressed);
    row("device write, zeros too, dd bs=4M oflag=direct".into(), &parts.dd, material.size);
    if !parts.device_read.wall.is_empty() {
        row("device write, data only, fio io_uring 16 × 1 MiB".into(), &parts.device_write, material.data);
        row("device read, fio io_uring 16 × 1 MiB".into(), &parts.device_read, material.size);
    }
    table
}

/// The limit: no way of writing this image here can take less than its CPU seconds spread over the cores, the device, or
/// the source.
fn conclude(parts: &Parts, report: &mut Report) -> Result<()> {
    let cores = machine::cores() as f64;
    let work = [&parts.decode, &parts.hash, &parts.receive, &parts.device_write, &parts.server];
    let cpu: f64 = work.iter().map(|part| part.cpu()).sum();
    let speedup = match parts.decode_copies.wall() {
        copies if copies > 0.0 => (cores * parts.decode.wall() / copies).min(cores),
        _ => cores,
    };
    let candidates =
        [("the cores", cpu / speedup), ("the device", parts.device_write.wall()), ("the source", parts.receive.wall())];
    let (name, seconds) = candidates.into_iter().fold(candidates[0], |a, b| if b.1 > a.1 { b } else { a });
    report.notes.push(format!(
        "limit without read-back: {seconds:.2} s, set by {name} ({cpu:.2} CPU seconds, the server's included, over a speed-up of \
         {speedup:.2} that {cores} decoders get; device {:.2} s; source {:.2} s)",
        candidates[1].1, candidates[2].1
    ));
    report.keep("limit", serde_json::json!({ "seconds": seconds, "by": name, "cpu_seconds": cpu, "speedup": speedup }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_and_fio_are_understood() {
        assert_eq!(openssl_rate("+H:1048576\n+F:25:SHA256:1846000000.00\n"), Some(1_846_000_000.0));
        let told = serde_json::json!({"jobs": [{"job_runtime": 2500, "usr_cpu": 10.0, "sys_cpu": 30.0, "write": {"runtime": 2000}}]});
        assert_eq!(fio_cost(&told, "write"), Some((2.5, 1.0)));
    }
}
