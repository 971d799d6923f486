//! The device alone: chunks of the image written over and over to all places, and read again, with no source behind them.
//!
//! The bytes are the image's own, as a device that packs or shares blocks would treat them differently from zeros. The
//! first chunk's place stays zero, so that what is left behind if this ends here does not boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::meter::{Meter, Sample};
use super::{Alone, Chunks, blocking};
use crate::buffer::Pool;
use crate::decode::Decoder;
use crate::error::{Error, IoContext, Kind, Result};
use crate::pipeline::Shape;
use crate::progress::Progress;
use crate::readback;
use crate::sink::{Target, Writer, ZeroPolicy};
use crate::watchdog::Watchdog;

impl Alone<'_> {
    /// Writes all places of a target of so many extents once, or as many as can be in `limit`, and flushes.
    pub(super) async fn write(&self, extents: usize, chunks: &Arc<Chunks>, limit: Duration) -> Result<Sample> {
        let descriptor = self.image.descriptor();
        let (raw_size, chunk_size) = (descriptor.raw_size, descriptor.chunk_size);
        let progress = self.watch.begin("the device alone", raw_size, limit, |now| now.written);
        let target = self.sink.target_of(extents, raw_size, self.options.engine, self.cancel).await?;
        let target = Arc::new(target);
        // As much memory as the whole has: whether it lies in large pages decides how a write is cut for the device.
        let Shape { depth, buffers, .. } = Shape::of(self.options, chunk_size);
        let pool = Pool::new(buffers, chunk_size as usize).context(Kind::Device, || "getting buffers".into())?;
        let start = self.sink.start();
        let engine = self.options.engine;
        let (counting, over) = (Arc::clone(&progress), self.cancel.clone().into());
        let writer = Writer::start_with(&start, engine, Arc::clone(&target), &pool, depth, counting, over)?;
        let writer = Arc::new(writer);
        let (chunks, cancel, writing) = (Arc::clone(chunks), self.cancel.clone(), Arc::clone(&writer));
        let counted = Arc::clone(&progress);
        let work = move || write_all(&writing, &chunks, &pool, limit, &cancel, &counted);
        self.unless_stalled(&progress, &target, work).await.inspect_err(|_| writer.give_up())
    }

    /// Reads all places once, or as many as can be in `limit`.
    pub(super) async fn read(&self, limit: Duration) -> Result<Sample> {
        let descriptor = self.image.descriptor();
        let progress = self.watch.begin("reading alone", descriptor.raw_size, limit, |now| now.read_back);
        let target = Arc::new(self.sink.target(descriptor.raw_size, self.options.engine, self.cancel).await?);
        let threads = readback::threads();
        let chunk_size = descriptor.chunk_size as usize;
        let pool = Pool::new(threads, chunk_size).context(Kind::Device, || "getting buffers".into())?;
        let (cancel, reading, counted) = (self.cancel.clone(), Arc::clone(&target), Arc::clone(&progress));
        let work = move || read_all(&reading, &pool, threads, limit, &cancel, &counted);
        self.unless_stalled(&progress, &target, work).await
    }

    /// A device that answers nothing for as long as a run would bear with it ends the benchmark.
    async fn unless_stalled(
        &self,
        progress: &Arc<Progress>,
        target: &Arc<Target>,
        work: impl FnOnce() -> Result<Sample> + Send + 'static,
    ) -> Result<Sample> {
        let dog = Watchdog::new(Arc::clone(progress), Vec::new(), Some(Arc::clone(target)), self.options.stall_warning);
        tokio::select! {
            outcome = blocking(work) => outcome,
            stall = dog.stalled_for(self.options.stall_limit) => Err(stall.error()),
        }
    }
}

fn write_all(
    writer: &Writer,
    chunks: &Chunks,
    pool: &Arc<Pool>,
    limit: Duration,
    cancel: &CancellationToken,
    progress: &Progress,
) -> Result<Sample> {
    let mut decoder = Decoder::new();
    let decoded = chunks.chunks.iter().take(pool.count() - 1).map(|chunk| {
        let buffer = pool.acquire().ok_or_else(|| Error::cancelled("measuring"))?;
        let decoded = decoder.decode(&chunk.row, 0, chunk.raw_len, &chunk.frame, buffer);
        decoded.map(Arc::new).map_err(|why| why.into_error("a chunk"))
    });
    let decoded = decoded.collect::<Result<Vec<_>>>()?;
    let (raw_len, step) = (writer.target().raw_len(), pool.buffer_len() as u64);
    writer.target().home().force_zeros(0, step.min(raw_len), ZeroPolicy::Device)?;
    let meter = Meter::start();
    for (number, chunk) in (1..raw_len / step).zip(decoded.iter().cycle()) {
        if meter.elapsed() >= limit || cancel.is_cancelled() {
            break;
        }
        writer.write_at(chunk, number * step)?;
    }
    writer.flush()?;
    let sample = meter.stop(progress.written.load(Relaxed) as f64);
    if cancel.is_cancelled() { Err(Error::cancelled("measuring the device")) } else { Ok(sample) }
}

fn read_all(
    target: &Target,
    pool: &Arc<Pool>,
    threads: usize,
    limit: Duration,
    cancel: &CancellationToken,
    progress: &Progress,
) -> Result<Sample> {
    let (device, step) = (target.home(), pool.buffer_len() as u64);
    let places = target.raw_len() / step;
    let next = AtomicU64::new(1);
    let meter = Meter::start();
    let until = Instant::now() + limit;
    let read = || -> Result<()> {
        let mut buffer = pool.acquire().ok_or_else(|| Error::cancelled("measuring"))?;
        loop {
            let place = next.fetch_add(1, Relaxed);
            if place >= places || Instant::now() >= until || cancel.is_cancelled() {
                return Ok(());
            }
            device.read(place * step, &mut buffer, step as usize)?;
            progress.read_back.fetch_add(step, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        let died = |_| Err(Error::device("a reading thread died"));
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(died))
    })?;
    let sample = meter.stop(progress.read_back.load(Relaxed) as f64);
    if cancel.is_cancelled() { Err(Error::cancelled("measuring the device")) } else { Ok(sample) }
}
