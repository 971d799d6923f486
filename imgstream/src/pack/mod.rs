//! Raw image → signed, chunked image in an OCI layout: parallel over cores, constant memory, same input → same bytes.
//!
//! The layout appears whole under its name or not at all. Nothing here talks to a network.

mod encode;
mod encrypt;
mod filesystem;
mod input;
mod span;
mod store;

use std::path::Path;
use std::sync::atomic::AtomicU64;

use envelope::{Role, SecretKey};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::manifest::layout::{self, Choice};
use crate::manifest::{BlobRef, Descriptor, Region, Span, boot, descriptor, partitions};
pub use encrypt::{DEFAULT_LUKS_HEADER, EncryptRegion};
use input::Input;
use span::SpanPacker;
use store::Store;
pub use store::partial_name;

/// Default raw bytes per chunk; chosen by measurement, see `docs/performance.md`.
pub const DEFAULT_CHUNK_SIZE: u32 = 2 << 20;
/// Default raw bytes per span.
pub const DEFAULT_SPAN_SIZE: u64 = 4 << 30;
/// Default zstd level: zstd's own.
pub const DEFAULT_LEVEL: i32 = 3;

/// Memory for chunks and frames while packing, whatever the number of cores; a worker needs about five chunks' worth.
const MEMORY: u64 = 160 << 20;

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The image's name.
    pub name: String,
    /// Its version; higher is newer.
    pub image_version: u64,
    /// Its architecture.
    pub architecture: String,
    /// The time that goes into the descriptor.
    pub created: OffsetDateTime,
    /// From when on it must not be used.
    pub expires: Option<OffsetDateTime>,
    /// Raw bytes per chunk.
    pub chunk_size: u32,
    /// Raw bytes per span; a multiple of the chunk size.
    pub span_size: u64,
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Whether holes of a sparse input mean "content unspecified" instead of zeros.
    pub holes: bool,
    /// Logical sector size the image was built for; found out where it is not given.
    pub sector_size: Option<u32>,
    /// Partitions that a `split` layout puts inside LUKS.
    pub encrypt: Vec<EncryptRegion>,
    /// Bytes of their LUKS headers.
    pub luks_header: u64,
    /// Threads that compress.
    pub workers: usize,
}

/// How far packing is.
#[derive(Debug, Default)]
pub struct PackProgress {
    /// Raw bytes of the input.
    pub total: AtomicU64,
    /// Raw bytes packed.
    pub packed: AtomicU64,
    /// Bytes of frames written.
    pub compressed: AtomicU64,
}

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// The descriptor that was signed.
    pub descriptor: Descriptor,
    /// The image's digest.
    pub digest: Digest,
}

/// Packs `input` into the new directory `output` and signs it.
///
/// # Errors
/// [`Kind::Usage`] when options are out of bounds, name no partition, or `output` exists; [`Kind::Image`] when the raw image
/// contradicts itself, or a partition cannot be encrypted; [`Kind::Source`] when the input cannot be read or changes; [`Kind::Device`] when the output cannot be
/// written; `Cancelled`. On any error nothing is left under `output`.
pub fn pack(
    input: &Path,
    output: &Path,
    options: &PackOptions,
    key: &SecretKey,
    progress: &PackProgress,
    cancel: &CancellationToken,
) -> Result<Packed> {
    check(options)?;
    let input = Input::open(input)?;
    let sector_size = input.sector_size(options.sector_size)?;
    if input.size() == 0 || input.size() % u64::from(sector_size) != 0 {
        return Err(Error::usage(format!(
            "{} has {} bytes, which is no positive multiple of its {sector_size}-byte sector",
            input.name(),
            input.size()
        ))
        .with_hint(
            "a raw disk image is whole sectors: was it truncated? `truncate -s %4096 FILE` rounds it up with zeros",
        ));
    }
    progress.total.store(input.size(), std::sync::atomic::Ordering::Relaxed);
    let (regions, boot) = look_inside(&input, sector_size, options)?;
    let store = Store::create(output)?;
    let spans = pack_spans(&input, &store, options, progress, cancel)?;
    input.check_unchanged()?;
    let descriptor = Descriptor {
        format: descriptor::FORMAT,
        critical: Vec::new(),
        name: options.name.clone(),
        image_version: options.image_version,
        architecture: options.architecture.clone(),
        created: options.created,
        expires: options.expires,
        raw_size: input.size(),
        chunk_size: options.chunk_size,
        sector_size,
        digest: "sha256".into(),
        compression: "zstd".into(),
        regions,
        boot,
        spans,
    };
    let digest = sign_and_finish(&store, &descriptor, key)?;
    store.publish()?;
    Ok(Packed { descriptor, digest })
}

