//! Axes: round ticks, and numbers → positions.

use super::units::sane;

/// A linear axis that starts at zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Where it ends; a tick.
    pub end: f64,
    /// The ticks, zero first.
    pub ticks: Vec<f64>,
    decimals: usize,
}

impl Axis {
    /// An axis that holds `largest`, with about `about` steps of 1, 2 or 5 times a power of ten.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn up_to(largest: f64, about: usize) -> Self {
        // Below and above this, powers of ten are no longer numbers.
        let largest = sane(largest).min(1e300);
        let largest = if largest < 1e-300 { 1.0 } else { largest };
        let rough = largest / about.max(1) as f64;
        let exponent = rough.log10().floor();
        let power = 10f64.powf(exponent);
        // The step that leaves least air above; of two alike, the one with fewer ticks.
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let count = (largest / step - 1e-9).ceil().clamp(1.0, 20.0) as usize;
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let ticks: Vec<f64> = (0..=count).map(|tick| tick as f64 * step).collect();
        Axis { end: count as f64 * step, ticks, decimals }
    }

    /// The same, but ending where the numbers end rather than at a tick.
    pub fn cut_at(mut self, largest: f64) -> Self {
        if sane(largest) > 0.0 {
            self.end = sane(largest).min(self.end);
            self.ticks.retain(|tick| *tick <= self.end);
        }
        self
    }

    /// Position of `value` on an axis of this many pixels.
    pub fn at(&self, value: f64, pixels: f64) -> f64 {
        (sane(value) / self.end).min(1.0) * pixels
    }

    /// A tick as text.
    pub fn label(&self, tick: f64) -> String {
        // What no machine does is not worth the room of all its zeros.
        let usual = self.end < 1e6 && self.decimals < 4;
        if usual || tick == 0.0 {
            format!("{tick:.*}", if usual { self.decimals } else { 0 })
        } else {
            format!("{tick:.0e}")
        }
    }
}

/// Positions from 0 to 1 of values that double rather than add up; evenly where they are no such numbers.
#[allow(clippy::cast_precision_loss)]
pub fn doubling(numbers: &[Option<u64>]) -> Vec<f64> {
    let logs: Option<Vec<f64>> =
        numbers.iter().map(|number| number.filter(|number| *number > 0).map(|number| (number as f64).log2())).collect();
    let range = logs.as_ref().and_then(|logs| Some((*logs.first()?, *logs.last()?)));
    match (logs, range) {
        (Some(logs), Some((first, last))) if logs.is_sorted_by(|a, b| a < b) && logs.len() > 1 => {
            logs.iter().map(|log| (log - first) / (last - first)).collect()
        }
        _ if numbers.len() > 1 => (0..numbers.len()).map(|i| i as f64 / (numbers.len() - 1) as f64).collect(),
        _ => vec![0.5; numbers.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let of = |largest, about| Axis::up_to(largest, about).ticks;
        assert_eq!(of(12.0, 6), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(of(1.45, 4), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(of(100.0, 4), [0.0, 50.0, 100.0]);
        assert_eq!(of(0.0, 4), of(1.0, 4));
        let cut = Axis::up_to(16.8, 4).cut_at(16.8);
        assert!((cut.end, cut.ticks.as_slice()) == (16.8, &[0.0, 5.0, 10.0, 15.0]));
        assert_eq!(Axis::up_to(1.45, 4).label(0.5), "0.5");
        assert_eq!(Axis::up_to(0.03, 3).label(0.01), "0.01");
        assert_eq!(Axis::up_to(40.0, 4).label(20.0), "20");
        assert_eq!(Axis::up_to(4e17, 4).label(1e17), "1e17");
    }

    #[test]
    fn any_number_has_an_axis() {
        for largest in [f64::NAN, f64::INFINITY, -5.0, 0.0, f64::MIN_POSITIVE, f64::MAX, 1e-9, 0.1 + 0.2, 7e17] {
            for about in [0, 1, 3, 8] {
                let axis = Axis::up_to(largest, about);
                assert!(axis.ticks.len() >= 2 && axis.ticks.len() <= 21, "{largest} {about}: {axis:?}");
                assert!(axis.end.is_finite() && axis.end > 0.0, "{largest} {about}: {axis:?}");
                assert!(axis.ticks.iter().all(|tick| tick.is_finite()), "{largest} {about}: {axis:?}");
                let at = axis.at(largest, 100.0);
                assert!((0.0..=100.0).contains(&at), "{largest} {about}: {at}");
                if largest.is_finite() && largest < 1e300 {
                    assert!(axis.end >= largest * 0.999_999, "{largest} {about}: {axis:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_double_and_names_do_not() {
        assert_eq!(doubling(&[Some(1), Some(2), Some(4)]), [0.0, 0.5, 1.0]);
        assert_eq!(doubling(&[Some(1), Some(2), Some(16)]), [0.0, 0.25, 1.0]);
        assert_eq!(doubling(&[None, Some(2), Some(16)]), [0.0, 0.5, 1.0]);
        assert_eq!(doubling(&[Some(0), Some(2), Some(16)]), [0.0, 0.5, 1.0]);
        assert_eq!(doubling(&[Some(4), Some(2), Some(2)]), [0.0, 0.5, 1.0]);
        assert_eq!(doubling(&[Some(8)]), [0.5]);
        assert_eq!(doubling(&[]), [0.0; 0]);
    }
}
