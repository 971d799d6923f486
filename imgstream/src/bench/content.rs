//! Bytes that zstd packs at a chosen ratio, without being trivial to decode.
//!
//! They are made as zstd sees data: runs of literals, and copies of something earlier. One number, the redundancy, moves
//! from noise (nothing can be packed) to long copies of nearly uniform letters; which redundancy gives the ratio that is
//! asked for is found by packing samples. Real images of the same ratio decode about as fast, as they are made of the same
//! parts; zeros, which would decode at the speed of memory, do not occur.

use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use crate::error::{Error, Result};

/// Ratios that can be asked for.
pub const RATIOS: std::ops::RangeInclusive<f64> = 1.0..=16.0;

/// How often the redundancy's interval is halved to find a ratio.
const HALVINGS: u32 = 12;
/// Raw bytes that are packed to see what a redundancy gives.
const SAMPLE: usize = 2 << 20;
/// Copies reach back so far.
const REACH: f64 = 262_144.0;

/// How to make bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    redundancy: f64,
}

impl Content {
    /// Bytes that pack `ratio` : 1 at `level` in chunks of `chunk_size`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] when the ratio is none of [`RATIOS`].
    pub(super) fn with_ratio(ratio: f64, chunk_size: usize, level: i32) -> Result<Self> {
        if !RATIOS.contains(&ratio) {
            let (least, most) = (RATIOS.start(), RATIOS.end());
            return Err(Error::usage(format!("a ratio of {ratio}; {least} to {most} can be made")));
        }
        let mut compressor = Compressor::new(level)?;
        let mut raw = vec![0; chunk_size];
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let content = Content { redundancy: (low + high) / 2.0 };
            let (mut all, mut packed) = (0, 0);
            for seed in 0..(SAMPLE / chunk_size).clamp(1, 8) {
                content.fill(seed as u64, &mut raw);
                all += raw.len();
                packed += compressor.frame(&raw)?.len();
            }
            let is_packed_less = (all as f64) < ratio * packed as f64;
            *(if is_packed_less { &mut low } else { &mut high }) = content.redundancy;
        }
        // Pure noise packs a hair worse than 1 : 1, so that no redundancy at all is right for it.
        Ok(Content { redundancy: if ratio <= 1.0 { 0.0 } else { high } })
    }

    /// Fills `into`; the same seed gives the same bytes.
    pub(super) fn fill(&self, seed: u64, into: &mut [u8]) {
        let mut chance = Chance::new(seed);
        // Literals first: there is nothing to copy yet.
        let mut at = self.literals(&mut chance, into, 0, 256);
        while at < into.len() {
            at = if chance.is(self.redundancy) {
                self.copy(&mut chance, into, at)
            } else {
                self.literals(&mut chance, into, at, 16)
            };
        }
    }

    /// Some literals: the more redundancy, the more of them are letters, and few of these are frequent.
    fn literals(&self, chance: &mut Chance, into: &mut [u8], at: usize, most: usize) -> usize {
        let end = (at + 1 + chance.below(most)).min(into.len());
        for byte in &mut into[at..end] {
            let word = chance.next();
            let letter = (word as u8 & 31) & (word >> 8) as u8;
            *byte = if chance.is(self.redundancy) { b'`' + letter } else { (word >> 16) as u8 };
        }
        end
    }

    /// A copy of something earlier, near more often than far.
    fn copy(&self, chance: &mut Chance, into: &mut [u8], at: usize) -> usize {
        let longest = 8.0 + 120.0 * self.redundancy.powi(2) + 900.0 * self.redundancy.powi(10);
        let len = (6 + chance.below(longest as usize)).min(into.len() - at).min(at);
        let reach = (at as f64).min(REACH) / len as f64;
        let distance = ((len as f64 * reach.powf(chance.unit())) as usize).clamp(len, at);
        into.copy_within(at - distance..at - distance + len, at);
        at + len
    }
}

/// Packs chunks as `imgstream pack` does.
pub(super) struct Compressor(CCtx<'static>);

impl Compressor {
    pub(super) fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::create();
        for parameter in
            [CParameter::CompressionLevel(level), CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(false)]
        {
            context.set_parameter(parameter).map_err(|code| refused(level, code))?;
        }
        Ok(Compressor(context))
    }

    pub(super) fn frame(&mut self, raw: &[u8]) -> Result<Vec<u8>> {
        let mut frame = Vec::with_capacity(compress_bound(raw.len()));
        self.0.compress2(&mut frame, raw).map_err(|code| refused(0, code))?;
        frame.shrink_to_fit();
        Ok(frame)
    }
}

fn refused(level: i32, code: usize) -> Error {
    Error::device(format!("zstd refuses to pack a synthetic image (level {level}): {}", get_error_name(code)))
}

/// Cheap random numbers (xorshift64*): content needs variety, not secrecy.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d);
        (0..4).for_each(|_| _ = chance.next());
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() & 0xff_ffff) as f64 / f64::from(1 << 24)
    }

    fn is(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_one_asked_for() {
        let level = crate::pack::DEFAULT_LEVEL;
        for chunk_size in [64 << 10, 2 << 20] {
            for ratio in [1.0, 1.5, 3.0, 6.0, 16.0] {
                let content = Content::with_ratio(ratio, chunk_size, level).unwrap();
                let mut raw = vec![0; chunk_size];
                content.fill(1_000_003, &mut raw);
                let found = chunk_size as f64 / Compressor::new(level).unwrap().frame(&raw).unwrap().len() as f64;
                assert!((found / ratio - 1.0).abs() < 0.1, "{found} instead of {ratio} in chunks of {chunk_size}");
            }
        }
    }

    #[test]
    fn ratios_that_cannot_be_made_are_refused() {
        for ratio in [0.5, 17.0, f64::NAN] {
            assert!(Content::with_ratio(ratio, 1 << 16, 3).is_err());
        }
    }
}
