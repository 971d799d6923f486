//! `bench`: what is to be measured, whose bytes may be destroyed for it, and what was found.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imgstream::abort::unless_cancelled;
use imgstream::bench::findings::{Findings, Part, Peers, Setting, Spread, StageAlone, Turns};
use imgstream::bench::{self, ALL_SETTINGS, Bench, Origin, Recipe, Sink, Watch};
use imgstream::error::{Error, Result};
use imgstream::open::Image;
use imgstream::pipeline::{TailPolicy, WriteOptions};
use imgstream::size::Size;
use imgstream::source::Locator;
use tokio_util::sync::CancellationToken;

use super::args;
use super::display::{self, Display};
use super::image;

/// Measures, and says what was found; after an error or an interruption, what was found until then.
pub async fn bench(arguments: args::Bench, cancel: &CancellationToken) -> Result<()> {
    let sweeps = sweeps(&arguments.sweep)?;
    let peers = arguments.peers.as_deref().map(read_peers).transpose()?;
    let foreign = foreign_image(&arguments, cancel).await?;
    let size = foreign.as_ref().map_or(arguments.size.0, |image| image.descriptor().raw_size);
    let largest_write = arguments.largest_write.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
    let sink = sink(&arguments, size, cancel).await?.with_largest_write(largest_write);
    let options = options(&arguments);
    let recipe = Recipe {
        size,
        ratio: arguments.ratio,
        chunk_size: u32::try_from(arguments.chunk_size.0).unwrap_or(u32::MAX),
        sector_size: sink.sector_size(),
        level: imgstream::pack::DEFAULT_LEVEL,
    };
    let origin = foreign.map_or(Origin::Synthetic(recipe), |image| Origin::Image(Box::new(image)));
    let limit = Duration::from_secs(arguments.seconds);
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let (runs, extents) = (arguments.runs.into(), arguments.extents.map(usize::from));
    let bench = Bench { origin, sink, options, runs, limit, sweeps, extents, command };
    let watch = Arc::new(Watch::new(Box::new(|remark| say!("{remark}"))));
    let drawn = Display::start(look(Arc::clone(&watch)), arguments.json.then_some(|_| ()));
    let (found, outcome) = bench::run(&bench, &watch, cancel).await;
    drop(drawn);
    if let Some(mut findings) = found {
        findings.peers = peers;
        show(&findings);
        if let Some(dir) = &arguments.report {
            let path = imgstream::bench::report::write(dir, &findings)?;
            say!("report     {}", path.display());
        }
        if arguments.json {
            display::json_line(&as_json(&findings)?);
        }
    }
    outcome
}

fn sweeps(text: &str) -> Result<Vec<Setting>> {
    match text {
        "none" => Ok(Vec::new()),
        "all" => Ok(ALL_SETTINGS.to_vec()),
        _ => text.split(',').map(|name| name.trim().parse().map_err(Error::usage)).collect(),
    }
}

fn read_peers(path: &Path) -> Result<Peers> {
    let text = super::keys::read(path)?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::usage(format!("{}: {error}", path.display()))
            .with_source(error)
            .with_hint("it must be the JSON that `cargo xtask bench` writes")
    })
}

/// The image that `--source` names; `None` for a synthetic one. A foreign image is trusted as `write` would trust it.
async fn foreign_image(arguments: &args::Bench, cancel: &CancellationToken) -> Result<Option<Image>> {
    if arguments.source == "synthetic" {
        return Ok(None);
    }
    let locator: Locator = arguments.source.parse().map_err(Error::usage)?;
    let wanted = args::Wanted { name: None, arch: None, digest: None, min_version: None };
    image::open(&[locator], &arguments.trust, &wanted, &arguments.reach, cancel).await.map(Some)
}

fn options(arguments: &args::Bench) -> WriteOptions {
    let defaults = WriteOptions::default();
    WriteOptions {
        engine: arguments.engine,
        read_back: arguments.read_back,
        tail: TailPolicy::Keep,
        workers: arguments.workers.map_or(defaults.workers, usize::from),
        connections: arguments.connections.into(),
        request_size: arguments.request_size.0,
        depth: arguments.depth.into(),
        ..defaults
    }
}

/// The sink, opened once so that its interlocks have spoken, and confirmed by a person where something would be lost.
async fn sink(arguments: &args::Bench, size: u64, cancel: &CancellationToken) -> Result<Sink> {
    let path = &arguments.sink;
    let is_null = path == Path::new("null");
    if let Some(named) = &arguments.yes_destroy
        && (is_null || named.as_os_str() != path.as_os_str())
    {
        return Err(Error::usage(format!("--yes-destroy {} is not what --sink names", named.display()))
            .with_hint(format!("it must be exactly the path of --sink: {}", path.display())));
    }
    if is_null {
        return Sink::null();
    }
    let nobody_to_ask = || not_confirmed(path, "nobody is here to be asked");
    let is_allowed = arguments.yes_destroy.is_some();
    if !is_allowed && std::fs::symlink_metadata(path).is_ok() && !std::io::stdin().is_terminal() {
        return Err(nobody_to_ask());
    }
    let sink = Sink::at(path, size, cancel).await?;
    if !is_allowed && !sink.is_made() {
        if !std::io::stdin().is_terminal() {
            return Err(nobody_to_ask());
        }
        let asked = path.clone();
        let asking = tokio::task::spawn_blocking(move || ask(&asked));
        let answer = async { asking.await.map_err(|error| Error::usage(format!("asking: {error}"))) };
        if !unless_cancelled(cancel, "waiting for a confirmation", answer).await? {
            return Err(not_confirmed(path, "its name was not typed"));
        }
    }
    Ok(sink)
}

