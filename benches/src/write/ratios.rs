//! How many times as long one way took as another, run by run of the same round.

use crate::measure::Usage;
use crate::stats::Spread;
use crate::write::rounds::Series;

/// The spread of the ratios of `figure`, `series` over `base`.
pub fn of(series: &Series, base: &Series, figure: fn(&Usage) -> f64) -> Option<Spread> {
    let figures = |series: &Series| series.samples.iter().map(|sample| figure(&sample.usage)).collect::<Vec<_>>();
    pairs(&figures(series), &figures(base))
}

/// The spread of the ratios of what was measured in the same round; rounds that one of them lacks do not count.
pub fn pairs(figures: &[f64], base: &[f64]) -> Option<Spread> {
    Spread::of(figures.iter().zip(base).filter(|(_, base)| **base > 0.0).map(|(figure, base)| figure / base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let ratios = pairs(&[4.0, 3.0, 10.0], &[2.0, 3.0]).unwrap();
        assert_eq!((ratios.median, ratios.min, ratios.max, ratios.samples), (1.5, 1.0, 2.0, 2));
        assert_eq!(pairs(&[], &[1.0]), None);
        assert_eq!(pairs(&[1.0], &[0.0]), None);
    }
}
