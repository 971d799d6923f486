//! Index and data blobs with every digest right, signed: sections 5 and 6. Only a rule can refuse them.

use e2e::forge::{self, Blobs, Row};
use e2e::layout::sha256_of;
use e2e::second_reader::{ACCEPTED, CORRUPT, Expect, Matrix, REFUSED};

use super::one_span;

fn rows(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Vec<Row>)) {
    let key = matrix.image.key.clone();
    matrix.add(what, expect, |layout| forge::rows(layout, &key, change));
}

fn blobs(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Blobs)) {
    let key = matrix.image.key.clone();
    matrix.add(what, expect, |layout| forge::blobs(layout, &key, change));
}

#[test]
fn they_agree_on_rows() {
    let mut matrix = one_span();
    for (what, expect, change) in [
        ("as they were", ACCEPTED, (|_| {}) as fn(&mut Vec<Row>)),
        ("a hole", ACCEPTED, |rows| rows[1].kind = 3),
        ("zeros as data", ACCEPTED, |rows| rows[1].kind = 1),
        ("data as zeros", REFUSED, |rows| rows[0].kind = 2),
        ("data as a hole", REFUSED, |rows| rows[2].kind = 3),
        ("data as zeros, the raw digest that of zeros", REFUSED, |rows| {
            rows[0].kind = 2;
            rows[0].raw_digest = rows[1].raw_digest;
        }),
        ("zeros with the frame of data", REFUSED, |rows| rows[1].frame = rows[0].frame.clone()),
        ("kind 0", REFUSED, |rows| rows[0].kind = 0),
        ("kind 4", REFUSED, |rows| rows[0].kind = 4),
        ("kind 255", REFUSED, |rows| rows[0].kind = 255),
        ("a reserved byte", REFUSED, |rows| rows[0].reserved[0] = 1),
        ("the last reserved byte", REFUSED, |rows| rows[1].reserved[2] = 128),
        ("another raw digest", REFUSED, |rows| rows[0].raw_digest[31] ^= 1),
        ("another raw digest of zeros", REFUSED, |rows| rows[1].raw_digest[0] ^= 1),
        ("another raw digest of a hole", REFUSED, |rows| (rows[1].kind, rows[1].raw_digest[0]) = (3, 0)),
        ("another raw length in the seek table", REFUSED, |rows| rows[0].raw_length -= 1),
        ("a chunk more", REFUSED, |rows| rows.push(rows[2].clone())),
        ("a chunk less", REFUSED, |rows| drop(rows.pop())),
        ("another image: chunks in another order", ACCEPTED, |rows| rows.swap(0, 1)),
        ("an empty frame", REFUSED, |rows| rows[1].frame.clear()),
    ] {
        rows(&mut matrix, what, expect, change);
    }
    println!("the readers agree on {} forged rows", matrix.judge());
}

#[test]
fn they_agree_on_every_field_of_an_index_and_a_seek_table() {
    let mut matrix = one_span();
    let original = Blobs::of(&matrix.image.layout());
    for at in 0..112 {
        // Reserved bytes and digests have many alike.
        if at > 32 && !(36..=48).contains(&at) && at % 4 != 0 {
            continue;
        }
        // A frame of another digest is not what its index promises.
        let expect = if (48..80).contains(&at) { CORRUPT } else { REFUSED };
        blobs(&mut matrix, &format!("index byte {at}"), expect, |b| b.index[at] ^= 2);
    }
    let table = original.data.len() - 17 - 8 * 3;
    for at in table..original.data.len() {
        blobs(&mut matrix, &format!("seek table byte {}", at - table), REFUSED, |b| b.data[at] ^= 1);
    }
    for at in [0, table / 2, table - 1] {
        blobs(&mut matrix, &format!("data byte {at}, the index as it was"), CORRUPT, |b| b.data[at] ^= 1);
    }
    blobs(&mut matrix, "an index a byte longer", REFUSED, |b| b.index.push(0));
    blobs(&mut matrix, "an index a row longer", REFUSED, |b| b.index.extend([0; 80]));
    blobs(&mut matrix, "an index a byte shorter", REFUSED, |b| b.index.truncate(271));
    blobs(&mut matrix, "a data blob a byte longer", REFUSED, |b| b.data.push(0));
    blobs(&mut matrix, "a data blob without seek table", REFUSED, |b| b.data.truncate(table));
    blobs(&mut matrix, "frames that overlap", REFUSED, |b| b.index[32 + 80 + 8] -= 1);
    println!("the readers agree on {} forged blobs", matrix.judge());
}

