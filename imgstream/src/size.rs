//! Byte counts as people write and read them: `4096`, `2MiB`, `7.1 GiB`. Binary units only, as disks are cut.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) =
            UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
        let number = number.trim_end();
        let all_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = all_digits.then(|| number.parse::<u64>().ok()?.checked_mul(unit)).flatten();
        bytes.map(Size).ok_or_else(|| {
            format!("{text:?} is not a size: write whole bytes or a number with KiB, MiB, GiB or TiB, such as 2MiB")
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, unit) = UNITS.iter().find(|(_, unit)| self.0 >= *unit).unwrap_or(&UNITS[4]);
        if self.0.is_multiple_of(*unit) {
            write!(f, "{} {suffix}", self.0 / unit)
        } else {
            #[allow(clippy::cast_precision_loss)]
            let value = self.0 as f64 / *unit as f64;
            write!(f, "{value:.1} {suffix}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("2MiB", 2 << 20), ("1 GiB", 1 << 30), ("3TiB", 3 << 40)] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)));
        }
        for text in ["", "MiB", "-1", "1.5MiB", "2MB", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size(2 << 20).to_string(), "2 MiB");
        assert_eq!(Size(1_500_000_000).to_string(), "1.4 GiB");
    }
}
