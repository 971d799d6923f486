//! What a benchmark found out: plain data, as the JSON beside the page holds it. Nothing here measures or draws.
//!
//! Every rate is in bytes of the raw image per second, whichever stage it belongs to, so that all of them can be compared:
//! a source that delivers 100 MB/s of an image packed 4 : 1 has a rate of 400 MB/s. Only data chunks count: zeros and holes
//! are neither fetched nor decoded, and would make any stage look fast.

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;

/// Format of the JSON; raised when a reader of the old one would be misled.
pub const FORMAT: u32 = 1;

/// One run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Findings {
    /// [`FORMAT`].
    pub format: u32,
    /// When it began (RFC 3339, UTC).
    pub made: String,
    /// How to repeat it: the command line.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// What was streamed.
    pub subject: Subject,
    /// Where it went.
    pub sink: Sink,
    /// The settings of the whole, and what each sweep varies one of.
    pub settings: Settings,
    /// Each stage alone, in the data's order.
    pub stages: Vec<StageAlone>,
    /// The whole, at [`Findings::settings`]; `None` when it was not reached.
    pub whole: Option<Whole>,
    /// One setting varied at a time.
    pub sweeps: Vec<Sweep>,
    /// What a map of many extents costs, where that was asked for.
    #[serde(default)]
    pub routing: Option<Routing>,
    /// What limits, in words.
    pub verdict: Option<Verdict>,
    /// Other tools that do the job, beside us: the file that `--peers` names.
    pub peers: Option<Peers>,
    /// Whether it was stopped before everything was measured.
    pub interrupted: bool,
}

/// The machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Processor, as the kernel calls it.
    pub processor: String,
    /// Architecture, as the kernel calls it.
    pub architecture: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Kernel release.
    pub kernel: String,
    /// Programs and libraries, and their versions.
    pub versions: Vec<(String, String)>,
}

/// The image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    /// Where it comes from, in words.
    pub source: String,
    /// Bytes of the raw image.
    pub raw_bytes: u64,
    /// Bytes of it in data chunks.
    pub data_bytes: u64,
    /// Bytes of these as they travel.
    pub compressed_bytes: u64,
    /// Raw bytes per chunk.
    pub chunk_size: u32,
    /// zstd level, where it was packed here.
    pub level: Option<i32>,
}

/// The target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sink {
    /// What it is, in words: `null`, a file and its file system, a device and its model.
    pub name: String,
    /// Whether bytes reach a device at all.
    pub is_real: bool,
}

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The engine that wrote.
    pub engine: String,
    /// Writes in flight.
    pub depth: usize,
    /// The most bytes of one write; `None`: a whole chunk.
    #[serde(default)]
    pub largest_write: Option<usize>,
    /// Raw bytes per chunk.
    pub chunk_size: u32,
    /// Bytes per request.
    pub request_size: u64,
    /// Requests in flight.
    pub connections: usize,
    /// Threads that verify and decode.
    pub workers: usize,
    /// Whether the media were read back.
    pub read_back: bool,
}

/// A stage of the data path that can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Receiving compressed bytes.
    Source,
    /// SHA-256 of the compressed bytes.
    Hash,
    /// zstd.
    Decode,
    /// Writing to the device, and its flush.
    Write,
    /// Reading from the device.
    Read,
    /// SHA-256 of the raw bytes.
    RawHash,
}

/// A series of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle sample (the mean of the two middle ones for an even count).
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// How many there are.
    pub samples: usize,
}

/// One stage, with nothing else going on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageAlone {
    /// Which one.
    pub part: Part,
    /// Threads it ran on; 1 for the source and the device, which need hardly any.
    pub threads: usize,
    /// Bytes of the raw image per second.
    pub rate: Spread,
    /// CPU seconds per GiB of the raw image, all threads together.
    pub cpu_per_gib: f64,
}

