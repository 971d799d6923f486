//! The benchmark: how fast this machine, this source and this device are, which stage limits, and which settings reach it.
//!
//! Each stage is measured alone, then the whole as `imgstream write` runs it, then other settings. Nothing of the data path
//! is left out or made easier for it: a synthetic image is signed, opened, fetched, verified and decoded like any other,
//! and the null sink is an engine that says "done" at once. Everything is counted in raw bytes of data chunks.
//!
//! | file | what happens |
//! |---|---|
//! | `content`, `synthetic` | an image of any size and ratio |
//! | `sink` | nowhere, a file, a device |
//! | `alone/` | each stage with nothing else going on |
//! | `whole`, `sweep` | the data path, with these settings and with others |
//! | `turns` | one extent and many |
//! | [`verdict`] | what limits, in words |
//! | [`findings`] | all of it as data |

mod alone;
mod content;
pub mod findings;
mod machine;
mod meter;
pub mod report;
mod sink;
mod sweep;
mod synthetic;
mod turns;
pub mod verdict;
mod watch;
mod whole;

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::manifest::ChunkKind;
use crate::open::Image;
use crate::pipeline::{Shape, WriteOptions};
use crate::plan::Plans;
use crate::sink::{EngineChoice, EngineKind};
use crate::size::Size;
use alone::Alone;
use findings::{Findings, Routing, Setting, Settings, Subject};
use whole::Path;

pub use content::RATIOS;
pub use sink::Sink;
pub use sweep::ALL as ALL_SETTINGS;
pub use synthetic::Recipe;
pub use watch::{Step, Tell, Watch};

/// Chunks that an image must have at least: with fewer there is nothing between its withheld ends.
const LEAST_CHUNKS: u64 = 8;

/// Where the image comes from.
#[derive(Debug)]
pub enum Origin {
    /// It is made.
    Synthetic(Recipe),
    /// It is there, opened and trusted.
    Image(Box<Image>),
}

/// What to measure.
#[derive(Debug)]
pub struct Bench {
    /// The image.
    pub origin: Origin,
    /// Where it goes.
    pub sink: Sink,
    /// How. Only the settings of [`Settings`] are looked at.
    pub options: WriteOptions,
    /// Runs of everything; sweeps have two per value.
    pub runs: usize,
    /// The longest that a run of a stage alone may take.
    pub limit: Duration,
    /// What to sweep.
    pub sweeps: Vec<Setting>,
    /// How many extents the map of a target has whose costs are compared with those of one.
    pub extents: Option<usize>,
    /// The command line, for the findings.
    pub command: String,
}

/// Measures. What was found before an error, or before `cancel`, is handed back with it.
pub async fn run(bench: &Bench, watch: &Watch, cancel: &CancellationToken) -> (Option<Findings>, Result<()>) {
    let begun = async {
        let image = match &bench.origin {
            Origin::Synthetic(recipe) => synthetic::open(*recipe, cancel).await?,
            Origin::Image(image) => (**image).clone(),
        };
        let least = LEAST_CHUNKS * u64::from(image.descriptor().chunk_size);
        if image.descriptor().raw_size < least {
            return Err(Error::usage(format!("an image of {}", Size(image.descriptor().raw_size)))
                .with_hint(format!("in chunks of this size, {} at least can be measured", Size(least))));
        }
        if bench.options.read_back && !bench.sink.is_real() {
            return Err(Error::usage("the null sink cannot be read back").with_hint("name a file or device by --sink"));
        }
        if bench.extents.is_some() && !bench.sink.is_real() {
            return Err(Error::usage("the null sink has no extents").with_hint("name a file or device by --sink"));
        }
        // What does not fit is said now, not after a minute of measuring the other stages.
        let descriptor = image.descriptor();
        let target = bench.sink.target(descriptor.raw_size, bench.options.engine, cancel).await?;
        target.check_fits(descriptor.raw_size, descriptor.sector_size)?;
        drop(target);
        let findings = begin(bench, &image).await?;
        Ok((image, findings))
    };
    let (image, mut findings) = match crate::abort::unless_cancelled(cancel, "preparing the benchmark", begun).await {
        Ok(begun) => begun,
        Err(error) => return (None, Err(error)),
    };
    let measured = measure(bench, &image, &mut findings, watch, cancel).await;
    findings.interrupted = measured.is_err();
    findings.verdict = verdict::judge(&findings);
    (Some(findings), measured)
}

