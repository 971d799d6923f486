//! The stream: fetch, verify, write, prove, commit. `imgstream` does it; here it is set up, watched and reported.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Result};
use imgstream::pipeline::{self, Report, WriteOptions};
use imgstream::progress::Progress;
use imgstream::size::Size;
use protocol::spec::{RunSpec, Tail};
use tokio_util::sync::CancellationToken;

use super::image::Accepted;
use super::target::Taken;
use crate::report::{Reporter, Sampler, text};

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
    cancel: &CancellationToken,
) -> Result<Written> {
    let image = image.into_image();
    let descriptor = Arc::clone(image.descriptor());
    let write_options = write_options(spec)?;
    let mut sampler = Sampler::new(descriptor.raw_size, descriptor.chunk_size);
    let writing = pipeline::write(image, target.into_target(), &write_options, Arc::clone(progress), cancel);
    let mut writing = std::pin::pin!(writing);
    let mut ticks = tokio::time::interval(TICK);
    let outcome = loop {
        tokio::select! {
            outcome = &mut writing => break outcome,
            _ = ticks.tick() => sampler.look(progress.snapshot()).into_iter().for_each(|body| reporter.emit(body)),
        }
    };
    sampler.look(progress.snapshot()).into_iter().for_each(|body| reporter.emit(body));
    outcome.map(Written)
}

fn write_options(spec: &RunSpec) -> Result<WriteOptions> {
    let wanted = &spec.options;
    let mut options = WriteOptions {
        engine: wanted.engine.name().parse().map_err(|why| Error::usage(format!("`options.engine`: {why}")))?,
        read_back: wanted.read_back,
        resume: wanted.resume,
        tail: spec
            .target
            .tail
            .unwrap_or(Tail::Zero)
            .name()
            .parse()
            .map_err(|why| Error::usage(format!("`target.tail`: {why}")))?,
        ..WriteOptions::default()
    };
    options.request_size = wanted.request_size.unwrap_or(options.request_size);
    options.stall_limit = wanted.stall_limit.map_or(options.stall_limit, Duration::from_secs);
    options.connections = wanted.connections.map_or(options.connections, |count| count as usize);
    Ok(options)
}
