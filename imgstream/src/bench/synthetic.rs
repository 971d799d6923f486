//! A synthetic image: any size, any chunk size, a chosen ratio, held in memory and made anew at every start.
//!
//! Only some chunks are different from each other; their frames stand in memory, and the data blobs are sequences of them
//! again and again, put together when they are asked for. So a terabyte costs no more than what is different. Everything
//! else is genuine: descriptor, indexes and digests are those of the blobs, an ephemeral key signs them, and the image is
//! opened, verified and decoded like any other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use envelope::{Role, SecretKey, Trust};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::content::{Compressor, Content};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::index::{ChunkRow, SpanIndex, seek_table_len};
use crate::manifest::layout::{self, Choice};
use crate::manifest::{BlobRef, ChunkKind, Descriptor, Policy, Span, descriptor, partitions};
use crate::open::Image;
use crate::source::{Boxed, Source, Stream};

/// Raw bytes of chunks that are different from each other; at least one chunk is.
const DIFFERENT: u64 = 64 << 20;
/// Raw bytes per span, unless there would be too many spans.
const SPAN: u64 = 256 << 20;
/// Spans that a synthetic image has at most.
const MOST_SPANS: u64 = 4096;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Raw bytes; rounded down to whole sectors.
    pub size: u64,
    /// Raw bytes per byte packed.
    pub ratio: f64,
    /// Raw bytes per chunk.
    pub chunk_size: u32,
    /// Logical sector size of the device it is for.
    pub sector_size: u32,
    /// zstd level.
    pub level: i32,
}

/// Makes the image and opens it, trusting the key that was made for it.
///
/// # Errors
/// [`crate::error::Kind::Usage`] when there is no such image; `Cancelled`.
pub async fn open(recipe: Recipe, cancel: &CancellationToken) -> Result<Image> {
    let token = cancel.clone();
    let made = tokio::task::spawn_blocking(move || Synthetic::make(recipe, &token)).await;
    let (source, trust) = made.map_err(|error| Error::device(format!("the thread that packs died: {error}")))??;
    Image::open(vec![Arc::new(source)], &trust, &Policy::default()).await
}

/// The source that holds it.
struct Synthetic {
    name: String,
    manifest: Vec<u8>,
    /// Envelope and indexes.
    small: Vec<(Digest, Bytes)>,
    /// Data blobs: that of all spans but the last, and the last one's.
    large: Vec<(Digest, Arc<Blob>)>,
}

/// A data blob: frames, by number, and the seek table.
struct Blob {
    frames: Arc<Vec<Frame>>,
    index: SpanIndex,
    /// Frame of each chunk.
    order: Vec<usize>,
    seek_table: Bytes,
}

/// A packed chunk.
#[derive(Clone)]
struct Frame {
    bytes: Bytes,
    digest: Digest,
    raw_digest: Digest,
}

impl std::fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Synthetic {
    fn make(recipe: Recipe, cancel: &CancellationToken) -> Result<(Self, Trust)> {
        let Recipe { size, ratio, chunk_size, sector_size, level } = recipe;
        let size = size / u64::from(sector_size) * u64::from(sector_size);
        if size == 0 || size > crate::manifest::MAX_RAW_SIZE {
            return Err(Error::usage(format!("a synthetic image of {size} bytes; one sector to 8 EiB is possible")));
        }
        if !chunk_size.is_power_of_two()
            || !(crate::manifest::MIN_CHUNK_SIZE..=crate::manifest::MAX_CHUNK_SIZE).contains(&chunk_size)
        {
            return Err(Error::usage(format!(
                "a chunk size of {chunk_size} bytes; a power of two from 64KiB to 8MiB is possible"
            )));
        }
        let chunk = u64::from(chunk_size);
        let content = Content::with_ratio(ratio, chunk_size as usize, level)?;
        let different = (DIFFERENT.min(size) / chunk).max(1) as usize;
        let frames = Arc::new(pack(content, different, chunk_size as usize, level, cancel)?);
        let span = SPAN.max((size / MOST_SPANS).next_multiple_of(chunk));
        let mut image = Parts { frames, content, chunk_size, level, small: Vec::new(), large: Vec::new() };
        let spans = image.spans(size, span)?;
        image.sign(spans, size, sector_size, ratio)
    }
}

/// An image being put together.
struct Parts {
    frames: Arc<Vec<Frame>>,
    content: Content,
    chunk_size: u32,
    level: i32,
    small: Vec<(Digest, Bytes)>,
    large: Vec<(Digest, Arc<Blob>)>,
}

