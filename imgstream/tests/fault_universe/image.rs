//! A small packed image, its blobs in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use envelope::{SecretKey, Trust};
use imgstream::digest::Digest;
use imgstream::manifest::Policy;
use imgstream::open::Image;
use imgstream::pack::{self, PackOptions, PackProgress};
use imgstream::source::{Dir, Source};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

pub const CHUNK: usize = 64 << 10;

/// A packed image: its raw bytes, and its blobs by digest.
#[derive(Debug)]
pub struct Packed {
    pub raw: Vec<u8>,
    pub blobs: HashMap<Digest, Bytes>,
    /// The blobs that hold chunks.
    pub data: HashSet<Digest>,
    pub dir: Dir,
    pub trust: Trust,
    _files: TempDir,
}

impl Packed {
    /// Three spans: 21 chunks and a short one, some of them zeros, some of them holes.
    pub fn small() -> Arc<Self> {
        static SMALL: OnceLock<Arc<Packed>> = OnceLock::new();
        let make = || {
            let mut raw = noise(21 * CHUNK + 3 * 512);
            raw[5 * CHUNK..7 * CHUNK].fill(0);
            raw[12 * CHUNK..13 * CHUNK].fill(0);
            Arc::new(Self::pack(raw, 8))
        };
        Arc::clone(SMALL.get_or_init(make))
    }

    /// One span of 64 chunks of data.
    pub fn long() -> Arc<Self> {
        static LONG: OnceLock<Arc<Packed>> = OnceLock::new();
        Arc::clone(LONG.get_or_init(|| Arc::new(Self::pack(noise(64 * CHUNK), 64))))
    }

    fn pack(raw: Vec<u8>, span_chunks: usize) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (input, output) = (files.path().join("raw"), files.path().join("image"));
        std::fs::write(&input, &raw).unwrap();
        // A hole where the image says that nobody reads: it must come out as zeros all the same.
        let file = std::fs::File::options().write(true).open(&input).unwrap();
        let punch = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if raw[12 * CHUNK..13 * CHUNK].iter().all(|byte| *byte == 0) {
            nix::fcntl::fallocate(&file, punch, 12 * CHUNK as i64, CHUNK as i64).unwrap();
        }
        let key = SecretKey::generate().unwrap();
        let options = PackOptions {
            name: "sample".into(),
            image_version: 7,
            architecture: "s390x".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            expires: None,
            chunk_size: CHUNK as u32,
            span_size: (span_chunks * CHUNK) as u64,
            level: 1,
            holes: true,
            sector_size: Some(512),
            encrypt: Vec::new(),
            luks_header: pack::DEFAULT_LUKS_HEADER,
            workers: 1,
        };
        let packed =
            pack::pack(&input, &output, &options, &key, &PackProgress::default(), &CancellationToken::new()).unwrap();
        let blobs = std::fs::read_dir(output.join("blobs/sha256")).unwrap().map(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            (Digest::of(&bytes), Bytes::from(bytes))
        });
        Packed {
            raw,
            blobs: blobs.collect(),
            data: packed.descriptor.spans.iter().map(|span| span.data.digest).collect(),
            dir: Dir::new(&output),
            trust: Trust::new(vec![key.public()], 1).unwrap(),
            _files: files,
        }
    }

    /// Opens it from `sources`.
    pub async fn open(&self, sources: Vec<Arc<dyn Source>>) -> imgstream::error::Result<Image> {
        Image::open(sources, &self.trust, &Policy::default()).await
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ len as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
}
