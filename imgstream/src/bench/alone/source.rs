//! The source alone: all lanes fetch, and what comes is dropped. And some chunks, to measure the other stages with.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use tokio::task::JoinSet;

use super::super::meter::{Meter, Sample};
use super::{Alone, Chunk, Chunks};
use crate::abort::Abort;
use crate::buffer::Pool;
use crate::decode::Decoder;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::{self, Frame, FrameBuffers, Lanes, Queue, SpanWork};
use crate::manifest::ChunkKind;
use crate::plan::{self, Plans};
use crate::source;

/// Raw bytes of chunks that the other stages are measured with; at least one chunk.
const COLLECTED: usize = 32 << 20;

impl Alone<'_> {
    /// Fetches the whole image, or as much of it as comes in `limit`.
    pub(super) async fn receive(&self, plans: &Arc<Plans>, limit: Duration) -> Result<Sample> {
        let (image, options) = (self.image, self.options);
        let chunk_size = image.descriptor().chunk_size;
        let progress = self.watch.begin("the source alone", image.descriptor().data_bytes(), limit, |now| now.fetched);
        let queue = Arc::new(Queue::new(image.sources(), &options.patience));
        let abort = Arc::new(Abort::new(self.cancel));
        let (frames, incoming) = unbounded::<Frame>();
        let buffers = Arc::new(FrameBuffers::default());
        let dropping = std::thread::spawn({
            let (queue, buffers) = (Arc::clone(&queue), Arc::clone(&buffers));
            move || {
                for frame in incoming {
                    let claim = frame.claim();
                    buffers.give(frame.bytes);
                    claim.into_iter().for_each(|claim| queue.delivered(claim));
                }
            }
        });
        let count = image.sources().len();
        let connections = fetch::connections(options.connections, options.frame_memory, count, chunk_size);
        let lanes = Lanes {
            sources: image.sources().to_vec(),
            queue: Arc::clone(&queue),
            frames,
            budget: fetch::budget(options.frame_memory, count * connections, chunk_size),
            buffers,
            progress: Arc::clone(&progress),
            abort: Arc::clone(&abort),
        };
        let meter = Meter::start();
        let mut tasks = JoinSet::new();
        lanes.start(connections, &mut tasks);
        let planning = plan(plans, &queue, options.request_size);
        let fetching = async {
            planning.await?;
            queue.finished().await;
            Ok(())
        };
        let outcome: Result<()> = tokio::select! {
            outcome = fetching => outcome,
            () = abort.token().cancelled() => Ok(()),
            () = tokio::time::sleep(limit) => Ok(()),
        };
        let sample = meter.stop(progress.fetched.load(Relaxed) as f64 * self.ratio);
        queue.close();
        tasks.shutdown().await;
        let _ = dropping.join();
        outcome?;
        abort.check("measuring the source")?;
        if sample.bytes == 0.0 {
            let message = format!("nothing came from {} in {:.1} s", image.sources()[0].name(), limit.as_secs_f64());
            return Err(Error::source_failed(message).with_hint("give it more time: --seconds"));
        }
        Ok(sample)
    }

    /// Some data chunks of the image, each verified: what is not may not reach a decoder here either.
    pub(super) async fn collect(&self, plans: &Plans) -> Result<Chunks> {
        let total = COLLECTED as u64;
        let progress = self.watch.begin("fetching a sample", total, self.limit, |now| now.decoded);
        let chunk_size = self.image.descriptor().chunk_size as usize;
        let pool = Pool::new(1, chunk_size).context(Kind::Device, || "getting a buffer".into())?;
        let (mut chunks, mut decoder, since) = (Vec::new(), Decoder::new(), Instant::now());
        for number in 0..plans.count() {
            let span = plans.load(number).await?;
            for chunk in 0..span.index.rows().len() {
                let row = span.index.rows()[chunk];
                // The image's last chunk may be short: it is no sample of the others.
                let (_, raw_len) = span.raw_range(chunk);
                if row.kind != ChunkKind::Data || (raw_len < chunk_size && !chunks.is_empty()) {
                    continue;
                }
                let enough = since.elapsed() > self.limit || (chunks.len() + 1) * chunk_size > COLLECTED;
                if enough && !chunks.is_empty() {
                    return Ok(Chunks { chunks });
                }
                let place = row.offset..row.offset + u64::from(row.length);
                let name = span.chunk_name(chunk);
                let mut stream = source::open_range(self.image.sources()[0].as_ref(), span.data, place).await?;
                let mut frame = Vec::with_capacity(row.length as usize);
                while let Some(bytes) = stream.next().await? {
                    frame.extend_from_slice(&bytes);
                }
                let buffer = pool.acquire().ok_or_else(|| Error::cancelled("measuring"))?;
                let decoded = decoder.decode(&row, 0, raw_len, &frame, buffer);
                decoded.map_err(|why| why.into_error(&name))?;
                progress.decoded.fetch_add(raw_len as u64, Relaxed);
                chunks.push(Chunk { row, raw_len, frame });
            }
        }
        if chunks.is_empty() {
            return Err(Error::usage("the image has no data, only zeros").with_hint("measure with an image that has"));
        }
        Ok(Chunks { chunks })
    }
}

/// Cuts all data of the image into requests.
async fn plan(plans: &Plans, queue: &Queue, request_size: u64) -> Result<()> {
    for number in 0..plans.count() {
        let span = plans.load(number).await?;
        let work = SpanWork::new(Arc::clone(&span));
        let runs = plan::runs(&span.index, &|_| true).into_iter().filter(|(kind, _)| *kind == ChunkKind::Data);
        for request in runs.flat_map(|(_, run)| work.requests(run, request_size)) {
            if !queue.plan(request).await {
                return Ok(());
            }
        }
    }
    queue.planned();
    Ok(())
}
