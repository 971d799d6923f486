//! A second reader, written only from `docs/format.md`, reads what `imgstream` packs, and agrees with `imgstream` on what
//! is an image and what is not. Where they disagree, one of three is wrong: the reader, `imgstream`, or the document.

mod blobs;
mod descriptors;
mod envelopes;
mod flips;
mod json;
mod layouts;
mod regions;
mod unpack;
mod wishes;

use e2e::sample::noise;
use e2e::second_reader::Matrix;

/// A raw image with a boot record, and a chunk each of data and zeros, and a short one.
fn raw() -> Vec<u8> {
    let mut raw = vec![0; 2 * 65536 + 512];
    raw[..4].copy_from_slice(b"zIPL");
    raw[23..26].copy_from_slice(&[1, 2, 0]);
    raw[512..516].copy_from_slice(b"zIPL");
    // Half of the entropy of noise, so that frames have all that frames can have.
    let text: Vec<u8> = noise(7, 3000).iter().map(|byte| b'a' + (byte & 15)).collect();
    raw[1024..4024].copy_from_slice(&text);
    raw[5000..8000].copy_from_slice(&text);
    raw[2 * 65536..][..300].copy_from_slice(&text[..300]);
    raw
}

/// The image all matrices vary: two spans, three chunks.
fn two_spans() -> Matrix {
    Matrix::new(&raw(), "--chunk-size 64KiB --span-size 128KiB --expires 2999-01-01T00:00:00Z")
}

/// The same in one span.
fn one_span() -> Matrix {
    Matrix::new(&raw(), "--chunk-size 64KiB")
}
