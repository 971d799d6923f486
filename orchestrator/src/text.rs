//! Values in words for people. Whatever comes from outside loses its control characters here: it ends on a terminal.

use std::fmt;

/// Characters of one text that are shown. Some of it may come from a server, which could go on for ever.
const MAX_TEXT: usize = 4096;

/// Text as a terminal and a log may show it: control characters, line ends, and those that turn the direction of writing could say what
/// nobody said.
pub fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(end, _)| end);
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace(harmful, "\u{fffd}") + cut
}

/// Bytes as people say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            None => write!(f, "{} B", self.0),
            Some((suffix, unit)) if self.0.is_multiple_of(*unit) => write!(f, "{} {suffix}", self.0 / unit),
            Some((suffix, unit)) => {
                #[allow(clippy::cast_precision_loss)]
                let value = self.0 as f64 / *unit as f64;
                write!(f, "{value:.1} {suffix}")
            }
        }
    }
}

/// Whole percent, 100 only when all is done.
pub fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 100,
        _ => u64::try_from(u128::from(part.min(whole)) * 100 / u128::from(whole)).unwrap_or(100),
    }
}

/// Seconds as people say them.
pub fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s:02} s"),
        (0, h, m, _) => format!("{h} h {m:02} min"),
        (d, h, _, _) => format!("{d} d {h:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_does_not_write_on_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2J\r\nb\u{9b}\u{202e}\u{2028}ä…"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}ä…"
        );
        let long = printable(&"é".repeat(1 << 20));
        assert!(long.chars().count() == MAX_TEXT + 1 && long.ends_with('…'));
    }

    #[test]
    fn numbers_read_well() {
        let sizes = [0, 1023, 1 << 20, 1_500_000_000, 3 << 40].map(|bytes| Size(bytes).to_string());
        assert_eq!(sizes, ["0 B", "1023 B", "1 MiB", "1.4 GiB", "3 TiB"]);
        assert_eq!([0, 59, 61, 7260, 90_000].map(duration), ["0 s", "59 s", "1 min 01 s", "2 h 01 min", "1 d 01 h"]);
        assert_eq!(
            (percent(999, 1000), percent(1, 1), percent(0, 0), percent(u64::MAX, u64::MAX)),
            (99, 100, 100, 100)
        );
    }
}
