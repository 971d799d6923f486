//! Runs command lines and says what they cost: wall time, CPU time of all their processes, peak memory.
//!
//! Each job runs under a fresh copy of this executable (`benches tally`), whose `RUSAGE_CHILDREN` then holds that job
//! and nothing else: also the helpers that a job's programs start and do not wait for, since the copy adopts them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::children::{Running, await_adopted, check_interrupted, end_children_after};
use crate::failure::{Context, Failure, Result};
use crate::units::KIB;

/// What takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(20 * 60);

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
    /// What follows, one after the other, once all of them have ended well.
    then: Vec<Vec<String>>,
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

/// A command line as a shell takes it.
fn typed(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%[]".contains(c);
    let quoted = |word: &String| {
        let bare = !word.is_empty() && word.chars().all(plain);
        if bare { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

impl Job {
    /// One command.
    pub fn one(argv: Vec<String>) -> Self {
        Self::pipe(vec![argv])
    }

    /// A pipeline.
    pub fn pipe(commands: Vec<Vec<String>>) -> Self {
        Self { commands, joined: Joined::Pipe, then: Vec::new() }
    }

    /// Commands that run at once, each for itself.
    pub fn side_by_side(commands: Vec<Vec<String>>) -> Self {
        Self { commands, joined: Joined::SideBySide, then: Vec::new() }
    }

    /// The same, followed by `argv`; its time counts too.
    pub fn then(mut self, argv: Vec<String>) -> Self {
        self.then.push(argv);
        self
    }

    /// The job as a person would type it.
    pub fn shown(&self) -> String {
        let lines: Vec<String> = self.commands.iter().map(|argv| typed(argv)).collect();
        let first = lines.join(if self.joined == Joined::Pipe { " | " } else { " & " });
        self.then.iter().fold(first, |shown, argv| format!("{shown} && {}", typed(argv)))
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
        // A failing peer's stack would crowd out what it said.
        tally.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
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
    end_children_after(LONGEST);
    set_child_subreaper(true).context("could not become the one who adopts orphans")?;
    let begin = Instant::now();
    let running = start_all(&job.commands, job.joined);
    let ended = running.and_then(|running| await_all(&job.commands, running)).and_then(|()| {
        job.then.iter().map(std::slice::from_ref).try_for_each(|step| await_all(step, start_all(step, Joined::Pipe)?))
    });
    let wall = begin.elapsed().as_secs_f64();
    // A server that a program started for itself may take a moment longer; what it used counts, its end does not.
    await_adopted();
    ended?;
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

fn start_all(commands: &[Vec<String>], joined: Joined) -> Result<Vec<Running>> {
    let mut running: Vec<Running> = Vec::new();
    let mut input = Stdio::null();
    for (i, argv) in commands.iter().enumerate() {
        let (program, arguments) = argv.split_first().context("an empty command")?;
        let piped = joined == Joined::Pipe && i + 1 < commands.len();
        let output = if piped { Stdio::piped() } else { Stdio::inherit() };
        let mut child = Running::start(Command::new(program).args(arguments).stdin(input).stdout(output))?;
        input = child.pipes().stdout.take().map_or_else(Stdio::null, Stdio::from);
        running.push(child);
    }
    Ok(running)
}

fn await_all(commands: &[Vec<String>], running: Vec<Running>) -> Result<()> {
    let mut failed = Vec::new();
    for (argv, mut child) in commands.iter().zip(running) {
        let status = child.wait()?;
        if !status.success() {
            failed.push(format!("`{}`: {status}", argv.join(" ")));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(failed.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_as_it_would_be_typed() {
        let pipe = Job::pipe(vec![command(&["curl", "-sf", "URL"]), command(&["zstd", "-dc"])]);
        assert_eq!(pipe.then(command(&["sync", "TARGET"])).shown(), "curl -sf URL | zstd -dc && sync TARGET");
        assert_eq!(Job::side_by_side(vec![command(&["a"]), command(&["a b"])]).shown(), "a & 'a b'");
    }
}
