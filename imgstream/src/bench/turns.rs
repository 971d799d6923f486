//! What it costs to be led along a map of many extents: runs with such a map and runs with one extent, in pairs that take turns, so
//! that a machine which is slower for a while is so for both.

use super::findings::{Spread, Turns};
use super::meter::Sample;
use crate::error::Result;

/// Pairs per run that was asked for. Those of the device alone are so much shorter than a run.
pub(super) const PAIRS: usize = 8;

/// Runs `once`, which is given a number of extents, `pairs` times with one and with `extents`, after one pair that warms up. `None`
/// of no pairs.
pub(super) async fn take(
    pairs: usize,
    extents: usize,
    mut once: impl AsyncFnMut(usize) -> Result<Sample>,
) -> Result<Option<Turns>> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for pair in 0..=pairs {
        let mut halves = [(1, &mut one), (extents, &mut many)];
        // Whoever comes second finds another machine than whoever came first.
        if pair % 2 == 1 {
            halves.reverse();
        }
        for (extents, samples) in halves {
            let sample = once(extents).await?;
            samples.extend((pair > 0).then_some(sample));
        }
    }
    Ok(compared(&one, &many))
}

fn compared(one: &[Sample], many: &[Sample]) -> Option<Turns> {
    let ratios = |of: fn(&Sample) -> f64| Spread::of(one.iter().zip(many).map(|(one, many)| of(many) / of(one)));
    Some(Turns {
        one: Spread::of(one.iter().map(Sample::rate))?,
        many: Spread::of(many.iter().map(Sample::rate))?,
        rate_ratio: ratios(Sample::rate)?,
        cpu_ratio: ratios(Sample::cpu_per_gib)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn halves_take_turns_and_the_first_pair_does_not_count() {
        let mut asked = Vec::new();
        let once = async |extents: usize| {
            asked.push(extents);
            let seconds = if asked.len() <= 2 { 9.0 } else { 1.0 + extents as f64 / 100.0 };
            Ok(Sample { bytes: 1e9, seconds, cpu: extents as f64 })
        };
        let turns = take(3, 100, once).await.unwrap().unwrap();
        assert_eq!(asked, [1, 100, 100, 1, 1, 100, 100, 1]);
        assert_eq!((turns.one.samples, turns.many.samples), (3, 3));
        assert_eq!((turns.cpu_ratio.median.round(), (turns.rate_ratio.median * 1e3).round()), (100.0, 505.0));
        assert!(take(0, 100, async |_| Ok(Sample { bytes: 1.0, seconds: 1.0, cpu: 1.0 })).await.unwrap().is_none());
    }
}
