//! One part of the way, alone, by a tool that is not ours: what it is told, and what its output means.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Context, Result};
use crate::lab::Lab;
use crate::measure::{Job, command};
use crate::units::MIB;

/// Bytes per second that `copies` of `zstd -b -d` decode together in memory, a frame at a time.
pub fn decode(lab: &Lab, frames: &[PathBuf], copies: usize) -> Result<f64> {
    let names: Vec<String> = frames.iter().map(|file| file.display().to_string()).collect();
    let told: Vec<PathBuf> = (0..copies).map(|copy| lab.scratch().join(format!("decoded.{copy}"))).collect();
    let each = told.iter().map(|told| {
        let script = format!("exec zstd -b -d -i2 \"$@\" > {}", told.display());
        let mut argv = command(&["sh", "-c", &script, "sh"]);
        argv.extend(names.iter().cloned());
        argv
    });
    lab.run(&Job::side_by_side(each.collect()))?;
    let rates = told.iter().map(|told| {
        let told = fs::read_to_string(told).context("could not read what zstd -b told")?;
        zstd_rate(&told).context("zstd -b printed no rate")
    });
    rates.sum()
}

/// The last decoding speed that `zstd -b` told, in bytes per second: it rewrites its line with carriage returns.
fn zstd_rate(told: &str) -> Option<f64> {
    let mut lines = told.rsplit(['\r', '\n']).filter_map(|line| line.trim_end().strip_suffix("MB/s"));
    let rate: f64 = lines.next()?.rsplit(',').next()?.trim().parse().ok()?;
    (rate > 0.0).then_some(rate * 1e6)
}

/// Bytes per second of SHA-256 on `cores` cores, in blocks of 1 MiB.
pub fn sha256(lab: &Lab, cores: usize) -> Result<f64> {
    let mut argv = command(&["openssl", "speed", "-mr", "-seconds", "2", "-bytes", &MIB.to_string()]);
    if cores > 1 {
        argv.extend(command(&["-multi", &cores.to_string()]));
    }
    argv.extend(command(&["-evp", "sha256"]));
    let told = lab.run(&Job::one(argv))?.stdout;
    openssl_rate(&told).context("openssl speed printed no rate")
}

/// Bytes per second in `openssl speed -mr` output: the last field of the `+F:` line.
fn openssl_rate(told: &str) -> Option<f64> {
    let line = told.lines().find(|l| l.starts_with("+F:"))?;
    line.rsplit(':').next()?.trim().parse().ok().filter(|rate| *rate > 0.0)
}

/// What fio does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    /// It writes.
    Write,
    /// It reads.
    Read,
}

/// Seconds and CPU seconds that fio needs for `size` bytes of `target`.
pub fn fio(lab: &Lab, target: &Path, size: u64, direction: Direction) -> Result<(f64, f64)> {
    let direction = if direction == Direction::Write { "write" } else { "read" };
    let own = [format!("--filename={}", target.display()), format!("--size={size}"), format!("--rw={direction}")];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_openssl_and_fio_are_understood() {
        let told =
            "\r 2 files : 67108864 -> \r 2 files : 67108864 ->  23867005 (x2.812),   0.00 MB/s,  279.6 MB/s\r 3#\n";
        assert_eq!(zstd_rate(told), Some(279.6e6));
        assert_eq!(zstd_rate("zstd: error\n"), None);
        assert_eq!(openssl_rate("+H:1048576\n+F:25:SHA256:1846000000.00\n"), Some(1_846_000_000.0));
        let two = "Got: +F:25:sha256:441232475.25 from 0\n+F:25:sha256:876235786.14\n";
        assert_eq!(openssl_rate(two), Some(876_235_786.14));
        let told = serde_json::json!({"jobs": [{"job_runtime": 2500, "usr_cpu": 10.0, "sys_cpu": 30.0, "write": {"runtime": 2000}}]});
        assert_eq!(fio_cost(&told, "write"), Some((2.5, 1.0)));
    }
}