impl Parts {
    /// All spans: one again and again, and what remains.
    fn spans(&mut self, size: u64, span: u64) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        if size >= span {
            let whole = self.span(span)?;
            spans.extend((0..size / span).map(|number| Span { raw_offset: number * span, ..whole.clone() }));
        }
        if !size.is_multiple_of(span) {
            spans.push(Span { raw_offset: size / span * span, ..self.span(size % span)? });
        }
        Ok(spans)
    }

    fn span(&mut self, raw_length: u64) -> Result<Span> {
        let chunk = u64::from(self.chunk_size);
        let (count, rest) = ((raw_length / chunk) as usize, (raw_length % chunk) as usize);
        let mut order: Vec<usize> = (0..count).map(|number| number % self.frames.len()).collect();
        if rest > 0 {
            let mut compressor = Compressor::new(self.level)?;
            let last = pack_one(self.content, self.frames.len(), rest, &mut compressor)?;
            let mut frames = self.frames.to_vec();
            order.push(frames.len());
            frames.push(last);
            self.frames = Arc::new(frames);
        }
        let mut offset = 0;
        let row = |frame: &usize| {
            let Frame { bytes, digest, raw_digest } = self.frames[*frame].clone();
            let row = ChunkRow { kind: ChunkKind::Data, offset, length: bytes.len() as u32, digest, raw_digest };
            offset += bytes.len() as u64;
            row
        };
        let rows: Vec<ChunkRow> = order.iter().map(row).collect();
        let size = offset + seek_table_len(rows.len());
        let index = SpanIndex::new(self.chunk_size, raw_length, size, rows)
            .map_err(|error| Error::usage(format!("no synthetic image can be like that: {error}")))?;
        let blob = Blob { frames: Arc::clone(&self.frames), seek_table: index.seek_table().into(), order, index };
        let data = BlobRef { digest: blob.digest(), size };
        let index = self.put(blob.index.encode());
        self.large.push((data.digest, Arc::new(blob)));
        Ok(Span { raw_offset: 0, raw_length, index, data })
    }

    fn put(&mut self, bytes: Vec<u8>) -> BlobRef {
        let blob = BlobRef { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        self.small.push((blob.digest, bytes.into()));
        blob
    }

    fn sign(mut self, spans: Vec<Span>, raw_size: u64, sector_size: u32, ratio: f64) -> Result<(Synthetic, Trust)> {
        let descriptor = Descriptor {
            format: descriptor::FORMAT,
            critical: Vec::new(),
            name: "synthetic".into(),
            image_version: 1,
            architecture: std::env::consts::ARCH.into(),
            created: OffsetDateTime::now_utc(),
            expires: None,
            raw_size,
            chunk_size: self.chunk_size,
            sector_size,
            digest: "sha256".into(),
            compression: "zstd".into(),
            regions: partitions::regions(&[], raw_size, &[]),
            boot: None,
            spans,
        };
        let bytes = descriptor
            .encode()
            .map_err(|error| Error::usage(format!("no synthetic image can be like that: {error}")))?;
        let key = SecretKey::generate().map_err(|error| Error::device(error.to_string()))?;
        let envelope = self.put(envelope::sign(Role::Image, &bytes, &key));
        let trust = Trust::new(vec![key.public()], 1).map_err(|error| Error::device(error.to_string()))?;
        let source = Synthetic {
            name: format!("synthetic, {ratio} : 1"),
            manifest: layout::encode_manifest(envelope, &descriptor),
            small: self.small,
            large: self.large,
        };
        Ok((source, trust))
    }
}

/// Packs `count` different chunks, on all cores.
fn pack(
    content: Content,
    count: usize,
    chunk_size: usize,
    level: i32,
    cancel: &CancellationToken,
) -> Result<Vec<Frame>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Frame)>> {
        let mut compressor = Compressor::new(level)?;
        let mut packed = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return Ok(packed);
            }
            if cancel.is_cancelled() {
                return Err(Error::cancelled("packing the synthetic image"));
            }
            packed.push((number, pack_one(content, number, chunk_size, &mut compressor)?));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut frames = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min(count)).map(|_| scope.spawn(work)).collect();
        let died = |_| Err(Error::device("a thread that packs died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect::<Result<Vec<_>>>()
    })?
    .concat();
    frames.sort_by_key(|(number, _)| *number);
    Ok(frames.into_iter().map(|(_, frame)| frame).collect())
}

