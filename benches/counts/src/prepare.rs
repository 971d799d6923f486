//! The inputs of all pieces of work, made without being counted: a raw image, the image packed from it, the index of a
//! full span, and the signed descriptor of a large image. Nothing in them depends on the time, the machine or chance.

use std::fs;
use std::path::Path;

use envelope::{Role, SecretKey};
use imgstream::digest::Digest;
use imgstream::manifest::index::{ZeroDigests, seek_table_len};
use imgstream::manifest::{BlobRef, ChunkKind, ChunkRow, Descriptor, Region, Span, SpanIndex};
use imgstream::pack::{self, DEFAULT_CHUNK_SIZE, DEFAULT_LEVEL, DEFAULT_SPAN_SIZE, PackOptions, PackProgress, pack};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::Outcome;
use crate::data::{self, Numbers};

/// Raw bytes of the image that is packed: four chunks.
const RAW_SIZE: usize = 4 * DEFAULT_CHUNK_SIZE as usize;
/// Spans of the image whose descriptor is opened: 1 TiB.
const SPANS: u64 = 256;

/// The raw image.
pub const RAW: &str = "raw";
/// The first chunk's frame, and the index its row is in.
pub const FRAME: &str = "frame";
/// The index of the packed image's only span.
pub const FRAME_INDEX: &str = "frame-index";
/// The index of a full span without zeros.
pub const INDEX: &str = "index";
/// The index of a full span of which a third is zeros.
pub const INDEX_WITH_ZEROS: &str = "index-with-zeros";
/// The signed descriptor of a large image.
pub const ENVELOPE: &str = "envelope";

/// Writes all inputs into `folder`, which is made if it is not there.
pub fn prepare(folder: &Path) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(RAW), data::image(RAW_SIZE))?;
    let descriptor = pack_raw(folder, "packed-uncounted")?;
    let span = descriptor.spans.first().ok_or("an image without a span was packed")?;
    let blob = |blob: BlobRef| fs::read(folder.join("packed-uncounted/blobs/sha256").join(blob.digest.hex()));
    let index = blob(span.index)?;
    let first = SpanIndex::decode(&index)?.rows()[0];
    let frame = blob(span.data)?;
    fs::write(folder.join(FRAME_INDEX), index)?;
    fs::write(folder.join(FRAME), &frame[..first.length as usize])?;
    fs::write(folder.join(INDEX), full_span(|_| ChunkKind::Data)?.encode())?;
    let third = |row| if row % 3 == 0 { ChunkKind::Zero } else { ChunkKind::Data };
    fs::write(folder.join(INDEX_WITH_ZEROS), full_span(third)?.encode())?;
    fs::write(folder.join(ENVELOPE), envelope::sign(Role::Image, &large(descriptor).encode()?, &key()?))?;
    Ok(())
}

/// Packs the raw image in `folder` on one thread into a new layout there.
pub fn pack_raw(folder: &Path, layout: &str) -> Outcome<Descriptor> {
    let options = PackOptions {
        name: "counted".into(),
        image_version: 1,
        architecture: "s390x".into(),
        created: OffsetDateTime::UNIX_EPOCH,
        expires: None,
        chunk_size: DEFAULT_CHUNK_SIZE,
        span_size: DEFAULT_SPAN_SIZE,
        level: DEFAULT_LEVEL,
        holes: false,
        sector_size: Some(4096),
        encrypt: Vec::new(),
        luks_header: pack::DEFAULT_LUKS_HEADER,
        workers: 1,
    };
    let (progress, cancel) = (PackProgress::default(), CancellationToken::new());
    let packed: pack::Packed = pack(&folder.join(RAW), &folder.join(layout), &options, &key()?, &progress, &cancel)?;
    Ok(packed.descriptor)
}

/// A key that protects nothing: its seed is 32 times the letter `A`. Signatures, and so counts, are the same every time.
pub fn key() -> Outcome<SecretKey> {
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\n-----END PRIVATE KEY-----\n";
    Ok(SecretKey::from_pem(pem.as_bytes())?)
}

/// The index of a full span.
fn full_span(kind: impl Fn(u64) -> ChunkKind) -> Outcome<SpanIndex> {
    let (mut numbers, mut zeros) = (Numbers::new(2), ZeroDigests::default());
    let zero = zeros.of_len(DEFAULT_CHUNK_SIZE as usize);
    let mut offset = 0;
    let mut row = |number| {
        let kind = kind(number);
        let length = 600_000 + numbers.below(200_000) as u32;
        let digest = Digest::from_bytes(numbers.bytes());
        let raw_digest = if kind == ChunkKind::Data { Digest::from_bytes(numbers.bytes()) } else { zero };
        let row = ChunkRow { kind, offset, length, digest, raw_digest };
        offset += u64::from(length);
        row
    };
    let rows: Vec<ChunkRow> = (0..DEFAULT_SPAN_SIZE / u64::from(DEFAULT_CHUNK_SIZE)).map(&mut row).collect();
    let data_size = offset + seek_table_len(rows.len());
    Ok(SpanIndex::new(DEFAULT_CHUNK_SIZE, DEFAULT_SPAN_SIZE, data_size, rows)?)
}

/// The descriptor of an image of [`SPANS`] full spans.
fn large(small: Descriptor) -> Descriptor {
    let mut numbers = Numbers::new(3);
    let mut blob = |size| BlobRef { digest: Digest::from_bytes(numbers.bytes()), size };
    let chunks = DEFAULT_SPAN_SIZE / u64::from(DEFAULT_CHUNK_SIZE);
    let index_size = imgstream::manifest::index::encoded_len(DEFAULT_SPAN_SIZE, DEFAULT_CHUNK_SIZE);
    let spans = (0..SPANS).map(|number| Span {
        raw_offset: number * DEFAULT_SPAN_SIZE,
        raw_length: DEFAULT_SPAN_SIZE,
        index: blob(index_size),
        data: blob(chunks * 700_000),
    });
    let spans = spans.collect();
    let raw_size = SPANS * DEFAULT_SPAN_SIZE;
    let all = Region { name: "all".into(), offset: 0, length: raw_size, encrypt: false, luks: None };
    Descriptor { raw_size, spans, regions: vec![all], ..small }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_compresses_like_a_systems() {
        let folder = std::env::temp_dir().join(format!("counts-prepare-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        prepare(&folder).unwrap();
        let frame = fs::metadata(folder.join(FRAME)).unwrap().len() as f64;
        fs::remove_dir_all(&folder).unwrap();
        let ratio = f64::from(DEFAULT_CHUNK_SIZE) / frame;
        assert!((2.5..3.5).contains(&ratio), "{ratio}");
    }
}
