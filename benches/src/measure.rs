//! Runs command lines and says what they cost: wall time, CPU time of all their processes, peak memory.
//!
//! Each job runs under a fresh copy of this executable (`benches tally`), whose `RUSAGE_CHILDREN` then holds that job
//! and nothing else. That is exact, needs no tool and no polling.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::children::{Running, check_interrupted};
use crate::failure::{Context, Failure, Result};
use crate::units::KIB;

/// How a job's commands belong together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Joined {
    /// Each one's output is the next one's input.
    Pipe,
    /// They run at the same time, each for itself.
    SideBySide,
}

/// What to run.
#[derive(Debug, Deserialize, Serialize)]
pub struct Job {
    commands: Vec<Vec<String>>,
    joined: Joined,
}

/// What it cost.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Usage {
    /// Seconds from the first start to the last end.
    pub wall: f64,
    /// CPU seconds in user space, all processes.
    pub user: f64,
    /// CPU seconds in the kernel, all processes.
    pub system: f64,
    /// Peak resident bytes of the largest process.
    pub max_rss: u64,
}

impl Usage {
    /// User and system together.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// A job's cost and what its last command printed.
pub struct Outcome {
    /// The cost.
    pub usage: Usage,
    /// Standard output of the last command.
    pub stdout: String,
}

/// A command line from anything that looks like strings.
pub fn command<S: ToString>(argv: &[S]) -> Vec<String> {
    argv.iter().map(S::to_string).collect()
}

impl Job {
    /// One command.
    pub fn one(argv: Vec<String>) -> Self {
        Self { commands: vec![argv], joined: Joined::Pipe }
    }

    /// A pipeline.
    pub fn pipe(commands: Vec<Vec<String>>) -> Self {
        Self { commands, joined: Joined::Pipe }
    }

    /// `copies` of one command at once.
    pub fn copies(argv: Vec<String>, copies: usize) -> Self {
        Self { commands: vec![argv; copies], joined: Joined::SideBySide }
    }

    /// The job as a person would type it.
    pub fn shown(&self) -> String {
        let lines: Vec<String> = self.commands.iter().map(|argv| argv.join(" ")).collect();
        lines.join(if self.joined == Joined::Pipe { " | " } else { " & " })
    }

    /// Runs it, with `scratch` for its output; an error when any of its commands fails.
    pub fn run(&self, scratch: &Path) -> Result<Outcome> {
        self.run_into(scratch, None)
    }

    /// As [`Job::run`], with the last command's output going to `sink`.
    pub fn run_into(&self, scratch: &Path, sink: Option<&Path>) -> Result<Outcome> {
        let (kept, errors, result) = (scratch.join("stdout"), scratch.join("stderr"), scratch.join("usage"));
        let out = sink.unwrap_or(&kept);
        let create = |path: &Path| File::create(path).context(format!("could not create {}", path.display()));
        let job = serde_json::to_string(self).context("could not describe the job")?;
        let own = std::env::current_exe().context("could not find this executable")?;
        let mut tally = Command::new(own);
        tally.arg("tally").arg(&result).arg(job);
        tally.stdin(Stdio::null()).stdout(create(out)?).stderr(create(&errors)?);
        let status = Running::start(&mut tally)?.wait()?;
        check_interrupted()?;
        if !status.success() {
            return Err(Failure::new(format!("`{}` failed ({status}):\n{}", self.shown(), tail(&errors))));
        }
        let usage = fs::read_to_string(&result).context("the tally left no result")?;
        let usage = serde_json::from_str(&usage).context("the tally's result makes no sense")?;
        let stdout = if sink.is_some() { String::new() } else { fs::read_to_string(&kept).unwrap_or_default() };
        Ok(Outcome { usage, stdout })
    }
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The inner side: runs the job described by `job` and writes what it cost to `result`.
pub fn tally(result: &Path, job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).context("could not read the job")?;
    let begin = Instant::now();
    let running = start_all(&job)?;
    let mut failed = Vec::new();
    for (argv, mut child) in job.commands.iter().zip(running) {
        let status = child.wait()?;
        if !status.success() {
            failed.push(format!("`{}`: {status}", argv.join(" ")));
        }
    }
    let wall = begin.elapsed().as_secs_f64();
    if !failed.is_empty() {
        return Err(Failure::new(failed.join("; ")));
    }
    let spent = getrusage(UsageWho::RUSAGE_CHILDREN).context("could not read the resource usage")?;
    let seconds = |t: nix::sys::time::TimeVal| t.num_microseconds() as f64 / 1e6;
    let usage = Usage {
        wall,
        user: seconds(spent.user_time()),
        system: seconds(spent.system_time()),
        max_rss: spent.max_rss().unsigned_abs() * KIB,
    };
    let text = serde_json::to_string(&usage).context("could not write down the usage")?;
    fs::write(result, text).context(format!("could not write {}", result.display()))
}

fn start_all(job: &Job) -> Result<Vec<Running>> {
    let mut running: Vec<Running> = Vec::new();
    let mut input = Stdio::null();
    for (i, argv) in job.commands.iter().enumerate() {
        let (program, arguments) = argv.split_first().context("an empty command")?;
        let piped = job.joined == Joined::Pipe && i + 1 < job.commands.len();
        let output = if piped { Stdio::piped() } else { Stdio::inherit() };
        let mut child = Running::start(Command::new(program).args(arguments).stdin(input).stdout(output))?;
        input = child.pipes().stdout.take().map_or_else(Stdio::null, Stdio::from);
        running.push(child);
    }
    Ok(running)
}
