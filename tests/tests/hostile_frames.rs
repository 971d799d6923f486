//! Frames with the right digest that are wrong: what a packer with a mistake, or a signer with a grudge, might sign.

use std::path::Path;

use e2e::offers::{CHUNK, DATA, LAST};
use e2e::{MIB, Offers, Run, exit, sample};

/// `zstd` of some bytes.
fn zstd(offers: &Offers, raw: &[u8], options: &str) -> Vec<u8> {
    let input = offers.lab.file("raw", raw);
    compress(offers, &input, options)
}

fn compress(offers: &Offers, input: &Path, options: &str) -> Vec<u8> {
    let output = offers.lab.fresh("frame");
    Run::tool("zstd").words("-q -c --no-check").words(options).arg(input).stdout(create(&output)).done().ok();
    std::fs::read(output).unwrap()
}

/// The same from a pipe, of which zstd cannot know the length.
fn piped(offers: &Offers, raw: &[u8], options: &str) -> Vec<u8> {
    let (input, output) = (offers.lab.file("raw", raw), offers.lab.fresh("frame"));
    let line = format!("cat {} | zstd -q -c --no-check {options}", input.display());
    Run::tool("sh").arg("-c").arg(line).stdout(create(&output)).done().ok();
    std::fs::read(output).unwrap()
}

fn create(path: &Path) -> std::fs::File {
    std::fs::File::create(path).unwrap()
}

/// A skippable frame.
fn skippable(content: &[u8]) -> Vec<u8> {
    [&0x184D_2A50_u32.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), content].concat()
}

/// A frame of blocks that repeat one byte, `blocks` times 128 KiB, with this head: magic, descriptor and what that says.
fn repeating(head: &[u8], blocks: usize) -> Vec<u8> {
    let mut frame = [&[0x28, 0xb5, 0x2f, 0xfd][..], head].concat();
    for block in 1..=blocks {
        // Block header: last, type 1 (repeat), size 128 KiB.
        let header: u32 = u32::from(block == blocks) | 1 << 1 | (128 << 10) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0x2a);
    }
    frame
}

/// The chunk that gets them; its content compresses, so that two frames of it are not too long for one row.
const CHANGED: usize = DATA[2];

/// Frames for it, and what their refusal says.
fn wrong_frames(offers: &Offers) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let chunk = CHUNK as usize;
    let raw = &offers.raw[CHANGED * chunk..][..chunk];
    let good = zstd(offers, raw, "");
    let with = |at: usize, change: &dyn Fn(u8) -> u8| {
        let mut frame = good.clone();
        frame[at] = change(frame[at]);
        frame
    };
    let mut wrong_checksum = zstd(offers, raw, "--check");
    *wrong_checksum.last_mut().unwrap() ^= 1;
    let eight = |size: u64| [&[0xe0][..], &size.to_le_bytes()].concat();
    vec![
        ("a second frame", [&good[..], &good].concat(), "follow"),
        ("an empty second frame", [&good[..], &zstd(offers, b"", "")].concat(), "follow"),
        ("a byte more", [&good[..], &[0]].concat(), "follow"),
        ("a skippable frame after", [&good[..], &skippable(b"skip")].concat(), "follow"),
        ("a skippable frame before", [&skippable(b"skip")[..], &good].concat(), "not a zstd frame"),
        ("nothing but a skippable frame", skippable(raw), "not a zstd frame"),
        ("no frame", raw.to_vec(), "not a zstd frame"),
        ("a legacy frame", with(0, &|byte| byte - 1), "not a zstd frame"),
        ("four bytes", good[..4].to_vec(), "too short"),
        ("a cut", good[..good.len() - 1].to_vec(), "zstd says"),
        ("half a frame", good[..good.len() / 2].to_vec(), "zstd says"),
        ("a reserved bit", with(4, &|byte| byte | 8), "reserved bit or a dictionary"),
        ("a dictionary", with(4, &|byte| byte | 1), "reserved bit or a dictionary"),
        ("a wrong checksum", wrong_checksum, "zstd says"),
        ("no size", zstd(offers, raw, "--no-content-size"), "how long"),
        ("no size, from a pipe", piped(offers, raw, ""), "how long"),
        ("a sector less", zstd(offers, &raw[512..], ""), "promises 65024 bytes"),
        ("a byte less", zstd(offers, &raw[1..], ""), "promises 65535 bytes"),
        ("content of a byte more", zstd(offers, &[raw, &[1]].concat(), ""), "promises 65537 bytes"),
        ("nothing", zstd(offers, b"", ""), "promises 0 bytes"),
        ("content for two", zstd(offers, &raw.repeat(2), ""), "promises 131072 bytes"),
        // With a size that is right and a window of its own: 2^(10+e), e being the upper five bits.
        ("a window of 16 MiB", repeating(&[0x40, 14 << 3, 0x00, 0xff], 1), "window"),
        ("a window of 9 MiB", repeating(&[0x40, 13 << 3 | 1, 0x00, 0xff], 1), "window"),
        ("a window of 3 TiB", repeating(&[0x40, 0xff, 0x00, 0xff], 1), "window"),
        ("a bomb that says so", repeating(&eight(1 << 40), 2000), "promises 1099511627776 bytes"),
        ("a bomb of nearly 2^64 bytes", repeating(&eight(u64::MAX - 2), 2000), "zstd frame"),
        ("a bomb that says nothing", repeating(&[0x00, 6 << 3], 2000), "how long"),
        ("a bomb that lies", repeating(&[0x60, 0x00, 0xff], 2000), "zstd says"),
        (
            "a block of the wrong kind",
            with(5, &|byte| byte).iter().take(7).copied().chain([7, 0, 0]).collect(),
            "zstd says",
        ),
    ]
}

