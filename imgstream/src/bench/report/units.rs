//! How numbers are written: three digits that count, the unit a reader expects, never `NaN` or `inf`.

use crate::size::Size;

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * 1024.0;
const GIB: f64 = MIB * 1024.0;

/// What stands where a number makes no sense.
pub const NONE: &str = "–";

/// A unit of rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// Bytes per second in one of it.
    pub bytes: f64,
    /// Its name.
    pub name: &'static str,
}

impl Unit {
    /// The unit for an axis that goes up to `largest` bytes per second.
    pub fn of(largest: f64) -> Self {
        match largest {
            rate if rate >= GIB => Unit { bytes: GIB, name: "GiB/s" },
            rate if rate >= MIB => Unit { bytes: MIB, name: "MiB/s" },
            _ => Unit { bytes: KIB, name: "KiB/s" },
        }
    }
}

/// More than anything has been measured to be, and few enough to calculate with.
const MOST: f64 = 1e18;

/// The number if it is one that can be drawn: finite and not negative; zero otherwise.
pub fn sane(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value.min(MOST) } else { 0.0 }
}

/// Bytes of the raw image per second.
pub fn rate(bytes_per_second: f64) -> String {
    let rate = sane(bytes_per_second);
    if rate == 0.0 {
        return NONE.into();
    }
    let unit = Unit::of(rate);
    format!("{} {}", digits(rate / unit.bytes), unit.name)
}

/// Three digits that count; whole numbers from 100 on.
pub fn digits(value: f64) -> String {
    match sane(value) {
        value if value >= 1e6 => format!("{value:.0e}"),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        0.0 => "0".into(),
        value if value < 0.005 => "< 0.01".into(),
        value => format!("{value:.2}"),
    }
}

/// A duration.
pub fn seconds(seconds: f64) -> String {
    match sane(seconds) {
        0.0 => "0 s".into(),
        value if value < 0.000_999_5 => format!("{:.0} µs", (value * 1e6).max(1.0)),
        value if value < 0.0995 => format!("{:.1} ms", value * 1e3),
        value if value < 0.9995 => format!("{:.0} ms", value * 1e3),
        value if value < 9.95 => format!("{value:.2} s"),
        value if value < 99.5 => format!("{value:.1} s"),
        value if value < 600.0 => format!("{value:.0} s"),
        value => format!("{} min", digits(value / 60.0)),
    }
}

/// A share as per cent.
pub fn percent(share: f64) -> String {
    match sane(share) * 100.0 {
        share if share < 99.95 => format!("{share:.0} %"),
        share => format!("{} %", digits(share)),
    }
}

/// From the smallest to the largest rate, in the unit of the median.
pub fn span(median: f64, min: f64, max: f64) -> String {
    let unit = Unit::of(sane(median));
    format!("{} to {}", digits(min / unit.bytes), digits(max / unit.bytes))
}

/// Text in which no number is parted from its unit at the end of a line.
pub fn unparted(text: &str) -> String {
    let units = [" GiB", " MiB", " KiB", " %", " s ", " s,", " s.", " ms", " µs"];
    units.iter().fold(text.to_owned(), |text, unit| text.replace(unit, &unit.replacen(' ', "\u{a0}", 1)))
}

/// How many times as much.
pub fn times(ratio: f64) -> String {
    format!("{} ×", digits(ratio))
}

/// Bytes, and how many exactly.
pub fn bytes(count: u64) -> String {
    Size(count).to_string()
}

/// Bytes, of which nobody wants to know the tenths.
pub fn roughly(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let value = count as f64;
    if value >= 10.0 * GIB || (MIB..GIB).contains(&value) {
        let (unit, name) = if value >= GIB { (GIB, "GiB") } else { (MIB, "MiB") };
        return format!("{:.0} {name}", value / unit);
    }
    bytes(count)
}

/// `one thing`, `2 things`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(rate(1.384 * GIB), "1.38 GiB/s");
        assert_eq!(rate(845.4 * MIB), "845 MiB/s");
        assert_eq!(rate(12.0 * GIB), "12.0 GiB/s");
        assert_eq!(rate(3.0 * KIB), "3.00 KiB/s");
        assert_eq!(digits(99.97), "100");
        assert_eq!(digits(0.001), "< 0.01");
        assert_eq!(seconds(0.0412), "41.2 ms");
        assert_eq!(seconds(11.13), "11.1 s");
        assert_eq!(seconds(0.000_000_1), "1 µs");
        assert_eq!(seconds(252.0), "252 s");
        assert_eq!(percent(0.9231), "92 %");
        assert_eq!(roughly(84 << 20), "84 MiB");
        assert_eq!(roughly(1), "1 B");
        assert_eq!(count(1, "thread", "threads"), "1 thread");
    }

    #[test]
    fn what_is_no_number_is_not_shown_as_one() {
        for strange in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
            for text in [rate(strange), digits(strange), seconds(strange), percent(strange), times(strange)] {
                assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains('-'), "{strange}: {text}");
            }
        }
    }
}