/// The page that tells the story.
async fn measure(
    bench: &Bench,
    image: &Image,
    findings: &mut Findings,
    watch: &Watch,
    cancel: &CancellationToken,
) -> Result<()> {
    let alone = Alone {
        image,
        sink: &bench.sink,
        options: &bench.options,
        ratio: findings.subject.data_bytes as f64 / findings.subject.compressed_bytes.max(1) as f64,
        runs: bench.runs,
        limit: bench.limit,
        watch,
        cancel,
    };
    let of_device = alone.measure(bench.extents, |stage| findings.stages.push(stage)).await?;
    findings.routing = bench.extents.map(|extents| Routing { extents, alone: of_device, whole: None });
    let path = Path { sink: &bench.sink, watch, cancel };
    let (whole, outcome) = path.measure(image, &bench.options, bench.runs).await;
    if let Some((whole, engine)) = whole {
        findings.settings.engine = engine.map_or_else(|| asked_engine(bench), |shown| engine_name(&shown)).into();
        findings.whole = Some(whole);
    }
    outcome?;
    if let Some(whole) = &findings.whole {
        estimate(bench, findings.subject.data_bytes as f64 / whole.rate.median, watch);
    }
    if let Some(routing) = &mut findings.routing {
        let once = async |extents| path.sample("one extent and many", extents, image, &bench.options).await;
        routing.whole = turns::take(bench.runs * turns::PAIRS, routing.extents, once).await?;
    }
    for setting in &bench.sweeps {
        let (sweep, outcome) = sweep::sweep(&path, bench, image, *setting).await;
        findings.sweeps.push(sweep);
        outcome?;
    }
    Ok(())
}

/// The findings before anything is found.
async fn begin(bench: &Bench, image: &Image) -> Result<Findings> {
    let descriptor = image.descriptor();
    let (mut data_bytes, mut compressed_bytes) = (0, 0);
    let plans = Plans::new(image.clone());
    for number in 0..plans.count() {
        let span = plans.load(number).await?;
        let data = span.index.rows().iter().enumerate().filter(|(_, row)| row.kind == ChunkKind::Data);
        for (chunk, row) in data {
            data_bytes += span.raw_range(chunk).1 as u64;
            compressed_bytes += u64::from(row.length);
        }
    }
    let Shape { workers, depth, .. } = Shape::of(&bench.options, descriptor.chunk_size);
    let frames = bench.options.frame_memory;
    let connections = crate::fetch::connections(bench.options.connections, frames, 1, descriptor.chunk_size);
    Ok(Findings {
        format: findings::FORMAT,
        made: OffsetDateTime::now_utc()
            .replace_nanosecond(0)
            .ok()
            .and_then(|now| now.format(&Rfc3339).ok())
            .unwrap_or_default(),
        command: bench.command.clone(),
        machine: machine::describe(),
        subject: Subject {
            source: image.sources()[0].name().to_owned(),
            raw_bytes: descriptor.raw_size,
            data_bytes,
            compressed_bytes,
            chunk_size: descriptor.chunk_size,
            level: if let Origin::Synthetic(recipe) = &bench.origin { Some(recipe.level) } else { None },
        },
        sink: bench.sink.finding(),
        settings: Settings {
            engine: asked_engine(bench).into(),
            depth,
            largest_write: bench.sink.largest_write(),
            chunk_size: descriptor.chunk_size,
            request_size: bench.options.request_size,
            connections,
            workers,
            read_back: bench.options.read_back,
        },
        stages: Vec::new(),
        whole: None,
        sweeps: Vec::new(),
        routing: None,
        verdict: None,
        peers: None,
        interrupted: false,
    })
}

fn asked_engine(bench: &Bench) -> &'static str {
    match bench.options.engine {
        _ if !bench.sink.is_real() => "null",
        EngineChoice::Auto => "auto",
        EngineChoice::Only(kind) => engine_name(&kind.to_string()),
    }
}

/// As it is typed.
fn engine_name(shown: &str) -> &'static str {
    let kinds = [(EngineKind::Uring, "uring"), (EngineKind::Direct, "direct"), (EngineKind::Buffered, "buffered")];
    kinds.into_iter().find(|(kind, _)| kind.to_string() == shown).map_or("null", |(_, name)| name)
}

fn estimate(bench: &Bench, seconds: f64, watch: &Watch) {
    let points: usize = bench.sweeps.iter().map(|setting| setting.values().len()).sum();
    if points > 0 {
        let seconds = seconds * (points * sweep::RUNS) as f64;
        watch.tell(&format!("sweeping {points} values takes about {seconds:.0} s; Ctrl-C keeps what was measured"));
    }
}
