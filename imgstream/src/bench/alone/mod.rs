//! Each stage with nothing else going on: what it could do if it never waited for another one.

mod cpu;
mod media;
mod source;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Watch;
use super::findings::{Part, StageAlone, Turns};
use super::meter::{self, Sample};
use super::sink::Sink;
use super::turns;
use crate::abort::unless_cancelled;
use crate::error::{Error, Result};
use crate::manifest::ChunkRow;
use crate::open::Image;
use crate::pipeline::WriteOptions;
use crate::plan::Plans;

/// What the stages are measured with.
pub(super) struct Alone<'a> {
    pub(super) image: &'a Image,
    pub(super) sink: &'a Sink,
    pub(super) options: &'a WriteOptions,
    /// Raw bytes per byte that travels.
    pub(super) ratio: f64,
    /// Runs that count; one more before them warms up.
    pub(super) runs: usize,
    /// The longest a run may take.
    pub(super) limit: Duration,
    pub(super) watch: &'a Watch,
    pub(super) cancel: &'a CancellationToken,
}

/// Some chunks of the image, verified, in memory.
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
}

struct Chunk {
    row: ChunkRow,
    raw_len: usize,
    frame: Vec<u8>,
}

impl Alone<'_> {
    /// Measures every stage, in the data's order, and hands each to `found`; and what so many extents cost the device.
    pub(super) async fn measure(
        &self,
        extents: Option<usize>,
        mut found: impl FnMut(StageAlone),
    ) -> Result<Option<Turns>> {
        let plans = Arc::new(Plans::new(self.image.clone()));
        let samples = self.repeated(async |limit| self.receive(&plans, limit).await).await?;
        meter::stage(Part::Source, 1, &samples).map(&mut found);
        let chunks = unless_cancelled(self.cancel, "fetching a sample", self.collect(&plans)).await?;
        let chunks = Arc::new(chunks);
        let workers = self.options.workers;
        let mut cpu = vec![(Part::Hash, workers), (Part::Decode, 1), (Part::Decode, workers)];
        cpu.dedup();
        if self.options.read_back {
            cpu.push((Part::RawHash, std::thread::available_parallelism().map_or(1, usize::from)));
        }
        for (part, threads) in cpu {
            let samples = self.repeated(async |limit| self.compute(part, threads, &chunks, limit).await).await?;
            meter::stage(part, threads, &samples).map(&mut found);
        }
        if self.sink.is_real() {
            let samples = self.repeated(async |limit| self.write(1, &chunks, limit).await).await?;
            meter::stage(Part::Write, 1, &samples).map(&mut found);
        }
        if self.options.read_back {
            let samples = self.repeated(async |limit| self.read(limit).await).await?;
            meter::stage(Part::Read, 1, &samples).map(&mut found);
        }
        match extents {
            Some(extents) => {
                let (pairs, limit) = (self.runs * turns::PAIRS, self.limit / turns::PAIRS as u32);
                turns::take(pairs, extents, async |extents| self.write(extents, &chunks, limit).await).await
            }
            None => Ok(None),
        }
    }

    /// One run to warm up, a quarter as long, and those that count.
    async fn repeated(&self, mut once: impl AsyncFnMut(Duration) -> Result<Sample>) -> Result<Vec<Sample>> {
        once(self.limit / 4).await?;
        let mut samples = Vec::new();
        for _ in 0..self.runs {
            samples.push(once(self.limit).await?);
        }
        Ok(samples)
    }

    fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled("measuring")) } else { Ok(()) }
    }
}

/// Work on another thread, so that signals and the display go on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::device(format!("a measuring thread died: {error}"))))
}