/// A frame by hand: header, then blocks of (type, size, bytes); the last of them is marked so.
fn frame(header: &[u8], blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = [b"\x28\xb5\x2f\xfd", header].concat();
    for (number, (kind, size, content)) in blocks.iter().enumerate() {
        let last = u32::from(number + 1 == blocks.len());
        bytes.extend(&(last | kind << 1 | size << 3).to_le_bytes()[..3]);
        bytes.extend(*content);
    }
    bytes
}

const RAW: u32 = 0;
const RLE: u32 = 1;
/// Single segment, content size of 2 bytes: 512.
const PLAIN: &[u8] = &[0x60, 0, 1];

#[test]
fn they_agree_on_frames() {
    let text: Vec<u8> = (0..512).map(|n| b'a' + (n % 26) as u8).collect();
    let (whole, half) = (&[(RAW, 512, &text[..])][..], (RAW, 256, &text[..256]));
    let window = |byte: u8| frame(&[0x40, byte, 0, 1], whole);
    let mut checked = frame(&[0x64, 0, 1], whole);
    checked.extend([0; 4]);
    let frames = [
        ("one raw block", ACCEPTED, frame(PLAIN, whole)),
        ("two raw blocks", ACCEPTED, frame(PLAIN, &[half, (RAW, 256, &text[256..])])),
        ("an empty last block", ACCEPTED, frame(PLAIN, &[whole[0], (RAW, 0, &[])])),
        ("an empty first block", ACCEPTED, frame(PLAIN, &[(RAW, 0, &[]), whole[0]])),
        ("a content size of 4 bytes", ACCEPTED, frame(&[0xa0, 0, 2, 0, 0], whole)),
        ("a content size of 8 bytes", ACCEPTED, frame(&[0xe0, 0, 2, 0, 0, 0, 0, 0, 0], whole)),
        ("a content size of 2^32 more", REFUSED, frame(&[0xe0, 0, 2, 0, 0, 1, 0, 0, 0], whole)),
        ("the unused bit", ACCEPTED, frame(&[0x70, 0, 1], whole)),
        ("the reserved bit", REFUSED, frame(&[0x68, 0, 1], whole)),
        ("a dictionary id of 1 byte", REFUSED, frame(&[0x61, 0, 0, 1], whole)),
        ("a dictionary id of 2 bytes", REFUSED, frame(&[0x62, 0, 0, 0, 1], whole)),
        ("a dictionary id of 4 bytes", REFUSED, frame(&[0x63, 0, 0, 0, 0, 0, 1], whole)),
        ("a window of 1 KiB", ACCEPTED, window(0)),
        ("a window of 8 MiB", ACCEPTED, window(13 << 3)),
        ("a window of 9 MiB", REFUSED, window(13 << 3 | 1)),
        ("a window of 7.5 MiB", ACCEPTED, window(12 << 3 | 7)),
        ("a window of 16 MiB", REFUSED, window(14 << 3)),
        ("a window of 2^41", REFUSED, window(0xff)),
        ("no content size", REFUSED, frame(&[0x00, 0], whole)),
        ("a content size of a byte more", REFUSED, frame(&[0x60, 1, 1], whole)),
        ("a content size of a byte less", REFUSED, frame(&[0x60, 255, 0], whole)),
        ("less than it says", REFUSED, frame(PLAIN, &[half])),
        ("more than it says", REFUSED, frame(PLAIN, &[whole[0], (RLE, 1, b"x")])),
        ("far more than it says", REFUSED, frame(PLAIN, &[(RLE, 131_072, &b"x"[..]); 100])),
        ("a block beyond the window", REFUSED, frame(&[0x60, 0, 1], &[(RLE, 513, b"x")])),
        ("a reserved block", REFUSED, frame(PLAIN, &[(3, 512, &text)])),
        ("a compressed block of nothing", REFUSED, frame(PLAIN, &[(2, 0, &[])])),
        ("a compressed block of rubbish", REFUSED, frame(PLAIN, &[(2, 512, &text)])),
        ("no last block", REFUSED, frame(PLAIN, &[half, half])[..7 + 2 * 259 - 256].to_vec()),
        ("a byte behind", REFUSED, [frame(PLAIN, whole), vec![0]].concat()),
        ("a byte missing", REFUSED, frame(PLAIN, whole)[..7 + 3 + 511].to_vec()),
        ("two frames", REFUSED, [frame(&[0x60, 0, 0], &[half]), frame(&[0x60, 0, 0], &[half])].concat()),
        ("an empty frame behind", REFUSED, [frame(PLAIN, whole), frame(&[0x20, 0], &[(RAW, 0, &[])])].concat()),
        ("a skippable frame behind", REFUSED, [frame(PLAIN, whole), skippable()].concat()),
        ("a skippable frame before", REFUSED, [skippable(), frame(PLAIN, whole)].concat()),
        ("a skippable frame alone", REFUSED, skippable()),
        ("a checksum that is wrong", REFUSED, checked),
        ("a checksum that is missing", REFUSED, frame(&[0x64, 0, 1], whole)),
        ("half a header", REFUSED, b"\x28\xb5\x2f\xfd\x60\x00".to_vec()),
        ("a magic number alone", REFUSED, b"\x28\xb5\x2f\xfd".to_vec()),
        ("half a magic number", REFUSED, b"\x28\xb5".to_vec()),
        ("a legacy frame", REFUSED, [&[0x27], &frame(PLAIN, whole)[1..]].concat()),
        ("the bytes themselves", REFUSED, text.clone()),
        ("as long as it may be", ACCEPTED, padded(&text, 1028)),
        ("longer than it may be", REFUSED, padded(&text, 1029)),
    ];
    let digest = sha256_of(&text);
    let mut matrix = one_span();
    for (what, expect, frame) in frames {
        rows(&mut matrix, what, expect, |rows| (rows[2].frame, rows[2].raw_digest) = (frame, digest));
    }
    // Made by zstd itself, with what `imgstream pack` does not use.
    let file = matrix.lab.file("text", &text);
    for (options, expect) in [("--check", ACCEPTED), ("--no-check -19", ACCEPTED), ("--no-content-size", REFUSED)] {
        let out = matrix.lab.fresh("frame");
        e2e::Run::tool("zstd").arg("-q").words(options).arg(&file).arg("-o").arg(&out).done().ok();
        let frame = std::fs::read(out).unwrap();
        rows(&mut matrix, options, expect, |rows| (rows[2].frame, rows[2].raw_digest) = (frame, digest));
    }
    println!("the readers agree on {} frames", matrix.judge());
}

fn skippable() -> Vec<u8> {
    b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx".to_vec()
}

/// A frame of 512 bytes that empty blocks make longer.
fn padded(text: &[u8], len: usize) -> Vec<u8> {
    let mut blocks = vec![(RAW, 0, &[][..]); (len - 7 - 515) / 3];
    // What is not a multiple of 3 goes into blocks that repeat a byte: 4 bytes for 1.
    blocks.iter_mut().take((len - 7 - 515) % 3).for_each(|block| *block = (RLE, 0, b"x"));
    blocks.push((RAW, 512, text));
    frame(PLAIN, &blocks)
}
