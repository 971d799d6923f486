//! A message on its way through a function of the SHA-2 family: cut into whole blocks, counted, padded at its end
//! (FIPS 180-4, section 5.1). Who compresses the blocks is the caller's; no unsafe code here.

use ring::digest::{Algorithm, SHA256};

/// Bytes of the largest block.
const MAX_BLOCK: usize = 128;

/// One function of the family, and how KIMD calls it.
pub(super) struct Function {
    pub code: Code,
    pub block_len: usize,
    pub digest_len: usize,
    /// Bytes of the message's length in bits, at the end of the last block.
    length_len: usize,
    initial: State,
    /// The digest of "abc" (FIPS 180-4's example).
    of_abc: &'static [u8],
    /// Another implementation, to compare with.
    pub reference: &'static Algorithm,
}

/// KIMD's function codes. Its parameter block is the state: 32 and 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Code {
    Sha256 = 2,
    #[cfg(test)]
    Sha512 = 3,
}

/// The words between two blocks, most significant byte first. SHA-256 uses the first half.
#[derive(Clone)]
#[repr(C, align(8))]
pub(super) struct State(pub [u8; 64]);

impl State {
    /// What is the digest once the last block is through.
    pub fn of(&self, function: &Function) -> &[u8] {
        &self.0[..function.digest_len]
    }
}

/// Takes a whole number of blocks into the state.
pub(super) type Compress = fn(&Function, &mut State, &[u8]);

pub(super) static SHA_256: Function = Function {
    code: Code::Sha256,
    block_len: 64,
    digest_len: 32,
    length_len: 8,
    initial: State(big_endian(INITIAL, 4)),
    of_abc: &[
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03,
        0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
    ],
    reference: &SHA256,
};

#[cfg(test)]
pub(super) static SHA_512: Function = Function {
    code: Code::Sha512,
    block_len: 128,
    digest_len: 64,
    length_len: 16,
    initial: State(big_endian(INITIAL, 8)),
    of_abc: &[
        0xdd, 0xaf, 0x35, 0xa1, 0x93, 0x61, 0x7a, 0xba, 0xcc, 0x41, 0x73, 0x49, 0xae, 0x20, 0x41, 0x31, 0x12, 0xe6,
        0xfa, 0x4e, 0x89, 0xa9, 0x7e, 0xa2, 0x0a, 0x9e, 0xee, 0xe6, 0x4b, 0x55, 0xd3, 0x9a, 0x21, 0x92, 0x99, 0x2a,
        0x27, 0x4f, 0xc1, 0xa8, 0x36, 0xba, 0x3c, 0x23, 0xa3, 0xfe, 0xeb, 0xbd, 0x45, 0x4d, 0x44, 0x23, 0x64, 0x3c,
        0xe8, 0x0e, 0x2a, 0x9a, 0xc9, 0x4f, 0xa5, 0x4c, 0xa4, 0x9f,
    ],
    reference: &ring::digest::SHA512,
};

/// The fractions of the square roots of the first eight primes (FIPS 180-4, section 5.3.5). SHA-256 starts with their
/// upper halves.
const INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// The first `width` bytes of each word, one after the other.
const fn big_endian(words: [u64; 8], width: usize) -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < 8 * width {
        bytes[at] = words[at / width].to_be_bytes()[at % width];
        at += 1;
    }
    bytes
}

/// A message of which some bytes have come.
#[derive(Clone)]
pub(super) struct Message {
    function: &'static Function,
    compress: Compress,
    state: State,
    /// The beginning of a block that is not whole yet.
    pending: [u8; MAX_BLOCK],
    pending_len: usize,
    /// Bytes so far.
    length: u64,
}

impl Message {
    /// Of no bytes yet.
    pub fn new(function: &'static Function, compress: Compress) -> Self {
        let state = function.initial.clone();
        Message { function, compress, state, pending: [0; MAX_BLOCK], pending_len: 0, length: 0 }
    }

    /// Adds bytes. Whole blocks go from where they are, all at once.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let block_len = self.function.block_len;
        self.length += bytes.len() as u64;
        if self.pending_len > 0 {
            let taken;
            (taken, bytes) = bytes.split_at(bytes.len().min(block_len - self.pending_len));
            self.keep(taken);
            if self.pending_len < block_len {
                return;
            }
            self.compress_pending();
        }
        let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % block_len);
        if !blocks.is_empty() {
            (self.compress)(self.function, &mut self.state, blocks);
        }
        self.keep(rest);
    }

    /// The state after the last block: a one bit, zeros, the length.
    pub fn finish(mut self) -> State {
        let Function { block_len, length_len, .. } = *self.function;
        let bits = u128::from(self.length) * 8;
        self.keep(&[0x80]);
        if self.pending_len + length_len > block_len {
            self.pending[self.pending_len..].fill(0);
            self.compress_pending();
        }
        self.pending[self.pending_len..].fill(0);
        let length = bits.to_be_bytes();
        self.pending[block_len - length_len..block_len].copy_from_slice(&length[length.len() - length_len..]);
        self.compress_pending();
        self.state
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.pending[self.pending_len..][..bytes.len()].copy_from_slice(bytes);
        self.pending_len += bytes.len();
    }

    fn compress_pending(&mut self) {
        (self.compress)(self.function, &mut self.state, &self.pending[..self.function.block_len]);
        self.pending_len = 0;
    }
}

