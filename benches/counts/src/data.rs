//! Bytes that compress like a disk image's and are the same for ever: no file of the machine goes into them.

use std::iter::repeat_with;

/// Numbers that look random and depend on the seed alone (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Below `bound`, small ones far more often than large ones, as words are in a language and opcodes in a program.
    pub fn skewed(&mut self, bound: usize) -> usize {
        let range = self.below(bound) + 1;
        let range = self.below(range) + 1;
        self.below(range)
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        bytes
    }
}

/// Bytes in a row of one sort: about what files of a system measure.
const STRETCH: usize = 64 << 10;

/// `len` bytes: stretches of text, of machine code and tables, and of what is compressed already.
pub fn image(len: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(1);
    let vocabulary: Vec<Vec<u8>> = repeat_with(|| word(&mut numbers)).take(3000).collect();
    let operations: Vec<[u8; 3]> = repeat_with(|| numbers.bytes()).take(300).collect();
    let mut image = Vec::with_capacity(len + STRETCH);
    for stretch in 0.. {
        let end = stretch * STRETCH;
        if end >= len {
            break;
        }
        let end = end + STRETCH;
        match stretch % 12 {
            0 | 3 | 6 | 9 => text(&mut image, end, &mut numbers, &vocabulary),
            11 => noise(&mut image, end, &mut numbers),
            _ => code(&mut image, end, &mut numbers, &operations),
        }
        image.truncate(end);
    }
    image.truncate(len);
    image
}

fn word(numbers: &mut Numbers) -> Vec<u8> {
    let len = 2 + numbers.below(9);
    repeat_with(|| b"etaoinshrdlucmfwypvbgkjqxz"[numbers.skewed(26)]).take(len).collect()
}

fn text(image: &mut Vec<u8>, end: usize, numbers: &mut Numbers, vocabulary: &[Vec<u8>]) {
    while image.len() < end {
        image.extend_from_slice(&vocabulary[numbers.skewed(vocabulary.len())]);
        image.push(b"     \n,."[numbers.below(8)]);
        if numbers.below(3) == 0 {
            again(image, numbers);
        }
    }
}

/// What stood before stands there once more, as phrases, function prologues and licence texts do.
fn again(image: &mut Vec<u8>, numbers: &mut Numbers) {
    let distance = 256 + numbers.skewed(1 << 19);
    let len = 16 + numbers.skewed(240);
    if let Some(start) = image.len().checked_sub(distance) {
        image.extend_from_within(start..start + len);
    }
}

fn noise(image: &mut Vec<u8>, end: usize, numbers: &mut Numbers) {
    while image.len() < end {
        image.extend_from_slice(&numbers.bytes::<64>());
    }
}

/// Operations with a short operand now and then, and rows of a table: increasing addresses with small gaps.
fn code(image: &mut Vec<u8>, end: usize, numbers: &mut Numbers, operations: &[[u8; 3]]) {
    let mut address = 0x40_0000u64;
    while image.len() < end {
        if numbers.below(16) == 0 {
            for _ in 0..8 {
                address += 16 * (1 + numbers.skewed(64) as u64);
                image.extend_from_slice(&address.to_le_bytes());
            }
        }
        image.extend_from_slice(&operations[numbers.skewed(operations.len())]);
        if numbers.below(3) == 0 {
            image.push(numbers.skewed(256) as u8);
        }
        if numbers.below(5) == 0 {
            again(image, numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgstream::digest::Digest;

    /// Another image, and no count could be compared with its baseline any more.
    #[test]
    fn the_image_is_always_the_same() {
        let image = image(1 << 20);
        assert_eq!(image.len(), 1 << 20);
        assert_eq!(Digest::of(&image).hex(), "faa580142fa7d2d44374714fb97607f279049edc928fac22e8e6030be765ef3f");
    }
}
