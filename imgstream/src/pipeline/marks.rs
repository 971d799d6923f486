//! A mark per chunk, span by span: a bit each, so that even a terabyte of small chunks takes little.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Marked chunks, by number of span and chunk.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<BTreeMap<usize, Vec<u64>>>);

impl Marks {
    /// Marks those of a span's `chunks` that are not among `but`, which is in order.
    pub(super) fn set(&self, span: usize, chunks: Range<usize>, but: &[usize]) {
        let mut marks = self.lock();
        let bits = marks.entry(span).or_default();
        bits.resize(bits.len().max(chunks.end.div_ceil(64)), 0);
        for chunk in chunks.filter(|chunk| but.binary_search(chunk).is_err()) {
            bits[chunk / 64] |= 1 << (chunk % 64);
        }
    }

    /// Whether a chunk is marked.
    pub(super) fn has(&self, span: usize, chunk: usize) -> bool {
        let marks = self.lock();
        marks.get(&span).and_then(|bits| bits.get(chunk / 64)).is_some_and(|bits| bits >> (chunk % 64) & 1 == 1)
    }

    // Bits are set one by one, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_and_nothing_else() {
        let marks = Marks::default();
        marks.set(1, 60..70, &[63, 64]);
        marks.set(1, 0..2, &[]);
        let marked: Vec<usize> = (0..200).filter(|chunk| marks.has(1, *chunk)).collect();
        assert_eq!(marked, [0, 1, 60, 61, 62, 65, 66, 67, 68, 69]);
        assert!(!marks.has(0, 0));
    }
}