#[test]
fn frames_with_the_right_digest_that_are_wrong() {
    let offers = Offers::new();
    for (what, frame, why) in wrong_frames(&offers) {
        let mut forgery = offers.forgery();
        forgery.spans[0].put_frame(CHANGED, &frame);
        eprintln!("{what}");
        offers.refused_midway(&forgery.make(&offers.lab), exit::IMAGE, why);
    }
}

/// The first and the last chunk are written last, on another path.
#[test]
fn wrong_frames_of_the_first_and_the_last_chunk() {
    let offers = Offers::new();
    for (span, chunk) in [(0, 0), (1, LAST - 16)] {
        let mut forgery = offers.forgery();
        let good = forgery.spans[span].frames[chunk].clone();
        forgery.spans[span].put_frame(chunk, &[&good[..], &skippable(b"")].concat());
        let why = format!("chunk {chunk} of span {span}");
        offers.refused_midway(&forgery.make(&offers.lab), exit::IMAGE, &why);
    }
}

#[test]
fn a_frame_with_the_digest_of_another_is_the_fault_of_its_source() {
    let offers = Offers::new();
    let mut forgery = offers.forgery();
    let digest = forgery.spans[0].rows[DATA[2]].digest;
    forgery.spans[0].rows[DATA[1]].digest = digest;
    offers.refused_midway(&forgery.make(&offers.lab), exit::SOURCE, "chunk 5 of span 0");
}

#[test]
fn frames_of_every_other_kind_that_zstd_makes_are_fine() {
    let offers = Offers::new();
    let chunk = CHUNK as usize;
    let raw = offers.raw[DATA[1] * chunk..][..chunk].to_vec();
    let streamed = format!("--stream-size={chunk}");
    let frames = [
        zstd(&offers, &raw, "--check"),
        zstd(&offers, &raw, "-19"),
        zstd(&offers, &raw, "--fast=5"),
        piped(&offers, &raw, &streamed),
        piped(&offers, &raw, &format!("{streamed} --zstd=wlog=23")),
    ];
    for frame in frames {
        let mut forgery = offers.forgery();
        forgery.spans[0].put_frame(DATA[1], &frame);
        offers.accepted(&forgery.make(&offers.lab));
    }
}

/// A frame of a few KiB that unpacks to gigabytes costs no memory.
#[test]
fn a_decompression_bomb_costs_no_memory() {
    let offers = Offers::new();
    let zeros = offers.lab.path("zeros");
    drop(sample::sparse(&zeros, 2 << 30));
    let bomb = compress(&offers, &zeros, "--fast=9");
    assert!(bomb.len() < 400_000, "{}", bomb.len());
    // As large as a row can say that a frame is: the rest of it is cut off.
    let bomb = &bomb[..bomb.len().min(66_000)];
    let mut forgery = offers.forgery();
    forgery.spans[0].put_frame(CHANGED, bomb);
    let dir = forgery.make(&offers.lab);
    let target = offers.target();
    for command in [offers.image.write(&dir, target.path()), offers.command("verify", &dir)] {
        let done = command.measured().done().exits(exit::IMAGE).says("promises 2147483648 bytes");
        assert!(done.peak < 256 * MIB, "{} MiB: {}", done.peak / MIB, done.line);
        offers.counts();
    }
}