impl Function {
    /// Whether `compress` gives the digests it should: the known one of "abc", and those another implementation gives
    /// for messages of no, one and many blocks, in one piece and in two. The longest is more than an emulator does
    /// before it makes its caller come back. Takes about a millisecond.
    pub fn answers_right(&'static self, compress: Compress) -> bool {
        let digest = |head: &[u8], tail: &[u8]| {
            let mut message = Message::new(self, compress);
            message.update(head);
            message.update(tail);
            message.finish()
        };
        let right = |bytes: &[u8], cut: usize| {
            let (head, tail) = bytes.split_at(cut);
            digest(head, tail).of(self) == ring::digest::digest(self.reference, bytes).as_ref()
        };
        let pattern: Vec<u8> = (0..20_000u32).map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect();
        let block = self.block_len;
        let lengths = [0, 1, block - 1, block, block + 1, 3 * block, 5 * block + 17, pattern.len()];
        digest(b"abc", b"").of(self) == self.of_abc
            && lengths.into_iter().all(|length| right(&pattern[..length], 0) && right(&pattern[..length], length / 3))
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable;
    use super::*;
    use proptest::prelude::*;

    /// Everything that can compress here: portable code everywhere, the instruction for what it offers.
    fn every_way() -> Vec<(&'static Function, Compress)> {
        let mut ways = by_the_instruction();
        ways.extend([&SHA_256, &SHA_512].map(|function| (function, portable::compress as Compress)));
        ways
    }

    #[cfg(not(target_arch = "s390x"))]
    fn by_the_instruction() -> Vec<(&'static Function, Compress)> {
        Vec::new()
    }

    #[cfg(target_arch = "s390x")]
    fn by_the_instruction() -> Vec<(&'static Function, Compress)> {
        use super::super::cpacf;
        let offered: Vec<_> = [&SHA_256, &SHA_512].into_iter().filter(|function| cpacf::offers(function)).collect();
        assert!(!offered.is_empty(), "CPACF offers neither SHA-256 nor SHA-512 here: nothing to test it with");
        offered.into_iter().map(|function| (function, cpacf::compress as Compress)).collect()
    }

    /// The digest of the message that comes in pieces cut at `cuts`.
    fn digest(function: &'static Function, compress: Compress, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut message = Message::new(function, compress);
        let mut from = 0;
        for cut in cuts {
            message.update(&bytes[from..cut]);
            from = cut;
        }
        message.update(&bytes[from..]);
        message.finish().of(function).to_vec()
    }

    #[test]
    fn the_known_answers_of_the_standard() {
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        for (function, compress) in every_way() {
            assert_eq!(digest(function, compress, b"abc", &[]), function.of_abc, "{:?}", function.code);
            assert!(function.answers_right(compress), "{:?}", function.code);
            if function.code == Code::Sha256 {
                let hex: String =
                    digest(function, compress, two_blocks, &[]).iter().map(|b| format!("{b:02x}")).collect();
                assert_eq!(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
            }
        }
    }

    #[test]
    fn every_length_up_to_four_blocks() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4 * MAX_BLOCK + 1).collect();
        for (function, compress) in every_way() {
            for length in 0..=4 * function.block_len + 1 {
                let expected = ring::digest::digest(function.reference, &bytes[..length]);
                for cut in [0, 1, function.block_len - 1, function.block_len, length / 2] {
                    let ours = digest(function, compress, &bytes[..length], &[cut]);
                    assert_eq!(ours, expected.as_ref(), "{:?} of {length} bytes, cut at {cut}", function.code);
                }
            }
        }
    }

    #[test]
    fn a_message_longer_than_the_instruction_does_at_once() {
        let bytes: Vec<u8> = (0..2_000_003u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
        for (function, compress) in every_way() {
            let expected = ring::digest::digest(function.reference, &bytes);
            assert_eq!(digest(function, compress, &bytes, &[]), expected.as_ref(), "{:?}", function.code);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..1500),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            for (function, compress) in every_way() {
                let expected = ring::digest::digest(function.reference, &bytes);
                prop_assert_eq!(digest(function, compress, &bytes, &cuts), expected.as_ref(), "{:?}", function.code);
            }
        }
    }
}
