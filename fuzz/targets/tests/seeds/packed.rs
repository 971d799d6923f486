//! A real image, packed and signed as `imgstream pack` does it: GPT, zIPL record, zeros, two spans.

use std::path::Path;

use envelope::add_signature;
use fuzz_targets::keys;
use imgstream::digest::Digest;
use imgstream::manifest::Descriptor;
use imgstream::manifest::layout::envelope_of;
use imgstream::pack::{DEFAULT_LUKS_HEADER, PackOptions, PackProgress, pack};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const CHUNK: usize = 64 << 10;

/// The parts of an image.
pub struct Packed {
    pub index_json: Vec<u8>,
    pub manifest: Vec<u8>,
    pub envelope: Vec<u8>,
    /// The same, signed by the second key as well.
    pub signed_twice: Vec<u8>,
    pub payload: Vec<u8>,
    pub descriptor: Descriptor,
    /// Index and data blobs of the spans.
    pub spans: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Packs it.
pub fn image() -> Packed {
    let dir = tempfile::tempdir().unwrap();
    let (raw, layout) = (dir.path().join("raw"), dir.path().join("image"));
    std::fs::write(&raw, raw_image()).unwrap();
    let options = PackOptions {
        name: "sample".into(),
        image_version: 7,
        architecture: "s390x".into(),
        created: OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap(),
        expires: Some(OffsetDateTime::from_unix_timestamp(32_472_144_000).unwrap()),
        chunk_size: CHUNK as u32,
        span_size: 3 * CHUNK as u64,
        level: 3,
        holes: false,
        sector_size: Some(512),
        encrypt: Vec::new(),
        luks_header: DEFAULT_LUKS_HEADER,
        workers: 1,
    };
    pack(&raw, &layout, &options, keys::first(), &PackProgress::default(), &CancellationToken::new()).unwrap();
    read(&layout)
}

/// Four chunks and a short one: boot record and partition table, zeros, text, and text again.
fn raw_image() -> Vec<u8> {
    let mut raw = vec![0; 4 * CHUNK + 1024];
    raw[..4].copy_from_slice(b"zIPL");
    raw[16..26].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 34, 2, 0]);
    raw[34 * 512..][..4].copy_from_slice(b"zIPL");
    raw[512..520].copy_from_slice(b"EFI PART");
    raw[512 + 72] = 2;
    raw[512 + 80..512 + 88].copy_from_slice(&[4, 0, 0, 0, 128, 0, 0, 0]);
    for (number, (name, first, last)) in [("boot", 40u64, 99u64), ("Root FS", 128, 400)].into_iter().enumerate() {
        let entry = &mut raw[1024 + 128 * number..][..128];
        entry[..16].fill(1 + number as u8);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        let utf16 = name.encode_utf16().flat_map(u16::to_le_bytes);
        entry[56..].iter_mut().zip(utf16).for_each(|(place, byte)| *place = byte);
    }
    for (number, line) in raw[2 * CHUNK..].chunks_mut(24).enumerate() {
        let text = format!("line {:016}\n", number % 97);
        line.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    }
    raw
}

fn read(layout: &Path) -> Packed {
    let blob = |digest: Digest| std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let index_json = std::fs::read(layout.join("index.json")).unwrap();
    let manifest = blob(imgstream::manifest::layout::choose(&index_json, &Default::default()).unwrap().digest);
    let envelope = blob(envelope_of(&manifest).unwrap().digest);
    let payload = envelope::peek(&envelope, envelope::Role::Image).unwrap().payload_unverified().to_vec();
    let descriptor = Descriptor::decode(&payload).unwrap();
    let spans = descriptor.spans.iter().map(|span| (blob(span.index.digest), blob(span.data.digest))).collect();
    let signed_twice = add_signature(&envelope, envelope::Role::Image, keys::second()).unwrap();
    Packed { index_json, manifest, envelope, signed_twice, payload, descriptor, spans }
}
