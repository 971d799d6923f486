//! Findings → words: which stage limits, how far the whole is from it, and what the others could still take.
//!
//! All goes at the pace of the slowest of three: the source, the processors, the device. The processors' pace comes from
//! what each stage costs, as all of them share the cores: cores divided by the CPU seconds of all stages together, and
//! never more than the workers can hash and decode one after the other. How many cores there really are is measured as
//! well: threads that decode may be held up by others, by a quota, or by sharing a core.
//!
//! Reading back follows the writing, so it takes no time of its own, but a share of what both need: its CPU seconds are
//! among those of all stages, and of the device every byte wants the time of one write and of one read. The limit knows
//! neither that little of a small image can be read before all of it is written, nor that a device may do both at once.

use serde::{Deserialize, Serialize};

use super::findings::{Findings, Part, Point, Setting, StageAlone, Sweep, Whole};
use crate::size::Size;

const GIB: f64 = (1u64 << 30) as f64;
/// Below this share of the limit, the whole needs an explanation.
const CLEARLY_LESS: f64 = 0.85;
/// So is more than this.
const CLEARLY_MORE: f64 = 1.15;
/// What is not this much faster is not worth a word.
const WORTH_A_WORD: f64 = 1.05;
/// A stage with this share of the CPU time is named alone.
const MOST_OF_IT: f64 = 0.7;

/// What limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What limits: `source`, `cpu`, `latency`, or the device: `write` or `read-back`, whichever takes more of its time.
    pub limited_by: String,
    /// Bytes of the raw image per second that the stages allow together.
    pub limit_rate: f64,
    /// The whole's rate as a share of that, 0 to 1 (above 1 where noise says so, or a device writes and reads at once).
    pub reached: f64,
    /// The verdict in sentences, the most important first.
    pub sentences: Vec<String>,
}

