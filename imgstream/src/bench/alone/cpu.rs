//! SHA-256 and zstd alone, on any number of threads, over chunks that lie in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use zstd_safe::{DCtx, get_error_name};

use super::super::findings::Part;
use super::super::meter::{Meter, Sample};
use super::{Alone, Chunk, Chunks, blocking};
use crate::buffer::{Buffer, Pool};
use crate::digest::Digest;
use crate::error::{Error, IoContext, Kind, Result};
use crate::pipeline::Shape;
use crate::progress::Progress;

/// A run of pure computing need not be longer than this.
const LONG_ENOUGH: Duration = Duration::from_millis(600);

impl Alone<'_> {
    /// Does one part on `threads` threads until the time is over.
    pub(super) async fn compute(
        &self,
        part: Part,
        threads: usize,
        chunks: &Arc<Chunks>,
        limit: Duration,
    ) -> Result<Sample> {
        let name = match part {
            Part::Decode if threads == 1 => "decoding alone, 1 thread",
            Part::Decode => "decoding alone",
            Part::RawHash => "SHA-256 of raw bytes",
            _ => "SHA-256 alone",
        };
        self.check()?;
        let limit = limit.min(LONG_ENOUGH);
        let counted = self.watch.begin(name, u64::MAX, limit, |now| now.decoded);
        let chunks = Arc::clone(chunks);
        let chunk_size = self.image.descriptor().chunk_size;
        let Shape { buffers, .. } = Shape::of(self.options, chunk_size);
        blocking(move || {
            let mut memory = memory(threads, buffers / threads, chunk_size as usize)?;
            let meter = Meter::start();
            let until = Instant::now() + limit;
            std::thread::scope(|scope| {
                let running: Vec<_> = memory
                    .iter_mut()
                    .enumerate()
                    .map(|(number, memory)| {
                        let (chunks, counted) = (&chunks.chunks, &counted);
                        scope.spawn(move || work(part, chunks, number, memory, until, counted))
                    })
                    .collect();
                let died = |_| Err(Error::device("a measuring thread died"));
                running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(died))
            })?;
            Ok(meter.stop(counted.decoded.load(Relaxed) as f64))
        })
        .await
    }
}

/// What each thread decodes into, in turn: all the memory that the whole has, as what is decoded there is not in a cache when
/// its buffer is used again. Every page has been touched.
fn memory(threads: usize, each: usize, chunk_size: usize) -> Result<Vec<Vec<Buffer>>> {
    let pool = Pool::new(threads * each.max(1), chunk_size).context(Kind::Device, || "getting buffers".into())?;
    let touched = |mut buffer: Buffer| {
        buffer.fill(1);
        buffer
    };
    let of_one = || (0..each.max(1)).filter_map(|_| pool.acquire().map(touched)).collect();
    Ok((0..threads).map(|_| of_one()).collect())
}

fn work(
    part: Part,
    chunks: &[Chunk],
    number: usize,
    memory: &mut [Buffer],
    until: Instant,
    counted: &Progress,
) -> Result<()> {
    let mut decoder = DCtx::create();
    let buffers = memory.len();
    // Each thread begins elsewhere, so that they do not help each other with their caches.
    for (turn, at) in (number * chunks.len().div_ceil(3)..).map(|at| at % chunks.len()).enumerate() {
        let chunk = &chunks[at];
        let raw = &mut memory[turn % buffers][..chunk.raw_len];
        match part {
            Part::Decode => {
                let decoded = decoder.decompress(raw, &chunk.frame);
                decoded.map_err(|code| Error::image(format!("zstd says {}", get_error_name(code))))?;
            }
            Part::RawHash => drop(std::hint::black_box(Digest::of(raw))),
            _ => drop(std::hint::black_box(Digest::of(&chunk.frame))),
        }
        counted.decoded.fetch_add(chunk.raw_len as u64, Relaxed);
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}
