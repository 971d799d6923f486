//! Findings → words: which stage limits, how far the whole is from it, and what the others could still take.
//!
//! Writing goes at the pace of the slowest of three: the source, the processors, the device. The processors' pace comes
//! from what each stage costs, as all of them share the cores: cores divided by the CPU seconds of all stages together,
//! and never more than the workers can hash and decode one after the other. How many cores there really are is measured as
//! well: threads that decode may be held up by others, by a quota, or by sharing a core. Reading back comes after writing,
//! so the two times add up.

use serde::{Deserialize, Serialize};

use super::findings::{Findings, Part, Point, Setting, StageAlone, Sweep, Whole};
use crate::size::Size;

const GIB: f64 = (1u64 << 30) as f64;
/// Below this share of the limit, the whole needs an explanation.
const CLEARLY_LESS: f64 = 0.85;
/// What is not this much faster is not worth a word.
const WORTH_A_WORD: f64 = 1.05;
/// A stage with this share of the CPU time is named alone.
const MOST_OF_IT: f64 = 0.7;

/// What limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What limits: `source`, `cpu`, `write`, `read-back` or `latency`.
    pub limited_by: String,
    /// Bytes of the raw image per second that the stages allow together.
    pub limit_rate: f64,
    /// The whole's rate as a share of that, 0 to 1 (above 1 where noise says so).
    pub reached: f64,
    /// The verdict in sentences, the most important first.
    pub sentences: Vec<String>,
}

/// The verdict on `findings`; `None` where a stage was not measured.
pub fn judge(findings: &Findings) -> Option<Verdict> {
    let stages = Stages::of(findings)?;
    let writing = stages.writing();
    let (limit_rate, mut limited_by) = stages.overall(&writing);
    let reached = findings.whole.as_ref().map_or(0.0, |whole| whole.rate.median / limit_rate);
    let mut sentences = vec![stages.limit_sentence(&writing, limited_by, limit_rate)];
    sentences.extend(stages.headroom(&writing));
    match &findings.whole {
        None => sentences.push("the whole was not measured".into()),
        Some(whole) if reached < CLEARLY_LESS => {
            let waits = Waits::of(whole);
            if waits.contradict(limited_by) {
                limited_by = "latency";
            }
            sentences.push(waits.explain(reached));
        }
        Some(_) => sentences.push(format!("the whole reaches {} of that", percent(reached))),
    }
    sentences.extend(stages.scaling());
    sentences.extend(stages.contention());
    if let Some(whole) = &findings.whole {
        sentences.extend(findings.sweeps.iter().filter_map(|sweep| recommend(sweep, whole, findings)));
        sentences.extend(settled(findings, whole));
    }
    Some(Verdict { limited_by: limited_by.into(), limit_rate, reached, sentences })
}

/// The stages that every verdict needs.
struct Stages<'a> {
    findings: &'a Findings,
    source: &'a StageAlone,
    hash: &'a StageAlone,
    decode: &'a StageAlone,
    write: Option<&'a StageAlone>,
    /// Reading and raw hashing.
    read_back: Option<(&'a StageAlone, &'a StageAlone)>,
}

/// Paces of the write phase, by what sets them.
struct Writing {
    paces: Vec<(&'static str, f64)>,
    limited_by: &'static str,
    rate: f64,
}

impl<'a> Stages<'a> {
    fn of(findings: &'a Findings) -> Option<Self> {
        let workers = findings.settings.workers;
        let find = |part, threads: Option<usize>| {
            let mut all = findings.stages.iter().filter(|stage| stage.part == part && stage.rate.median > 0.0);
            all.find(|stage| threads.is_none_or(|threads| stage.threads == threads))
        };
        let write = find(Part::Write, None);
        let read_back = find(Part::Read, None).zip(find(Part::RawHash, None));
        let is_complete =
            (write.is_some() || !findings.sink.is_real) && (read_back.is_some() || !findings.settings.read_back);
        let stages = Stages {
            findings,
            source: find(Part::Source, None)?,
            hash: find(Part::Hash, Some(workers))?,
            decode: find(Part::Decode, Some(workers))?,
            write,
            read_back,
        };
        is_complete.then_some(stages)
    }

    fn writing(&self) -> Writing {
        let mut paces = vec![("source", self.source.rate.median), ("cpu", self.cpu())];
        paces.extend(self.write.map(|write| ("write", write.rate.median)));
        let (limited_by, rate) =
            paces.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("cpu", 0.0));
        Writing { paces, limited_by, rate }
    }

    /// Threads that can compute at the same time.
    fn cores(&self) -> usize {
        self.findings.settings.workers.min(self.findings.machine.cores).max(1)
    }

    /// What the workers can hash and decode, one after the other.
    fn workers(&self) -> f64 {
        1.0 / (1.0 / self.hash.rate.median + 1.0 / self.decode.rate.median)
    }

