//! The chunks of an image, span by span: indexes fetched, verified against the descriptor, and kept within a bound.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::manifest::index::{self, SpanIndex};
use crate::manifest::{BlobRef, ChunkKind};
use crate::open::Image;

/// Indexes kept in memory, in bytes of their encoding. More of them are fetched again when needed again.
const KEPT: u64 = 24 << 20;

/// One span with its verified index.
#[derive(Debug)]
pub struct SpanPlan {
    /// Its number in the descriptor.
    pub number: usize,
    /// First raw byte.
    pub raw_offset: u64,
    /// The blob with its frames.
    pub data: BlobRef,
    /// Its chunks.
    pub index: Arc<SpanIndex>,
}

impl SpanPlan {
    /// Absolute raw offset, and raw length, of a chunk.
    pub fn raw_range(&self, chunk: usize) -> (u64, usize) {
        let (within, len) = self.index.raw_range(chunk);
        (self.raw_offset + within, len)
    }

    /// What a chunk is called in messages.
    pub fn chunk_name(&self, chunk: usize) -> String {
        format!("chunk {chunk} of span {} (raw offset {})", self.number, self.raw_range(chunk).0)
    }
}

/// Loads the plans of an image's spans.
#[derive(Debug)]
pub struct Plans {
    image: Image,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    indexes: Vec<(BlobRef, Arc<SpanIndex>)>,
    bytes: u64,
}

impl Plans {
    /// Of an opened image.
    pub fn new(image: Image) -> Self {
        Plans { image, kept: Mutex::default() }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Number of spans.
    pub fn count(&self) -> usize {
        self.image.descriptor().spans.len()
    }

    /// The plan of span `number`, which must be below [`Plans::count`].
    ///
    /// # Errors
    /// Those of the sources; [`crate::error::Kind::Image`] when the index is not one, or not this span's.
    pub async fn load(&self, number: usize) -> Result<Arc<SpanPlan>> {
        let descriptor = self.image.descriptor();
        let span = &descriptor.spans[number];
        let index = match self.find(span.index) {
            Some(index) => index,
            None => {
                let limit = index::encoded_len(span.raw_length, descriptor.chunk_size);
                let bytes = self.image.blob(span.index, limit, &format!("the index of span {number}")).await?;
                let index = SpanIndex::decode(&bytes)
                    .map_err(|error| Error::image(format!("the index of span {number} is refused: {error}")))?;
                self.keep(span.index, Arc::new(index))
            }
        };
        let agrees = index.chunk_size() == descriptor.chunk_size
            && index.raw_length() == span.raw_length
            && index.data_size() == span.data.size;
        if !agrees {
            return Err(Error::image(format!("the index of span {number} contradicts the descriptor")));
        }
        Ok(Arc::new(SpanPlan { number, raw_offset: span.raw_offset, data: span.data, index }))
    }

    fn find(&self, blob: BlobRef) -> Option<Arc<SpanIndex>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.indexes.iter().find(|(known, _)| *known == blob).map(|(_, index)| Arc::clone(index))
    }

    fn keep(&self, blob: BlobRef, index: Arc<SpanIndex>) -> Arc<SpanIndex> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += blob.size;
        kept.indexes.push((blob, Arc::clone(&index)));
        while kept.bytes > KEPT && kept.indexes.len() > 1 {
            let (oldest, _) = kept.indexes.remove(0);
            kept.bytes -= oldest.size;
        }
        index
    }
}

/// Runs of adjacent chunks of one kind that are `wanted`, as (kind, chunks), in order.
pub fn runs(index: &SpanIndex, wanted: &dyn Fn(usize) -> bool) -> Vec<(ChunkKind, std::ops::Range<usize>)> {
    let mut runs: Vec<(ChunkKind, std::ops::Range<usize>)> = Vec::new();
    for (number, row) in index.rows().iter().enumerate().filter(|(number, _)| wanted(*number)) {
        match runs.last_mut() {
            Some((kind, run)) if *kind == row.kind && run.end == number => run.end = number + 1,
            _ => runs.push((row.kind, number..number + 1)),
        }
    }
    runs
}
