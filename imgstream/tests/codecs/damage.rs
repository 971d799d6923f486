//! Damage to bytes that were good.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// One edit: at a place, some bytes go and some come.
pub type Edit = (Index, usize, Vec<u8>);

/// One to three edits: bytes that bit flips give, and words that readers stumble over.
pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let words = prop_oneof![
        vec(any::<u8>(), 0..5),
        proptest::sample::select(vec!["null", "-1", "18446744073709551616", "[]", "{}", "\"\"", "0", ":", ",", "1e9"])
            .prop_map(|word| word.as_bytes().to_vec()),
        any::<u64>().prop_map(|number| number.to_le_bytes().to_vec()),
    ];
    vec((any::<Index>(), 0..9usize, words), 1..4)
}

/// The bytes with these edits.
pub fn damaged(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, remove, insert) in edits {
        let at = at.index(bytes.len() + 1);
        let end = (at + remove).min(bytes.len());
        bytes.splice(at..end, insert.iter().copied());
    }
    bytes
}
