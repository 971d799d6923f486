//! SHA-256 and zstd alone, on any number of threads, over chunks that lie in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use zstd_safe::{DCtx, get_error_name};

use super::super::findings::Part;
use super::super::meter::{Meter, Sample};
use super::{Alone, Chunk, Chunks, blocking};
use crate::digest::Digest;
use crate::error::{Error, Result};
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
        blocking(move || {
            let meter = Meter::start();
            let until = Instant::now() + limit;
            std::thread::scope(|scope| {
                let work = |number| {
                    let (chunks, counted) = (&chunks.chunks, &counted);
                    scope.spawn(move || work(part, chunks, number, until, counted))
                };
                let running: Vec<_> = (0..threads).map(work).collect();
                let died = |_| Err(Error::device("a measuring thread died"));
                running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(died))
            })?;
            Ok(meter.stop(counted.decoded.load(Relaxed) as f64))
        })
        .await
    }
}

fn work(part: Part, chunks: &[Chunk], number: usize, until: Instant, counted: &Progress) -> Result<()> {
    let mut decoder = DCtx::create();
    let mut raw = vec![0; chunks.iter().map(|chunk| chunk.raw_len).max().unwrap_or(0)];
    // Each thread begins elsewhere, so that they do not help each other with their caches.
    for at in (number * chunks.len().div_ceil(3)..).map(|at| at % chunks.len()) {
        let chunk = &chunks[at];
        match part {
            Part::Decode => {
                let decoded = decoder.decompress(&mut raw[..chunk.raw_len], &chunk.frame);
                decoded.map_err(|code| Error::image(format!("zstd says {}", get_error_name(code))))?;
            }
            Part::RawHash => drop(std::hint::black_box(Digest::of(&raw[..chunk.raw_len]))),
            _ => drop(std::hint::black_box(Digest::of(&chunk.frame))),
        }
        counted.decoded.fetch_add(chunk.raw_len as u64, Relaxed);
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}