fn check(options: &PackOptions) -> Result<()> {
    descriptor::check_name(&options.name).map_err(Error::usage)?;
    descriptor::check_architecture(&options.architecture).map_err(Error::usage)?;
    let chunk = options.chunk_size;
    if !chunk.is_power_of_two() || !(crate::manifest::MIN_CHUNK_SIZE..=crate::manifest::MAX_CHUNK_SIZE).contains(&chunk)
    {
        return Err(Error::usage(format!(
            "a chunk size of {chunk} bytes; a power of two from 64KiB to 8MiB is possible"
        )));
    }
    let chunks = options.span_size / u64::from(chunk);
    if !options.span_size.is_multiple_of(u64::from(chunk))
        || chunks == 0
        || chunks > crate::manifest::MAX_CHUNKS_PER_SPAN
    {
        return Err(Error::usage(format!("a span of {} bytes is not 1 to 65536 whole chunks", options.span_size)));
    }
    if !(1..=22).contains(&options.level) {
        return Err(Error::usage(format!("zstd has no level {}: 1 to 22", options.level)));
    }
    if options.expires.is_some_and(|expires| expires <= options.created) {
        return Err(Error::usage("the image would expire before it is created"));
    }
    encrypt::check_options(&options.encrypt, options.luks_header)
}

/// The regions and boot facts of a raw image.
fn look_inside(
    input: &Input,
    sector_size: u32,
    options: &PackOptions,
) -> Result<(Vec<Region>, Option<boot::BootFacts>)> {
    let refuse = |error: &dyn std::fmt::Display| Error::image(format!("{}: {error}", input.name()));
    let table =
        partitions::read_table(input.size(), sector_size, |at, into| input.read(at, into)).map_err(|error| {
            refuse(&error).with_hint("the image's partition table and size must agree; was it truncated?")
        })?;
    let mut record = [0; 512];
    input.read(0, &mut record).map_err(|error| refuse(&error))?;
    let boot = boot::detect(&record, input.size(), |at, into| input.read(at, into))
        .map_err(|error| refuse(&error))?
        .map_err(|why| refuse(&why).with_hint("run zipl in the image again"))?;
    let (wanted, header) = (&options.encrypt, options.luks_header);
    let encrypted = encrypt::encrypted(input, &table, boot.as_ref(), &options.name, wanted, header)?;
    Ok((partitions::regions(&table.partitions, input.size(), &encrypted), boot))
}

fn pack_spans(
    input: &Input,
    store: &Store,
    options: &PackOptions,
    progress: &PackProgress,
    cancel: &CancellationToken,
) -> Result<Vec<Span>> {
    let mut packer = SpanPacker::new(input, store, options, progress, cancel);
    let mut spans = Vec::new();
    let mut at = 0;
    while at < input.size() {
        let len = options.span_size.min(input.size() - at);
        if spans.len() == crate::manifest::MAX_SPANS {
            return Err(Error::usage(format!("more than {} spans", crate::manifest::MAX_SPANS))
                .with_hint("choose a larger --span-size"));
        }
        spans.push(packer.pack(at, len)?);
        at += len;
    }
    Ok(spans)
}

/// Signs the descriptor and writes envelope, manifest and index.
fn sign_and_finish(store: &Store, descriptor: &Descriptor, key: &SecretKey) -> Result<Digest> {
    let bytes = descriptor.encode().map_err(|error| Error::image(format!("this image would be refused: {error}")))?;
    let envelope = envelope::sign(Role::Image, &bytes, key);
    if envelope.len() > envelope::MAX_ENVELOPE {
        return Err(Error::usage("the descriptor is too large to be signed").with_hint("choose a larger --span-size"));
    }
    let envelope = store.put(&envelope)?;
    store.put(layout::EMPTY_CONFIG)?;
    let manifest = store.put(&layout::encode_manifest(envelope, descriptor))?;
    store.write_file("oci-layout", layout::OCI_LAYOUT.as_bytes())?;
    store.write_file("index.json", &layout::encode_index(manifest, &layout::ref_name(descriptor)))?;
    Ok(Digest::of(&bytes))
}

/// Adds a signature to an image in a layout. The image's digest stays; the manifest's changes.
///
/// # Errors
/// [`Kind::Image`] when there is no such image, its envelope is another role's, or the key has signed already;
/// [`Kind::Device`] when the layout cannot be written. On any error the layout is as it was.
pub fn add_signature(layout_dir: &Path, choice: &Choice, key: &SecretKey) -> Result<Digest> {
    let store = Store::open(layout_dir);
    let index = store.read_file("index.json")?;
    let old_manifest = layout::choose(&index, choice)?;
    let manifest = store.get(old_manifest, layout::MAX_MANIFEST)?;
    let old_envelope = layout::envelope_of(&manifest)?;
    let old_bytes = store.get(old_envelope, envelope::MAX_ENVELOPE as u64)?;
    let new_bytes = envelope::add_signature(&old_bytes, Role::Image, key)?;
    let unverified = envelope::peek(&new_bytes, Role::Image)?;
    let payload = unverified.payload_unverified();
    let descriptor = Descriptor::decode(payload)
        .map_err(|error| Error::image(format!("the descriptor is refused: {error}")).with_source(error))?;
    let new_envelope = store.put(&new_bytes)?;
    let new_manifest = store.put(&layout::encode_manifest(new_envelope, &descriptor))?;
    store.write_file("index.json", &layout::replace_in_index(&index, old_manifest.digest, new_manifest)?)?;
    // Only now does nothing point at the old ones any more.
    store.remove(old_manifest);
    store.remove(old_envelope);
    Ok(Digest::of(payload))
}

pub(crate) fn source_error(what: String, error: std::io::Error) -> Error {
    Error::new(Kind::Source, format!("{what}: {error}")).with_source(error)
}

fn blob_ref(bytes: &[u8]) -> BlobRef {
    BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 }
}
