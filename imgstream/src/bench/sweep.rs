//! One setting at a time: the whole with other values of it, all else as before.

use super::findings::{Point, Setting, Spread, Sweep};
use super::meter::Sample;
use super::whole::Path;
use super::{Bench, synthetic};
use crate::error::{Error, Kind, Result};
use crate::open::Image;
use crate::pipeline::{Shape, WriteOptions};
use crate::size::Size;
use crate::{fetch, manifest};

/// Runs of each value.
pub(super) const RUNS: usize = 2;

/// Settings in the order they are swept: the data's.
pub const ALL: [Setting; 6] =
    [Setting::Connections, Setting::RequestSize, Setting::ChunkSize, Setting::Workers, Setting::Engine, Setting::Depth];

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = ALL.into_iter().find(|setting| setting.name() == text);
        named.ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|setting| setting.name()).collect();
            format!("{text:?} cannot be swept: {}, all or none", names.join(", "))
        })
    }
}

impl Setting {
    /// As its option is called.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Engine => "engine",
            Setting::Depth => "depth",
            Setting::ChunkSize => "chunk-size",
            Setting::RequestSize => "request-size",
            Setting::Connections => "connections",
            Setting::Workers => "workers",
        }
    }

    /// The values that are tried, as they are typed.
    pub(super) fn values(self) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let numbers = |numbers: &[usize]| numbers.iter().map(ToString::to_string).collect();
        match self {
            Setting::Engine => ["uring", "direct", "buffered"].map(String::from).to_vec(),
            Setting::Depth => numbers(&[2, 4, 8, 16, 32, 64]),
            Setting::ChunkSize => ["256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB"].map(String::from).to_vec(),
            Setting::RequestSize => ["1MiB", "4MiB", "16MiB", "64MiB"].map(String::from).to_vec(),
            Setting::Connections => numbers(&[1, 2, 4, 8, 16]),
            Setting::Workers => {
                let mut workers = vec![1, cores.div_ceil(2), cores, 2 * cores];
                workers.dedup();
                numbers(&workers)
            }
        }
    }
}

/// Varies `setting`. Points that were measured before an error are handed back with it.
pub(super) async fn sweep(path: &Path<'_>, bench: &Bench, image: &Image, setting: Setting) -> (Sweep, Result<()>) {
    let mut sweep = Sweep { setting, points: Vec::new() };
    for value in setting.values() {
        match point(path, bench, image, setting, &value).await {
            Ok(samples) => sweep.points.extend(measured(&value, &samples)),
            // Whoever cancels ends it all; whatever else goes wrong does so with this value.
            Err(error) if error.kind() == Kind::Cancelled => return (sweep, Err(error)),
            Err(error) => sweep.points.push(failed(&value, error.to_string())),
        }
    }
    (sweep, Ok(()))
}

async fn point(path: &Path<'_>, bench: &Bench, image: &Image, setting: Setting, value: &str) -> Result<Vec<Sample>> {
    let mut options = bench.options.clone();
    let mut image = image.clone();
    let number = || value.parse::<usize>().map_err(|error| Error::usage(format!("{value}: {error}")));
    match setting {
        Setting::Engine if !path.sink.is_real() => return Err(Error::usage("the null sink has no engine")),
        Setting::Depth if !path.sink.is_real() => return Err(Error::usage("the null sink has no queue")),
        Setting::Engine => options.engine = value.parse().map_err(Error::usage)?,
        Setting::Depth => options.depth = number()?,
        Setting::Connections => options.connections = number()?,
        Setting::Workers => options.workers = number()?,
        Setting::RequestSize => options.request_size = value.parse::<Size>().map_err(Error::usage)?.0,
        Setting::ChunkSize => {
            let size = value.parse::<Size>().map_err(Error::usage)?.0;
            let size = u32::try_from(size).unwrap_or(manifest::MAX_CHUNK_SIZE);
            image = bench.synthetic_in_chunks_of(size, path.cancel).await?;
        }
    }
    check_affordable(&options, image.descriptor().chunk_size)?;
    let mut samples = Vec::new();
    for _ in 0..RUNS {
        let (run, ended) = path.run(sweeping(setting), &image, &options).await;
        ended?;
        samples.extend(run.map(|run| run.sample));
    }
    Ok(samples)
}

/// A value that the memory does not allow would silently be measured as another one.
fn check_affordable(options: &WriteOptions, chunk_size: u32) -> Result<()> {
    let Shape { workers, depth, .. } = Shape::of(options, chunk_size);
    let connections = fetch::connections(options.connections, options.frame_memory, 1, chunk_size);
    let settings = [
        ("workers", workers, options.workers),
        ("depth", depth, options.depth),
        ("connections", connections, options.connections),
    ];
    let short = settings.into_iter().find(|(_, possible, wanted)| possible < wanted);
    short.map_or(Ok(()), |(name, possible, wanted)| {
        let size = Size(chunk_size.into());
        Err(Error::usage(format!(
            "the memory for chunks of {size} allows only {possible} instead of {wanted} ({name})"
        )))
    })
}

fn measured(value: &str, samples: &[Sample]) -> Option<Point> {
    let rate = Spread::of(samples.iter().map(Sample::rate))?;
    let cpu_per_gib = Spread::of(samples.iter().map(Sample::cpu_per_gib))?.median;
    Some(Point { value: value.into(), number: number_of(value), rate, cpu_per_gib, failed: None })
}

fn failed(value: &str, why: String) -> Point {
    let rate = Spread { median: 0.0, min: 0.0, max: 0.0, samples: 0 };
    Point { value: value.into(), number: number_of(value), rate, cpu_per_gib: 0.0, failed: Some(why) }
}

fn number_of(value: &str) -> Option<u64> {
    value.parse::<Size>().ok().map(|size| size.0)
}

fn sweeping(setting: Setting) -> &'static str {
    match setting {
        Setting::Engine => "sweeping engine",
        Setting::Depth => "sweeping depth",
        Setting::ChunkSize => "sweeping chunk size",
        Setting::RequestSize => "sweeping request size",
        Setting::Connections => "sweeping connections",
        Setting::Workers => "sweeping workers",
    }
}

impl Bench {
    async fn synthetic_in_chunks_of(
        &self,
        chunk_size: u32,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<Image> {
        let super::Origin::Synthetic(recipe) = &self.origin else {
            return Err(Error::usage("the chunk size of an image was decided when it was packed"));
        };
        synthetic::open(synthetic::Recipe { chunk_size, ..*recipe }, cancel).await
    }
}
