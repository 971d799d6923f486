//! What there is so much of and no more, such that nobody has all of it: watchers, and bytes of answers that wait to be taken.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One may have this many times what is left for the others.
const TIMES: usize = 3;

/// Something that callers share. One that is alone may have three quarters of it; the more there are, the less each may have, and there is
/// always something left for the next.
pub(super) struct Shares<K>(Arc<Of<K>>);

struct Of<K> {
    most: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    all: usize,
    by_one: HashMap<K, usize>,
}

/// What one has taken. It is free again when this is dropped.
pub(super) struct Share<K: Hash + Eq> {
    of: Arc<Of<K>>,
    who: K,
    many: usize,
}

/// What an answer holds, until it was taken: a share of whatever it is.
pub(super) type Held = Arc<dyn Send + Sync>;

impl<K: Hash + Eq> Of<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(super) fn new(most: usize) -> Self {
        Shares(Arc::new(Of { most, taken: Mutex::new(Taken { all: 0, by_one: HashMap::new() }) }))
    }

    /// How much is taken.
    pub(super) fn taken(&self) -> usize {
        self.0.taken().all
    }

    /// So much for this one, unless that leaves too little for others.
    pub(super) fn take(&self, who: K, many: usize) -> Option<Share<K>> {
        let mut taken = self.0.taken();
        let free = self.0.most.saturating_sub(taken.all);
        let own = taken.by_one.get(&who).copied().unwrap_or(0);
        let left = free.checked_sub(many)?;
        // Whoever has nothing yet has what there is.
        if own > 0 && own.saturating_add(many) > left.saturating_mul(TIMES) {
            return None;
        }
        taken.all += many;
        taken.by_one.insert(who.clone(), own + many);
        drop(taken);
        Some(Share { of: self.0.clone(), who, many })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.all -= self.many;
        if let Some(own) = taken.by_one.get_mut(&self.who) {
            *own -= self.many;
            if *own == 0 {
                taken.by_one.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_three_quarters_at_most_and_there_is_something_left_for_the_next() {
        let shares = Shares::new(256);
        let greedy = |who: usize| std::iter::from_fn(|| shares.take(who, 1)).collect::<Vec<_>>();
        let held: Vec<_> = (0..4).map(greedy).collect();
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [192, 48, 12, 3]);
        assert_eq!(shares.taken(), 255);
        assert!(shares.take(4, 1).is_some(), "the last one");
        drop(held);
        // Those that come at the same time have the same.
        let held: Vec<_> = (0..3 * 256).filter_map(|number| shares.take(number % 3, 1)).collect();
        let of = |who| held.iter().filter(|share| share.who == who).count();
        assert_eq!([of(0), of(1), of(2)], [77, 77, 76]);
        drop(held);
        assert!(shares.0.taken().by_one.is_empty() && shares.taken() == 0);
        assert!(shares.take(1, 257).is_none(), "more than there is");
        assert!(shares.take(1, 256).is_some(), "all of it, at once, is one");
    }
}
