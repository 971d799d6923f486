//! Deterministic damage: the same seed gives the same inputs on every machine, so a failure can be had again.

/// Numbers at which readers break: ends of ranges, and what is next to them.
const NUMBERS: [u64; 18] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
/// By how much a number in a text may become another: one, a sector, a block, a chunk.
const STEPS: [u64; 4] = [1, 512, 4096, 65536];
/// Inputs grow no longer than this.
const LONGEST: usize = 8 << 10;

/// Damages inputs.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    words: &'static [&'static str],
}

impl Mutator {
    /// One that starts at `seed` and knows these words.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Mutator { state: seed, words }
    }

    /// One of the inputs, damaged one to eight times, perhaps with parts of another.
    ///
    /// # Panics
    /// Without inputs.
    pub fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        let other = &inputs[self.below(inputs.len())];
        for _ in 0..1 << self.below(4) {
            self.damage(&mut input, other);
        }
        input.truncate(LONGEST);
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        match self.below(10) {
            0 | 1 => self.change_byte(input, |byte, random| byte ^ (1 << (random % 8))),
            2 => self.change_byte(input, |_, random| random as u8),
            3 => input.truncate(at),
            4 => drop(input.drain(at..(at + self.below(16)).min(input.len()))),
            5 => self.put(input, at, &[0; 16]),
            6 => self.put_number(input, at),
            7 => self.put_word(input, at),
            8 => {
                let own = input.clone();
                self.put(input, at, &own);
            }
            _ => self.put(input, at, other),
        }
    }

    fn change_byte(&mut self, input: &mut [u8], change: impl Fn(u8, u64) -> u8) {
        if input.is_empty() {
            return;
        }
        let at = self.below(input.len());
        input[at] = change(input[at], self.random());
    }

    /// Puts a piece of `from` in, either between what is there or over it.
    fn put(&mut self, input: &mut Vec<u8>, at: usize, from: &[u8]) {
        let start = self.below(from.len() + 1);
        let len = self.below(from.len() - start + 1);
        self.put_all(input, at, &from[start..start + len]);
    }

    fn put_all(&mut self, input: &mut Vec<u8>, at: usize, piece: &[u8]) {
        let over = if self.below(2) == 0 { 0 } else { piece.len() };
        input.splice(at..(at + over).min(input.len()), piece.iter().copied());
    }

    fn put_number(&mut self, input: &mut Vec<u8>, at: usize) {
        let number = NUMBERS[self.below(NUMBERS.len())];
        let width = 1 << self.below(4);
        match self.below(4) {
            0 => self.put_all(input, at, &number.to_le_bytes()[..width]),
            1 => self.put_all(input, at, &number.to_be_bytes()[8 - width..]),
            2 => replace_digits(input, at, |_| number.to_string()),
            _ => {
                let step = STEPS[self.below(STEPS.len())];
                let add = self.below(2) == 0;
                let stepped = |old: u64| if add { old.wrapping_add(step) } else { old.wrapping_sub(step) };
                replace_digits(input, at, |digits| {
                    digits.parse().map_or(digits.into(), |old| stepped(old).to_string())
                });
            }
        }
    }

    fn put_word(&mut self, input: &mut Vec<u8>, at: usize) {
        let word = self.words[self.below(self.words.len())];
        if self.below(2) == 0 {
            replace_digits(input, at, |_| word.into());
        } else {
            self.put_all(input, at, word.as_bytes());
        }
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.random() % end as u64) as usize
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Replaces the first decimal number at or after `at` by other text: what a bit flip never does to a text.
fn replace_digits(input: &mut Vec<u8>, at: usize, other: impl FnOnce(&str) -> String) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let digits: String =
        input[start..].iter().map_while(|byte| byte.is_ascii_digit().then_some(*byte as char)).collect();
    input.splice(start..start + digits.len(), other(&digits).bytes());
}