/// The verdict on `findings`; `None` where a stage was not measured.
pub fn judge(findings: &Findings) -> Option<Verdict> {
    let stages = Stages::of(findings)?;
    let limit = stages.limit();
    let (limit_rate, mut limited_by) = (limit.rate, limit.by);
    let reached = findings.whole.as_ref().map_or(0.0, |whole| whole.rate.median / limit_rate);
    let mut sentences = vec![stages.limit_sentence(&limit)];
    sentences.extend(stages.shares().filter(|_| limited_by == "cpu"));
    sentences.extend(stages.headroom(&limit));
    match &findings.whole {
        None => sentences.push("the whole was not measured".into()),
        Some(whole) if reached < CLEARLY_LESS => {
            let waits = Waits::of(whole);
            if waits.contradict(limited_by) {
                limited_by = "latency";
            }
            sentences.push(waits.explain(reached, findings.settings.read_back));
        }
        Some(whole) => {
            let more = stages.got_more(whole, reached).unwrap_or_default();
            sentences.push(format!("the whole reaches {} of that{more}", percent(reached)));
        }
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

/// The pace of all together, and what sets it.
struct Limit {
    /// Of source, processors and device.
    paces: Vec<(&'static str, f64)>,
    by: &'static str,
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

    fn limit(&self) -> Limit {
        let mut paces = vec![("source", self.source.rate.median), ("cpu", self.cpu())];
        paces.extend(self.device());
        let (by, rate) = paces.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("cpu", 0.0));
        Limit { paces, by, rate }
    }

    /// The device's pace, by what takes most of its time. It does one thing after the other: a write, and perhaps a read.
    fn device(&self) -> Option<(&'static str, f64)> {
        let write = self.write?.rate.median;
        let Some((read, _)) = self.read_back else { return Some(("write", write)) };
        let read = read.rate.median;
        Some((if read < write { "read-back" } else { "write" }, 1.0 / (1.0 / write + 1.0 / read)))
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

    /// Whether the workers are too few for the cores.
    fn has_idle_cores(&self) -> bool {
        self.findings.machine.cores > self.cores() && self.machine() > self.workers() * WORTH_A_WORD
    }

    /// CPU seconds per GiB of what runs at the same time, the largest first.
    fn costs(&self) -> Vec<(&'static str, f64)> {
        let hash = if self.read_back.is_some() { "SHA-256 of what arrives" } else { "SHA-256" };
        let mut costs = vec![
            ("decoding", self.decode.cpu_per_gib),
            (hash, self.hash.cpu_per_gib),
            ("receiving", self.source.cpu_per_gib),
        ];
        costs.extend(self.write.map(|write| ("writing", write.cpu_per_gib)));
        costs.extend(self.read_back.into_iter().flat_map(|(read, hash)| {
            [("reading back", read.cpu_per_gib), ("SHA-256 of what is read back", hash.cpu_per_gib)]
        }));
        costs.sort_by(|one, other| other.1.total_cmp(&one.1));
        costs
    }

    fn limit_sentence(&self, limit: &Limit) -> String {
        let what = match limit.by {
            "source" => "the source".into(),
            "cpu" => self.computing(),
            _ => self.device_words(limit.rate),
        };
        format!("limited by {what}: {} of the raw image", per_second(limit.rate))
    }

    /// What the device is busy with, at the pace that it allows.
    fn device_words(&self, pace: f64) -> String {
        let Some((read, _)) = self.read_back else { return "the device's writes".into() };
        let reading = pace / read.rate.median;
        let (reading, writing) = (percent(reading), percent(1.0 - reading));
        if self.device().is_some_and(|(by, _)| by == "read-back") {
            format!("reading back from the device ({reading} of its time; writing takes {writing})")
        } else {
            format!("the device's writes ({writing} of its time; reading back takes {reading})")
        }
    }

    /// What the processors are busy with.
    fn computing(&self) -> String {
        if self.has_idle_cores() {
            return format!("hashing and decoding on {}", cores(self.cores()));
        }
        let costs = self.costs();
        let total: f64 = costs.iter().map(|(_, cost)| cost).sum();
        let named = match costs.as_slice() {
            [(what, cost), ..] if cost / total >= MOST_OF_IT => (*what).to_owned(),
            [(first, _), (second, _), ..] => format!("{first} and {second}"),
            _ => "computing".into(),
        };
        format!("{named} on {}", cores(self.findings.machine.cores))
    }

    /// What the CPU time goes into.
    fn shares(&self) -> Option<String> {
        let costs = self.costs();
        let total: f64 = costs.iter().map(|(_, cost)| cost).sum();
        let share = |cost: f64| percent(cost / total);
        let seen = costs.iter().filter(|(_, cost)| cost / total >= 0.005);
        let words = seen.enumerate().map(|(number, (what, cost))| match number {
            0 => format!("{what} is {} of the CPU time", share(*cost)),
            _ => format!("{what} {}", share(*cost)),
        });
        (total > 0.0).then(|| words.collect::<Vec<_>>().join(", "))
    }

    /// What the others could still take.
    fn headroom(&self, limit: &Limit) -> Option<String> {
        let others = limit.paces.iter().filter(|(what, _)| *what != limit.by);
        let words: Vec<String> = others
            .map(|(what, pace)| {
                let times = pace / limit.rate;
                let who = match *what {
                    "source" => "the source could deliver",
                    "cpu" => "hashing and decoding could do",
                    _ => "the device could take",
                };
                if times < WORTH_A_WORD {
                    format!("{who} hardly more")
                } else {
                    format!("{who} {} × more", factor(times))
                }
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

    /// Why the whole may be faster than its stages: others had the cores only while these were measured.
    fn got_more(&self, whole: &Whole, reached: f64) -> Option<String> {
        let seconds = self.findings.subject.data_bytes as f64 / whole.rate.median;
        let (all, alone) = (whole.cpu_seconds.median / seconds, self.got());
        let is_more = reached > CLEARLY_MORE && all > alone * WORTH_A_WORD;
        is_more.then(|| format!(": it got {all:.1} cores, and decoding alone {alone:.1}"))
    }

    fn scaling(&self) -> Option<String> {
        let one = self.findings.stages.iter().find(|stage| stage.part == Part::Decode && stage.threads == 1)?;
        if self.decode.threads == 1 {
            return self.has_idle_cores().then(|| {
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
            "write" | "read-back" => self.source > self.write && self.source > self.decode,
            "cpu" => self.source.max(self.write) > self.decode,
            _ => false,
        }
    }

    fn explain(&self, reached: f64, is_read_back: bool) -> String {
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
        let last = if is_read_back { "the last of reading back, " } else { "" };
        let idle =
            format!(", and had nothing to do for {}: at the start, the flushes, {last}the commit", percent(rest));
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

/// Digits that can be told apart.
fn factor(times: f64) -> String {
    if times < 9.95 { format!("{times:.1}") } else { format!("{times:.0}") }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn per_second(rate: f64) -> String {
    format!("{}/s", Size(rate.max(0.0) as u64))
}

#[cfg(test)]
mod tests;