    /// Cores' worth of time that the threads which decode alone have got.
    fn got(&self) -> f64 {
        self.decode.cpu_per_gib * self.decode.rate.median / GIB
    }

    /// What all cores can do when they do everything.
    fn machine(&self) -> f64 {
        let cores = self.got() * self.findings.machine.cores as f64 / self.cores() as f64;
        cores / self.costs().iter().map(|(_, cost)| cost).sum::<f64>() * GIB
    }

    fn cpu(&self) -> f64 {
        // A clock too coarse to see any cost leaves only the first.
        let machine = self.machine();
        if machine.is_finite() && machine > 0.0 { self.workers().min(machine) } else { self.workers() }
    }

    /// CPU seconds per GiB of what runs while the image is written, the largest first.
    fn costs(&self) -> Vec<(&'static str, f64)> {
        let mut costs = vec![
            ("decoding", self.decode.cpu_per_gib),
            ("SHA-256", self.hash.cpu_per_gib),
            ("receiving", self.source.cpu_per_gib),
        ];
        costs.extend(self.write.map(|write| ("writing", write.cpu_per_gib)));
        costs.sort_by(|one, other| other.1.total_cmp(&one.1));
        costs
    }

    /// The pace of all phases together, and what sets it.
    fn overall(&self, writing: &Writing) -> (f64, &'static str) {
        let Some((read, hash)) = self.read_back else { return (writing.rate, writing.limited_by) };
        let reading = read.rate.median.min(hash.rate.median);
        let limited_by = if reading < writing.rate { "read-back" } else { writing.limited_by };
        (1.0 / (1.0 / writing.rate + 1.0 / reading), limited_by)
    }

    fn limit_sentence(&self, writing: &Writing, limited_by: &str, rate: f64) -> String {
        let what = match limited_by {
            "read-back" => self.reading_words(),
            _ => self.words(writing.limited_by),
        };
        let phases = match (self.read_back, limited_by) {
            (None, _) => String::new(),
            (Some(_), "read-back") => format!(" (and while writing by {})", self.words(writing.limited_by)),
            (Some(_), _) => format!(" (and while reading back by {})", self.reading_words()),
        };
        format!("limited by {what}{phases}: {} of the raw image", per_second(rate))
    }

    fn reading_words(&self) -> String {
        match self.read_back {
            Some((read, hash)) if hash.rate.median < read.rate.median => {
                format!("SHA-256 of the raw bytes on {}", cores(hash.threads.min(self.findings.machine.cores)))
            }
            _ => "reading from the device".into(),
        }
    }

    fn words(&self, limited_by: &str) -> String {
        match limited_by {
            "source" => "the source".into(),
            "write" => "the device's writes".into(),
            _ => {
                let costs = self.costs();
                let total: f64 = costs.iter().map(|(_, cost)| cost).sum();
                let shares: Vec<_> =
                    costs.iter().map(|(what, cost)| format!("{what} {}", percent(cost / total))).collect();
                let named = match costs.as_slice() {
                    [(what, cost), ..] if cost / total >= MOST_OF_IT => (*what).to_owned(),
                    [(first, _), (second, _), ..] => format!("{first} and {second}"),
                    _ => "computing".into(),
                };
                format!("{named} on {} ({})", cores(self.cores()), shares.join(", "))
            }
        }
    }

