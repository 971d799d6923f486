//! One warm-up of every way, its result compared with the raw image; then the rounds, every way once in each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::children::{check_interrupted, interrupted};
use crate::failure::{Context, Failure, Result};
use crate::limits::{self, Material};
use crate::measure::{Job, Usage, command};
use crate::target::{LoopDevice, Target};
use crate::tools;
use crate::way::{Onto, Place, Way};

/// One run of one way.
#[derive(Serialize)]
pub struct Sample {
    /// What it cost.
    #[serde(flatten)]
    pub usage: Usage,
    /// CPU seconds of nginx meanwhile.
    pub server_cpu: f64,
    /// What ours says of itself in the end.
    pub summary: Option<Value>,
}

/// A way and its runs.
pub struct Series {
    /// The way.
    pub way: Box<dyn Way>,
    /// Its command line, without the places of this machine.
    pub command: String,
    /// Its runs, one per round from the first on.
    pub samples: Vec<Sample>,
    /// Why there are none, or no more.
    pub why_not: Option<String>,
    sources: Vec<PathBuf>,
}

/// All series and the limits measured in the same rounds.
pub struct Rounds<'a> {
    /// The ways.
    pub series: Vec<Series>,
    /// Each part alone.
    pub limits: Vec<limits::Round>,
    /// Rounds that are complete.
    pub done: usize,
    material: Option<&'a Material>,
}

impl<'a> Rounds<'a> {
    /// Nothing measured yet; without `material` no limits will be.
    pub fn new(ways: Vec<Box<dyn Way>>, material: Option<&'a Material>) -> Self {
        let new = |way| Series { way, command: String::new(), samples: Vec::new(), why_not: None, sources: Vec::new() };
        Self { series: ways.into_iter().map(new).collect(), limits: Vec::new(), done: 0, material }
    }

    /// Warms up and measures.
    pub fn measure(&mut self, place: &Place<'_>, rounds: usize) -> Result<()> {
        self.series.iter_mut().try_for_each(|series| series.warm_up(place))?;
        for round in 0..rounds {
            if let Some(material) = self.material {
                eprintln!("round {}/{rounds}: every part alone", round + 1);
                self.limits.push(limits::measure(place.lab, place.server, material)?);
            }
            for at in order(round, self.series.len()) {
                self.series[at].measure(place, &format!("round {}/{rounds}", round + 1))?;
            }
            self.done += 1;
        }
        Ok(())
    }
}

/// The order within a round begins one further each time, and every other round runs backwards: so that a machine that
/// slows down or speeds up treats all the same.
fn order(round: usize, ways: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ways).map(|i| (i + round) % ways).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

impl Series {
    fn warm_up(&mut self, place: &Place<'_>) -> Result<()> {
        let missing = self.way.needs().iter().find(|need| !tools::present(need.program));
        if let Some(need) = missing {
            let why = tools::why_not_installed(need.program);
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            self.why_not = Some(format!("{} is not installed{why}; get it with: {}", need.program, need.from));
            return Ok(());
        }
        eprintln!("warm-up: {}, result compared with the raw image", self.way.name());
        let warmed = self.way.prepare(place).and_then(|sources| {
            self.sources = sources;
            self.run(place, true).map(drop)
        });
        self.settle(warmed)
    }

    fn measure(&mut self, place: &Place<'_>, when: &str) -> Result<()> {
        if self.why_not.is_some() {
            return Ok(());
        }
        let sample = self.run(place, false).map(|sample| {
            eprintln!("{when}: {:.2} s  {}", sample.usage.wall, self.way.name());
            self.samples.push(sample);
        });
        self.settle(sample)
    }

    /// A peer that fails is reported as failed; ours, and an interruption, end the benchmark.
    fn settle(&mut self, ran: Result<()>) -> Result<()> {
        let Err(failure) = ran else {
            return Ok(());
        };
        if self.way.ours() || interrupted() {
            return Err(failure);
        }
        eprintln!("{} failed: {failure}", self.way.name());
        let lines: Vec<String> = failure.to_string().lines().map(|line| line.trim().to_string()).collect();
        self.why_not = Some(format!("failed: {}", lines.join("; ")));
        Ok(())
    }

    fn run(&mut self, place: &Place<'_>, check: bool) -> Result<Sample> {
        self.sources.iter().try_for_each(|source| read_through(source))?;
        let target = Target::preallocated(place.lab.scratch(), place.subject.size)?;
        let device = match self.way.onto() {
            Onto::File => None,
            Onto::LoopDevice => Some(LoopDevice::attach(&target)?),
        };
        let path = device.as_ref().map_or_else(|| target.path().display().to_string(), |device| device.path().into());
        let job = self.way.job(place, &path)?;
        self.command = place.lab.anywhere(&job, &path, &place.server.url(""));
        let before = place.server.cpu();
        let outcome = place.lab.run(&job)?;
        let server_cpu = place.server.cpu() - before;
        drop(device);
        if check {
            self.compare(place, &target)?;
        }
        let summary = outcome.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        Ok(Sample { usage: outcome.usage, server_cpu, summary })
    }

    /// A benchmark of a writer that writes something else is worth nothing.
    fn compare(&self, place: &Place<'_>, target: &Target) -> Result<()> {
        let (raw, written) = (place.subject.raw.display().to_string(), target.path().display().to_string());
        let length = place.subject.size.to_string();
        let compared = place.lab.run(&Job::one(command(&["cmp", "-n", &length, &raw, &written])));
        check_interrupted()?;
        compared.map(drop).map_err(|e| Failure::new(format!("{} wrote something else: {e}", self.way.name())))
    }
}

/// Reads a file, or all files in a folder, so that they are in the page cache.
fn read_through(path: &Path) -> Result<()> {
    check_interrupted()?;
    let what = format!("could not read {}", path.display());
    if path.is_dir() {
        let entries = fs::read_dir(path).context(&what)?;
        return entries.flatten().try_for_each(|entry| read_through(&entry.path()));
    }
    let mut file = File::open(path).context(&what)?;
    std::io::copy(&mut file, &mut std::io::sink()).map(drop).context(&what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_way_once_and_begins_elsewhere() {
        for round in 0..7 {
            let mut all = order(round, 5);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
        }
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [0, 2, 1]);
        assert_eq!(order(2, 3), [2, 0, 1]);
    }
}
