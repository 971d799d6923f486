//! Whether bytes are zeros, and where they are not.

/// Looked at together: a block of zeros is compared with, which becomes vector code.
const BLOCK: usize = 4096;

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(is_zero_block)
}

/// Where the first byte other than zero is.
pub(crate) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let block = bytes.chunks(BLOCK).position(|block| !is_zero_block(block))?;
    let start = block * BLOCK;
    bytes[start..].iter().position(|byte| *byte != 0).map(|within| start + within)
}

fn is_zero_block(block: &[u8]) -> bool {
    *block == [0; BLOCK][..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_recognised_and_what_is_none_is_found() {
        let mut bytes = vec![0; 10_000];
        assert!(is_zero(&bytes) && first_nonzero(&bytes).is_none());
        for at in [9_999, 4096, 4095, 0] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
            assert_eq!(first_nonzero(&bytes), Some(at));
        }
    }
}
