//! The key of a run and an epoch, and what the keys on a LUN mean to it.

use imgstream::digest::Digest;
use protocol::RunId;

use crate::target::scsi::persistent::Key;

/// First byte of every key of ours: a person who reads keys at a storage console sees whose they are.
const MARK: u8 = b'z';

/// The key of a run's epoch: the mark, 40 bits of the run's name, 16 bits of the epoch. Never 0, which means "none".
pub fn run_key(run: &RunId, epoch: u32) -> Key {
    let digest = Digest::of(format!("z-provisioner reservation {run}").as_bytes());
    let name = digest.as_bytes().iter().take(5).fold(u64::from(MARK), |key, byte| key << 8 | u64::from(*byte));
    Key(name << 16 | u64::from(epoch & 0xffff))
}

/// Whose a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// This run's, of this epoch.
    Own,
    /// This run's, of a lower epoch.
    Earlier,
    /// This run's, of a higher epoch.
    Later(u32),
    /// Somebody else's.
    Foreign,
}

/// Whose `key` is, for the holder of `own`.
pub(super) fn whose(key: Key, own: Key) -> Whose {
    let epoch = |key: Key| (key.0 & 0xffff) as u32;
    match () {
        () if key.0 >> 16 != own.0 >> 16 => Whose::Foreign,
        () if epoch(key) == epoch(own) => Whose::Own,
        () if epoch(key) < epoch(own) => Whose::Earlier,
        () => Whose::Later(epoch(key)),
    }
}

/// Whether a key is one of ours, whatever its run.
pub(super) fn is_ours(key: Key) -> bool {
    (key.0 >> 56) as u8 == MARK
}

/// Different keys, in order.
pub(super) fn distinct(keys: &[Key]) -> Vec<Key> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> RunId {
        RunId::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn a_key_says_whose_it_is() {
        let own = run_key(&run("lpar-17"), 3);
        assert_eq!(own.0 >> 56, u64::from(b'z'));
        assert_eq!(own.0 & 0xffff, 3);
        assert!(is_ours(own) && !is_ours(Key(0xaaa)));
        assert_eq!(whose(own, own), Whose::Own);
        assert_eq!(whose(run_key(&run("lpar-17"), 2), own), Whose::Earlier);
        assert_eq!(whose(run_key(&run("lpar-17"), 9), own), Whose::Later(9));
        assert_eq!(whose(run_key(&run("lpar-18"), 3), own), Whose::Foreign);
        assert_eq!(whose(Key(1), own), Whose::Foreign);
        assert_eq!(distinct(&[Key(2), Key(1), Key(2)]), [Key(1), Key(2)]);
    }

    #[test]
    fn the_key_of_a_run_stays_what_it_is() {
        // Agents of different versions must fence each other.
        assert_eq!(run_key(&run("r-1"), 1).to_string(), KEY_OF_R1);
    }

    const KEY_OF_R1: &str = "0x7a6025dd5df40001";
}
