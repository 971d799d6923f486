//! Sizes as people write them, and figures as people read them.

/// Bytes in one KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in one MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in one GiB.
pub const GIB: u64 = 1 << 30;

const SUFFIXES: [(&str, u64); 4] = [("TiB", GIB << 10), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];

/// Parses `8GiB`, `512MiB`, `4096`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is no size: write a number with KiB, MiB, GiB or TiB");
    let (digits, unit) = SUFFIXES
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, *unit)))
        .unwrap_or((text, 1));
    let number: u64 = digits.trim().parse().map_err(|_| refuse())?;
    number.checked_mul(unit).filter(|size| *size > 0).ok_or_else(refuse)
}

/// The shortest exact name of a size (`8GiB`), also used in file names.
pub fn size_name(bytes: u64) -> String {
    SUFFIXES
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(suffix, unit)| format!("{}{suffix}", bytes / unit))
}

/// Bytes as MiB, rounded.
pub fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / MIB as f64)
}

/// Bytes as GiB with two decimals.
pub fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / GIB as f64)
}

/// A rate in MiB/s.
pub fn rate(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{:.0}", bytes as f64 / MIB as f64 / seconds) } else { "–".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_both_ways() {
        for text in ["8GiB", "1TiB", "512MiB", "4KiB", "4097"] {
            assert_eq!(size_name(parse_size(text).unwrap()), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "GiB", "0", "-1GiB", "8GB", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