    /// What the others could still take.
    fn headroom(&self, writing: &Writing) -> Option<String> {
        let others = writing.paces.iter().filter(|(what, _)| *what != writing.limited_by);
        let words: Vec<String> = others
            .map(|(what, pace)| {
                let times = pace / writing.rate;
                let who = match *what {
                    "source" => "the source could deliver",
                    "write" => "the device could take",
                    _ => "hashing and decoding could do",
                };
                if times < WORTH_A_WORD { format!("{who} hardly more") } else { format!("{who} {times:.1} × more") }
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// Whether others have the cores.
    fn contention(&self) -> Option<String> {
        let (got, there) = (self.got(), self.cores());
        (got > 0.0 && got < CLEARLY_LESS * there as f64).then(|| {
            let cores = cores(there);
            format!("decoding got {got:.1} of {cores}: something else runs on this machine, or a quota holds it back")
        })
    }

    fn scaling(&self) -> Option<String> {
        let one = self.findings.stages.iter().find(|stage| stage.part == Part::Decode && stage.threads == 1)?;
        if self.decode.threads == 1 {
            let idle = self.findings.machine.cores > 1 && self.machine() > self.workers() * WORTH_A_WORD;
            return idle.then(|| {
                format!("one worker uses one of {} cores: more --workers do more", self.findings.machine.cores)
            });
        }
        let times = self.decode.rate.median / one.rate.median;
        Some(format!("decoding on {} threads is {times:.1} × as fast as on one", self.decode.threads))
    }
}

/// Where the workers' time went, as shares.
struct Waits {
    source: f64,
    decode: f64,
    write: f64,
}

impl Waits {
    fn of(whole: &Whole) -> Self {
        let (mut waits, mut before) = (Waits { source: 0.0, decode: 0.0, write: 0.0 }, 0.0);
        for moment in &whole.timeline {
            let len = moment.seconds - before;
            before = moment.seconds;
            waits.source += moment.source_wait * len;
            waits.decode += moment.decode_busy * len;
            waits.write += moment.write_wait * len;
        }
        let all = before.max(1e-9);
        Waits { source: waits.source / all, decode: waits.decode / all, write: waits.write / all }
    }

    /// Whether they waited most for something that is not what limits: then it is not a stage that is too slow, but the way
    /// from one to the next.
    fn contradict(&self, limited_by: &str) -> bool {
        match limited_by {
            "source" => self.write > self.source && self.write > self.decode,
            "write" => self.source > self.write && self.source > self.decode,
            "cpu" => self.source.max(self.write) > self.decode,
            _ => false,
        }
    }

    fn explain(&self, reached: f64) -> String {
        let advice = if self.source > self.write && self.source > self.decode {
            ": more --connections or a larger --request-size may help"
        } else if self.write > self.decode {
            ": another --depth may help"
        } else if self.decode > MOST_OF_IT {
            ": computing costs more beside all else than alone; what the kernel does for device and network on its own \
             threads is in no stage's CPU seconds"
        } else {
            ""
        };
        let rest = 1.0 - self.source - self.write - self.decode;
        let idle = format!(", and had nothing to do for {}: at the start, the flushes and the commit", percent(rest));
        format!(
            "the whole reaches only {} of that: of its time, the workers waited {} for the source and {} for the device, \
             computed {}{}{advice}",
            percent(reached),
            percent(self.source),
            percent(self.write),
            percent(self.decode),
            if rest > 0.1 { &idle } else { "" },
        )
    }
}

/// A value that is faster than the present one by more than the runs differ.
fn recommend(sweep: &Sweep, whole: &Whole, findings: &Findings) -> Option<String> {
    let (best, times) = faster(sweep, whole, findings)?;
    let (name, value) = (sweep.setting.name(), &best.value);
    let present = present(sweep.setting, findings);
    let how = if sweep.setting == Setting::ChunkSize { "pack images with it" } else { "use it" };
    Some(format!("--{name} {value} is {times:.1} × as fast as {present}: {how}"))
}

/// The fastest other value and how many times as fast it is, where that is more than the runs differ: those of the whole, and
/// those that the sweep itself made with the present value, in case the machine has become faster meanwhile.
fn faster<'a>(sweep: &'a Sweep, whole: &Whole, findings: &Findings) -> Option<(&'a Point, f64)> {
    let is_present = |point: &&Point| point.value.replace(' ', "") == present(sweep.setting, findings).replace(' ', "");
    let measured = || sweep.points.iter().filter(|point| point.failed.is_none());
    let others = measured().filter(|point| !is_present(point));
    let best = others.max_by(|one, other| one.rate.median.total_cmp(&other.rate.median))?;
    let again = measured().find(is_present).map_or(whole.rate, |point| point.rate);
    let (most, median) = (whole.rate.max.max(again.max), whole.rate.median.max(again.median));
    let times = best.rate.median / median;
    (best.rate.min > most && times > WORTH_A_WORD).then_some((best, times))
}

/// The settings of which no other value is faster.
fn settled(findings: &Findings, whole: &Whole) -> Option<String> {
    let settled = |sweep: &&Sweep| {
        sweep.points.iter().any(|point| point.failed.is_none()) && faster(sweep, whole, findings).is_none()
    };
    let names: Vec<_> = findings.sweeps.iter().filter(settled).map(|sweep| sweep.setting.name()).collect();
    (!names.is_empty()).then(|| format!("no other value is faster for {}", names.join(", ")))
}

fn present(setting: Setting, findings: &Findings) -> String {
    let settings = &findings.settings;
    match setting {
        Setting::Engine => settings.engine.clone(),
        Setting::Depth => settings.depth.to_string(),
        Setting::ChunkSize => Size(settings.chunk_size.into()).to_string(),
        Setting::RequestSize => Size(settings.request_size).to_string(),
        Setting::Connections => settings.connections.to_string(),
        Setting::Workers => settings.workers.to_string(),
    }
}

fn cores(count: usize) -> String {
    if count == 1 { "1 core".into() } else { format!("{count} cores") }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn per_second(rate: f64) -> String {
    format!("{}/s", Size(rate.max(0.0) as u64))
}

#[cfg(test)]
mod tests;
