//! Binary seeds: indexes and frames.

use imgstream::digest::Digest;
use imgstream::manifest::index::{SpanIndex, ZeroDigests, seek_table_len};
use imgstream::manifest::{ChunkKind, ChunkRow};
use zstd_safe::{CCtx, CParameter};

use super::Seeds;
use super::packed::Packed;

/// Adds them.
pub fn add(seeds: &mut Seeds, image: &Packed) {
    indexes(seeds, image);
    chunks(seeds, image);
}

fn indexes(seeds: &mut Seeds, image: &Packed) {
    let mut add = |name: &str, bytes: &[u8]| seeds.add("index", name, bytes);
    let first = &image.spans[0].0;
    add("packed-0", first);
    add("packed-1", &image.spans[1].0);
    add("kinds", &kinds());
    add("header-only", &first[..32]);
    add("cut-short", &first[..first.len() - 1]);
    add("a-byte-too-many", &[first, &[0][..]].concat());
    let mut edit = |name: &str, at: usize, bytes: &[u8]| {
        let mut index = first.clone();
        index[at..at + bytes.len()].copy_from_slice(bytes);
        add(name, &index);
    };
    edit("version-2", 7, &[2]);
    edit("four-billion-rows", 12, &u32::MAX.to_le_bytes());
    edit("raw-length-of-2-to-64", 16, &u64::MAX.to_le_bytes());
    edit("data-of-2-to-64", 24, &u64::MAX.to_le_bytes());
    edit("kind-0", 32, &[0]);
    edit("reserved", 33, &[1]);
    edit("frame-of-4-gib", 36, &u32::MAX.to_le_bytes());
    edit("frame-outside", 40, &u64::MAX.to_le_bytes());
    edit("data-called-zero", 32, &[2]);
}

fn kinds() -> Vec<u8> {
    let mut zeros = ZeroDigests::default();
    let (last, mut offset) = (512, 0);
    let mut row = |kind, len| {
        let raw_digest = if kind == ChunkKind::Data { Digest::of(b"raw") } else { zeros.of_len(len) };
        offset += 20;
        ChunkRow { kind, offset: offset - 20, length: 20, digest: Digest::of(b"frame"), raw_digest }
    };
    let rows = vec![row(ChunkKind::Data, 65536), row(ChunkKind::Zero, 65536), row(ChunkKind::Hole, last)];
    SpanIndex::new(65536, 2 * 65536 + last as u64, 60 + seek_table_len(3), rows).unwrap().encode()
}

/// As the target reads it: the chunk's length less one, then the frame.
fn case(raw_len: usize, frame: &[u8]) -> Vec<u8> {
    [&((raw_len - 1) as u16).to_le_bytes()[..], frame].concat()
}

fn chunks(seeds: &mut Seeds, image: &Packed) {
    let mut add = |name: &str, raw_len: usize, frame: &[u8]| seeds.add("chunk", name, case(raw_len, frame));
    for (number, (index, data)) in image.spans.iter().enumerate() {
        let index = SpanIndex::decode(index).unwrap();
        for (chunk, row) in index.rows().iter().enumerate() {
            let frame = &data[row.offset as usize..][..row.length as usize];
            add(&format!("packed-{number}-{chunk}"), index.raw_range(chunk).1, frame);
        }
    }
    let raw: Vec<u8> = (0..1000u32).flat_map(|n| (n / 7).to_le_bytes()).take(1000).collect();
    let plain = compress(&raw, &[]);
    add("plain", 1000, &plain);
    add("a-byte-too-long", 999, &plain);
    add("a-byte-too-short", 1001, &plain);
    add("cut-short", 1000, &plain[..plain.len() - 3]);
    add("twice", 1000, &[&plain[..], &plain].concat());
    let skippable = [&0x184D_2A5Eu32.to_le_bytes()[..], &4u32.to_le_bytes(), b"skip"].concat();
    add("skippable", 4, &skippable);
    add("skippable-before", 1000, &[&skippable[..], &plain].concat());
    add("skippable-after", 1000, &[&plain[..], &skippable].concat());
    add("without-size", 1000, &compress(&raw, &[CParameter::ContentSizeFlag(false)]));
    let checked = compress(&raw, &[CParameter::ChecksumFlag(true)]);
    add("checksum", 1000, &checked);
    let mut wrong = checked.clone();
    *wrong.last_mut().unwrap() ^= 1;
    add("wrong-checksum", 1000, &wrong);
    let noise: Vec<u8> = (0..600u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
    add("uncompressed", noise.len(), &compress(&noise, &[]));
    let repeated = [&raw[..], &raw, &raw, &noise[..200]].concat();
    add("window", repeated.len(), &compress(&repeated, &[CParameter::WindowLog(10), CParameter::CompressionLevel(19)]));
    // Hand-made headers: magic, descriptor, then what the descriptor promises; blocks of one repeated byte.
    add("block-of-one-byte", 65536, b"\x28\xb5\x2f\xfd\x60\x00\xff\x03\x00\x08\x2a");
    add("two-blocks-say-one-size", 65536, b"\x28\xb5\x2f\xfd\x60\x00\xff\x02\x00\x08\x2a\x03\x00\x08\x2b");
    add("bomb", 65536, b"\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f\x03\x00\x10\x2a");
    add("wide-window", 1000, b"\x28\xb5\x2f\xfd\x40\xff\xe8\x02\x03\x00\x00\x2a");
    add("reserved-bit", 1000, b"\x28\xb5\x2f\xfd\x68\xe8\x02\x43\x1f\x00\x2a");
    add("dictionary", 1000, b"\x28\xb5\x2f\xfd\x61\x07\xe8\x02\x43\x1f\x00\x2a");
    add("legacy", 1000, b"\x27\xb5\x2f\xfd\x60\xe8\x02\x43\x1f\x00\x2a");
    add("empty", 1, b"");
}

fn compress(raw: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    for parameter in parameters {
        context.set_parameter(*parameter).unwrap();
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    context.compress2(&mut frame, raw).unwrap();
    frame
}