fn pack_one(content: Content, number: usize, raw_len: usize, compressor: &mut Compressor) -> Result<Frame> {
    let mut raw = vec![0; raw_len];
    content.fill(number as u64, &mut raw);
    let frame = compressor.frame(&raw)?;
    Ok(Frame { digest: Digest::of(&frame), raw_digest: Digest::of(&raw), bytes: frame.into() })
}

impl Blob {
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.order.iter().for_each(|frame| hasher.update(&self.frames[*frame].bytes));
        hasher.update(&self.seek_table);
        hasher.finish()
    }

    /// The bytes from `range.start` on, up to the end of the piece they lie in.
    fn piece(&self, range: &Range<u64>) -> Bytes {
        let rows = self.index.rows();
        let after = rows.partition_point(|row| row.offset <= range.start);
        let frames_end = self.index.data_size() - self.seek_table.len() as u64;
        let (start, bytes) = if range.start >= frames_end {
            (frames_end, &self.seek_table)
        } else {
            (rows[after - 1].offset, &self.frames[self.order[after - 1]].bytes)
        };
        let from = (range.start - start) as usize;
        bytes.slice(from..bytes.len().min(from + (range.end - range.start) as usize))
    }
}

impl Source for Synthetic {
    fn name(&self) -> &str {
        &self.name
    }

    fn manifest<'a>(&'a self, _: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async { Ok(self.manifest.clone()) })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        let small = self.small.iter().find(|(digest, _)| *digest == blob.digest);
        let large = self.large.iter().find(|(digest, _)| *digest == blob.digest);
        let stream: Result<Box<dyn Stream>> = match (small, large) {
            (Some((_, bytes)), _) => Ok(Box::new(Once(bytes.slice(range.start as usize..range.end as usize)))),
            (None, Some((_, blob))) => Ok(Box::new(Pieces { blob: Arc::clone(blob), left: range })),
            (None, None) => Err(Error::source_failed(format!("{} has no blob {}", self.name, blob.digest))),
        };
        Box::pin(std::future::ready(stream))
    }
}

struct Once(Bytes);

impl Stream for Once {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        let bytes = std::mem::take(&mut self.0);
        Box::pin(std::future::ready(Ok((!bytes.is_empty()).then_some(bytes))))
    }
}

/// Part of a data blob, frame by frame.
struct Pieces {
    blob: Arc<Blob>,
    left: Range<u64>,
}

impl Stream for Pieces {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async {
            if self.left.is_empty() {
                return Ok(None);
            }
            // Where a network would be waited for; else a lane would hold the runtime until its memory is used up.
            tokio::task::yield_now().await;
            let piece = self.blob.piece(&self.left);
            self.left.start += piece.len() as u64;
            Ok(Some(piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use crate::source::fetch_blob;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    async fn made(size: u64, chunk_size: u32) -> Image {
        let recipe = Recipe { size, ratio: 3.0, chunk_size, sector_size: 512, level: 1 };
        open(recipe, &CancellationToken::new()).await.unwrap()
    }

    #[test]
    fn it_is_verified_like_any_other() {
        for (size, chunks) in [((1 << 20) + 512, 17), (512, 1)] {
            block_on(async {
                let image = made(size, 64 << 10).await;
                assert_eq!(image.descriptor().raw_size, size);
                // Every digest of every blob and every chunk, by the code that checks any image.
                let (progress, never) = (Arc::new(Progress::default()), CancellationToken::new());
                assert_eq!(crate::verify::verify(image, 2, progress, &never).await.unwrap().chunks, chunks);
            });
        }
    }

    #[test]
    fn a_terabyte_of_spans_shares_its_blobs() {
        let image = block_on(made((1 << 40) + (3 << 20), 8 << 20));
        let spans = &image.descriptor().spans;
        assert!((3000..=MOST_SPANS as usize + 1).contains(&spans.len()), "{} spans", spans.len());
        assert!(spans[1..3000].iter().all(|span| (span.data, span.index) == (spans[0].data, spans[0].index)));
        let [.., whole, rest] = &spans[..] else { panic!("{} spans", spans.len()) };
        assert_ne!(whole.data, rest.data);
        // Its digest is that of the bytes that are put together when they are asked for.
        let blob = fetch_blob(image.sources()[0].as_ref(), whole.data, u64::MAX, "a data blob");
        assert_eq!(block_on(blob).unwrap().len() as u64, whole.data.size);
    }
}