fn not_confirmed(path: &Path, why: &str) -> Error {
    Error::target(format!("{} would be overwritten, and {why}", path.display()))
        .with_hint(format!("if all it holds may be destroyed: --yes-destroy {}", path.display()))
}

fn ask(path: &Path) -> bool {
    say!("All that {} holds will be destroyed. Type its name to go on:", path.display());
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).is_ok() && path.as_os_str() == typed.trim_end_matches(['\r', '\n'])
}

fn look(watch: Arc<Watch>) -> impl FnMut() -> display::Shown + Send + 'static {
    move || {
        let step = watch.now();
        display::Shown { what: step.what, done: step.done(), total: step.total(), limit: None }
    }
}

fn as_json(findings: &Findings) -> Result<serde_json::Value> {
    serde_json::to_value(findings).map_err(|error| Error::device(format!("writing the findings as JSON: {error}")))
}

/// The findings as people read them.
fn show(findings: &Findings) {
    let Findings { machine, subject, settings, .. } = findings;
    say!("machine    {}, {} cores, kernel {}", machine.processor, machine.cores, machine.kernel);
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    say!("versions   {}", versions.join(", "));
    let packed = Size(subject.compressed_bytes);
    say!("source     {}: {} of data, {packed} as they travel", subject.source, Size(subject.data_bytes));
    say!("sink       {}", findings.sink.name);
    say!(
        "settings   engine {}, depth {}, chunks of {}, {} connections of {}, {} workers",
        settings.engine,
        settings.depth,
        Size(settings.chunk_size.into()),
        settings.connections,
        Size(settings.request_size),
        settings.workers
    );
    let fastest = findings.stages.iter().map(|stage| stage.rate.median).fold(0.0, f64::max);
    if !findings.stages.is_empty() {
        say!("{:24} {:>12} {:>10} {:>11}", "alone", "MiB/s", "±", "CPU s/GiB");
    }
    for stage in &findings.stages {
        let bar = bar(stage.rate.median / fastest);
        say!("  {:22} {} {:>11.2}  {bar}", stage_name(stage), columns(&stage.rate), stage.cpu_per_gib);
    }
    if let Some(whole) = &findings.whole {
        let gib = subject.data_bytes as f64 / f64::from(1 << 30);
        let cost = whole.cpu_seconds.median / gib.max(1e-9);
        say!("{:24} {} {cost:>11.2}  {}", "the whole", columns(&whole.rate), bar(whole.rate.median / fastest));
    }
    for sweep in &findings.sweeps {
        let name = sweep.setting.name();
        let reasons: Vec<_> = sweep.points.iter().map(|point| point.failed.as_deref()).collect();
        // What cannot be swept at all needs one line, not one per value.
        if let [Some(why), ..] = reasons.as_slice()
            && reasons.iter().all(|other| *other == Some(why))
        {
            say!("--{name:22} {why}");
            continue;
        }
        say!("--{name}");
        for point in &sweep.points {
            match &point.failed {
                Some(why) => say!("  {:22} {why}", point.value),
                None => {
                    let bar = bar(point.rate.median / fastest);
                    say!("  {:22} {} {:>11.2}  {bar}", point.value, columns(&point.rate), point.cpu_per_gib);
                }
            }
        }
    }
    if let Some(routing) = &findings.routing {
        let (one, many) = ("1 extent", format!("{} extents", routing.extents));
        for (what, turns) in [("the device alone", &routing.alone), ("the whole", &routing.whole)] {
            if let Some(Turns { one: of_one, many: of_many, rate_ratio, cpu_ratio }) = turns {
                say!("{what}, in {} pairs", rate_ratio.samples);
                say!("  {one:22} {}", columns(of_one));
                say!("  {many:22} {}", columns(of_many));
                say!("  {:22} {}, CPU seconds {}", "times the rate", times(rate_ratio), times(cpu_ratio));
            }
        }
    }
    if findings.interrupted {
        say!("interrupted: this is what was measured until then");
    }
    match &findings.verdict {
        Some(verdict) => verdict.sentences.iter().for_each(|sentence| say!("verdict    {sentence}")),
        None => say!("verdict    none: not every stage was measured"),
    }
}

fn stage_name(stage: &StageAlone) -> String {
    let name = match stage.part {
        Part::Source => return "source".into(),
        Part::Write => return "device, writing".into(),
        Part::Read => return "device, reading".into(),
        Part::Hash => "SHA-256",
        Part::Decode => "decoding",
        Part::RawHash => "SHA-256 of raw bytes",
    };
    format!("{name}, {}", if stage.threads == 1 { "1 thread".into() } else { format!("{} threads", stage.threads) })
}

/// The median, and how far from it the others lie.
fn columns(rate: &Spread) -> String {
    let mib = f64::from(1 << 20);
    format!("{:>12.1} {:>10.1}", rate.median / mib, (rate.max - rate.median).max(rate.median - rate.min) / mib)
}

/// The median, and the least and the most.
fn times(ratio: &Spread) -> String {
    format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.min, ratio.max)
}

fn bar(share: f64) -> String {
    const WIDTH: f64 = 24.0;
    "█".repeat((share.clamp(0.0, 1.0) * WIDTH).round() as usize)
}