/// What it costs to be led along a map of many extents.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Routing {
    /// How many extents, of equal length and not of whole chunks.
    pub extents: usize,
    /// The device alone.
    pub alone: Option<Turns>,
    /// The whole data path.
    pub whole: Option<Turns>,
}

/// Runs with a map of many extents that took turns with such of one extent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turns {
    /// Bytes of the raw image per second, of one extent.
    pub one: Spread,
    /// The same of many.
    pub many: Spread,
    /// How many times the rate of one that of many is, pair by pair.
    pub rate_ratio: Spread,
    /// How many times the CPU seconds of one those of many are, pair by pair.
    pub cpu_ratio: Spread,
}

/// The whole data path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whole {
    /// Bytes of the raw image per second, from the first request to the end of the flush, and of the read-back where there is one.
    pub rate: Spread,
    /// CPU seconds, all threads.
    pub cpu_seconds: Spread,
    /// Peak resident bytes of this process.
    pub peak_rss: u64,
    /// Seconds from the descriptor's verification to the first byte on its way to the device.
    pub first_write_seconds: Option<f64>,
    /// The last run's counters, every so often.
    pub timeline: Vec<Moment>,
}

/// The data path during one interval.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the run began, at the interval's end.
    pub seconds: f64,
    /// Share of the workers' time spent waiting for compressed bytes, 0 to 1.
    pub source_wait: f64,
    /// Share spent hashing and decoding.
    pub decode_busy: f64,
    /// Share spent waiting for a buffer or for the device.
    pub write_wait: f64,
    /// Compressed bytes received per second.
    pub fetched: f64,
    /// Raw bytes decoded per second.
    pub decoded: f64,
    /// Raw bytes written per second.
    pub written: f64,
    /// Raw bytes read back per second.
    pub read_back: f64,
}

/// What a sweep varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// The write engine.
    Engine,
    /// Writes in flight.
    Depth,
    /// Raw bytes per chunk.
    ChunkSize,
    /// Bytes per request.
    RequestSize,
    /// Requests in flight.
    Connections,
    /// Threads that verify and decode.
    Workers,
}

/// One setting varied, all others as in [`Findings::settings`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep {
    /// Which one.
    pub setting: Setting,
    /// The points, in the setting's order.
    pub points: Vec<Point>,
}

/// One value of a setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// The value as it is typed: `16`, `2MiB`, `uring`.
    pub value: String,
    /// The value as a number, where it is one.
    pub number: Option<u64>,
    /// Bytes of the raw image per second.
    pub rate: Spread,
    /// CPU seconds per GiB of the raw image.
    pub cpu_per_gib: f64,
    /// Why there is nothing but zeros here: what went wrong with this value.
    pub failed: Option<String>,
}

/// Other tools that do the same job, or part of it, measured in one run with ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peers {
    /// 1.
    pub format: u32,
    /// How to repeat it.
    pub command: String,
    /// What was written, in words.
    pub subject: String,
    /// Bytes of the raw image.
    pub raw_bytes: u64,
    /// Interleaved rounds.
    pub rounds: usize,
    /// The least any way could take here.
    pub limit_seconds: Option<f64>,
    /// What sets that limit.
    pub limit_by: Option<String>,
    /// The ways.
    pub ways: Vec<Way>,
}

/// One way of getting the image onto the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// Whether it is this project's.
    pub ours: bool,
    /// What it verifies, in words: `nothing`, `digest`, `digest+signature`.
    pub verifies: String,
    /// Wall seconds; `None` when it could not be measured, and `note` says why.
    pub seconds: Option<Spread>,
    /// CPU seconds of all its processes.
    pub cpu_seconds: Option<Spread>,
    /// Peak resident bytes of its largest process.
    pub peak_rss: Option<u64>,
    /// How many times as long as ours it took, round by round.
    pub ratio_to_ours: Option<Spread>,
    /// Its command line.
    pub command: String,
    /// What a reader must know to be fair.
    pub note: String,
}

impl Spread {
    /// The spread of `samples`; `None` of no samples.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Spread { median, min, max, samples: sorted.len() })
    }
}
