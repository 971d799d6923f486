//! The stream: fetch, verify, write, prove, commit. `imgstream` does it; here it is set up, watched and reported.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Result};
use imgstream::pipeline::{self, Report, TailPolicy, WriteOptions};
use imgstream::progress::Progress;
use imgstream::size::Size;
use protocol::spec::{Layout, RunSpec};
use tokio_util::sync::CancellationToken;

use super::image::Accepted;
use super::target::Taken;
use crate::report::{Reporter, Sampler, text};
use crate::target::fcp::Fabric;
use crate::target::multipath::{self, Map};
use crate::target::{Guard, watch};

/// How often the counters are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What was written, and how.
#[derive(Debug)]
pub struct Written(pub Report);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = if self.0.read_back_bytes.is_some() { "proven" } else { "NOT PROVEN" };
        write!(f, "{} in {}, {proof}", Size(self.0.raw_bytes), text::duration(self.0.total_seconds))
    }
}

/// Writes the image to the target, telling how far it is.
///
/// # Errors
/// Those of [`pipeline::write`]. It returns only when nothing of it runs any more, also after `cancel`, unless the device
/// was given up.
pub async fn write(
    image: Accepted,
    target: Taken,
    spec: &RunSpec,
    progress: &Arc<Progress>,
    reporter: &Reporter,
    guard: &Arc<Guard>,
    cancel: &CancellationToken,
) -> Result<Written> {
    let image = image.into_image();
    let descriptor = Arc::clone(image.descriptor());
    let Taken(taken) = target;
    let write_options = WriteOptions { permit: Some(guard.clone()), foreign: taken.foreign, ..write_options(spec)? };
    let mut sampler = Sampler::new(descriptor.raw_size, descriptor.chunk_size);
    let writing = pipeline::write(image, taken.target, &write_options, Arc::clone(progress), cancel);
    let mut guarding = std::pin::pin!(guard.keep(cancel));
    let mut watching = std::pin::pin!(watch_paths(taken.lun.as_ref(), reporter));
    let mut writing = std::pin::pin!(writing);
    let mut ticks = tokio::time::interval(TICK);
    let outcome = loop {
        tokio::select! {
            outcome = &mut writing => break outcome,
            () = &mut guarding, if !cancel.is_cancelled() => {}
            () = &mut watching => {}
            _ = ticks.tick() => sampler.look(progress.snapshot()).into_iter().for_each(|body| reporter.emit(body)),
        }
    };
    sampler.look(progress.snapshot()).into_iter().for_each(|body| reporter.emit(body));
    outcome.map(Written)
}

/// Tells what happens to the paths of the target, where it has any.
async fn watch_paths(lun: Option<&(Map, Vec<multipath::Path>)>, reporter: &Reporter) {
    let Some((map, paths)) = lun else { return std::future::pending().await };
    let fabric = Fabric::default();
    watch(map, paths, &|name| fabric.way_of(name), &|event| reporter.emit(event)).await;
}

fn write_options(spec: &RunSpec) -> Result<WriteOptions> {
    let wanted = &spec.options;
    let mut options = WriteOptions {
        engine: wanted.engine.name().parse().map_err(|why| Error::usage(format!("`options.engine`: {why}")))?,
        read_back: wanted.read_back,
        resume: wanted.resume,
        tail: tail(spec)?,
        ..WriteOptions::default()
    };
    options.request_size = wanted.request_size.unwrap_or(options.request_size);
    options.stall_limit = wanted.stall_limit.map_or(options.stall_limit, Duration::from_secs);
    options.connections = wanted.connections.map_or(options.connections, |count| count as usize);
    Ok(options)
}

/// What becomes of the rest of the target. Inside a container that holds everything, it is noise under this run's key, and there
/// is nobody to hide it from; elsewhere a previous tenant's data may lie there.
fn tail(spec: &RunSpec) -> Result<TailPolicy> {
    match (spec.target.tail, spec.target.layout) {
        (Some(tail), _) => tail.name().parse().map_err(|why| Error::usage(format!("`target.tail`: {why}"))),
        (None, Layout::Whole) => Ok(TailPolicy::UnderFreshKey),
        (None, Layout::Plain | Layout::Split) => Ok(TailPolicy::Zero),
    }
}
