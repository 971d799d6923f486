//! The stream: fetch, verify, write, prove, commit. `imgstream` does it; here it is set up, watched and reported.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Result};
use imgstream::manifest::{Descriptor, index};
use imgstream::pipeline::{self, Report, WriteOptions};
use imgstream::progress::Progress;
use imgstream::size::Size;
use protocol::event::Body;
use protocol::spec::Options;
use tokio_util::sync::CancellationToken;

use super::image::Accepted;
use super::target::Taken;
use crate::report::{Reporter, Sampler, text};

/// How often the counters are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Frames being received may take this much memory: what the budget of 256 MiB leaves them.
const FRAME_MEMORY: u64 = 96 << 20;

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
/// Those of [`pipeline::write`]. It returns only when nothing of it runs any more, also after `cancel`.
pub async fn write(
    image: Accepted,
    target: Taken,
    options: &Options,
    progress: &Arc<Progress>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Written> {
    let image = image.into_image();
    let descriptor = Arc::clone(image.descriptor());
    let write_options = write_options(options, &descriptor, image.sources().len(), reporter)?;
    let mut sampler = Sampler::new(descriptor.raw_size, descriptor.chunk_size, options.read_back);
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
    let report = outcome?;
    if let Some(fallback) = &report.fallback {
        reporter.emit(Body::Warning { message: fallback.clone() });
    }
    Ok(Written(report))
}

fn write_options(wanted: &Options, image: &Descriptor, sources: usize, reporter: &Reporter) -> Result<WriteOptions> {
    let mut options = WriteOptions {
        engine: wanted.engine.name().parse().map_err(|why| Error::usage(format!("`options.engine`: {why}")))?,
        read_back: wanted.read_back,
        ..WriteOptions::default()
    };
    options.request_size = wanted.request_size.unwrap_or(options.request_size);
    options.connections = wanted.connections.map_or(options.connections, |count| count as usize);
    let affordable = affordable_connections(sources, image.chunk_size);
    if options.connections > affordable {
        reporter.emit(Body::Warning {
            message: format!(
                "{} connections to each of {sources} sources would need too much memory for chunks of {}: using {affordable}",
                options.connections,
                Size(image.chunk_size.into())
            ),
        });
        options.connections = affordable;
    }
    Ok(options)
}

/// Each connection may hold one frame of the largest size; one per source there must be.
fn affordable_connections(sources: usize, chunk_size: u32) -> usize {
    let frame = index::max_frame_len(chunk_size as usize) * sources.max(1) as u64;
    usize::try_from(FRAME_MEMORY / frame.max(1)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_keep_to_the_memory_budget() {
        assert!(affordable_connections(1, 2 << 20) >= 16);
        assert!(affordable_connections(1, 8 << 20) >= 4);
        assert_eq!(affordable_connections(16, 8 << 20), 1);
    }
}
