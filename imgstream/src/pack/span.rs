//! One span: chunks read and compressed by workers, assembled in order into a data blob and its index.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio_util::sync::CancellationToken;

use super::encode::{Encoded, Encoder, Zeros};
use super::input::Input;
use super::store::Store;
use super::{PackOptions, PackProgress};
use crate::error::{Error, Result};
use crate::manifest::index::{ChunkRow, SpanIndex, seek_table_len};
use crate::manifest::{ChunkKind, Span};
use crate::zeros::is_zero;

/// Packs span after span.
pub(super) struct SpanPacker<'a> {
    input: &'a Input,
    store: &'a Store,
    options: &'a PackOptions,
    progress: &'a PackProgress,
    cancel: &'a CancellationToken,
    zeros: Zeros,
    /// The span that is one hole, once it was packed: a sparse terabyte is that span again and again.
    empty: Option<Span>,
}

/// A chunk to encode, and where its result is awaited.
struct Job {
    raw: Range<u64>,
    result: Sender<Result<Encoded>>,
}

impl<'a> SpanPacker<'a> {
    pub(super) fn new(
        input: &'a Input,
        store: &'a Store,
        options: &'a PackOptions,
        progress: &'a PackProgress,
        cancel: &'a CancellationToken,
    ) -> Self {
        SpanPacker { input, store, options, progress, cancel, zeros: Zeros::new(options.level), empty: None }
    }

    /// Packs the span at `raw_offset`.
    pub(super) fn pack(&mut self, raw_offset: u64, raw_length: u64) -> Result<Span> {
        let is_empty = self.input.is_hole(raw_offset, raw_length);
        if let Some(known) = self.empty.as_ref().filter(|known| is_empty && known.raw_length == raw_length) {
            self.progress.packed.fetch_add(raw_length, Relaxed);
            return Ok(Span { raw_offset, ..known.clone() });
        }
        let span = self.pack_chunks(raw_offset, raw_length)?;
        if is_empty {
            self.empty = Some(span.clone());
        }
        Ok(span)
    }

    fn pack_chunks(&self, raw_offset: u64, raw_length: u64) -> Result<Span> {
        let affordable = super::MEMORY / (5 * u64::from(self.options.chunk_size));
        let workers = self.options.workers.min(affordable as usize).max(1);
        // Results are awaited in order; this many chunks may be ahead of the slowest one.
        let (ordered, in_order) = bounded(workers * 2);
        let (jobs, queue) = bounded::<Job>(workers);
        let (index, data) = std::thread::scope(|scope| {
            for _ in 0..workers {
                let queue = queue.clone();
                scope.spawn(|| self.work(queue));
            }
            drop(queue);
            scope.spawn(move || {
                feed(raw_offset..raw_offset + raw_length, u64::from(self.options.chunk_size), &jobs, &ordered)
            });
            self.assemble(raw_length, in_order)
        })?;
        Ok(Span { raw_offset, raw_length, index, data })
    }

    fn work(&self, queue: Receiver<Job>) {
        let mut encoder = Encoder::new(self.options.level);
        let mut raw = vec![0; self.options.chunk_size as usize];
        for job in queue {
            let encoded = match &mut encoder {
                Ok(encoder) => self.encode(encoder, &mut raw, job.raw),
                Err(_) => Err(Error::device("zstd cannot be set up with this level")),
            };
            // Nobody waits any more once another chunk has failed.
            let _ = job.result.send(encoded);
        }
    }

    fn encode(&self, encoder: &mut Encoder, buffer: &mut [u8], range: Range<u64>) -> Result<Encoded> {
        let len = range.end - range.start;
        if self.input.is_hole(range.start, len) {
            let kind = if self.options.holes { ChunkKind::Hole } else { ChunkKind::Zero };
            return self.zeros.chunk(kind, len as usize);
        }
        let raw = &mut buffer[..len as usize];
        self.input.read(range.start, raw).map_err(|error| self.input.read_error(range.start, error))?;
        if is_zero(raw) {
            return self.zeros.chunk(ChunkKind::Zero, raw.len());
        }
        encoder.data(raw)
    }

    fn assemble(
        &self,
        raw_length: u64,
        in_order: Receiver<Receiver<Result<Encoded>>>,
    ) -> Result<(crate::manifest::BlobRef, crate::manifest::BlobRef)> {
        let mut blob = self.store.new_blob()?;
        let mut rows = Vec::new();
        let mut offset = 0;
        for result in in_order {
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("packing"));
            }
            let chunk = result.recv().map_err(|_| Error::device("a compressing thread died"))??;
            let length = chunk.frame.len() as u32;
            blob.write(&chunk.frame)?;
            rows.push(ChunkRow {
                kind: chunk.kind,
                offset,
                length,
                digest: chunk.digest,
                raw_digest: chunk.raw_digest,
            });
            offset += u64::from(length);
            self.progress.packed.fetch_add(chunk.raw_len as u64, Relaxed);
            self.progress.compressed.fetch_add(u64::from(length), Relaxed);
        }
        let data_size = offset + seek_table_len(rows.len());
        let index = SpanIndex::new(self.options.chunk_size, raw_length, data_size, rows)
            .map_err(|error| Error::image(format!("this span would be refused: {error}")))?;
        blob.write(&index.seek_table())?;
        let data = blob.finish()?;
        Ok((self.store.put(&index.encode())?, data))
    }
}

/// Hands out the chunks of a range in order, until they are all out or nobody listens.
fn feed(range: Range<u64>, chunk_size: u64, jobs: &Sender<Job>, ordered: &Sender<Receiver<Result<Encoded>>>) {
    let mut start = range.start;
    while start < range.end {
        let end = (start + chunk_size).min(range.end);
        let (result, awaited) = bounded(1);
        if ordered.send(awaited).is_err() || jobs.send(Job { raw: start..end, result }).is_err() {
            return;
        }
        start = end;
    }
}
