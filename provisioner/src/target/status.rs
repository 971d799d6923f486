//! The state of a multipath map, as the kernel words it.
//!
//! Source: `multipath_status` in the kernel's `drivers/md/dm-mpath.c`: features, hardware handler, then groups, each with its
//! state, its selector's own words, and its paths; every list is preceded by its length.

use crate::block::Number;

/// One path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStatus {
    /// The device.
    pub number: Number,
    /// Whether it is used.
    pub active: bool,
    /// How often it has failed.
    pub failures: u64,
}

/// All paths of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// In the order of their groups.
    pub paths: Vec<PathStatus>,
}

struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn number(&mut self) -> Option<usize> {
        self.next()?.parse().ok()
    }

    /// Passes over a list that is preceded by its length.
    fn skip_list(&mut self) -> Option<()> {
        let len = self.number()?;
        self.skip(len)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }
}

impl Status {
    /// Reads what `dmsetup status` prints; `None` when it is no multipath map's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = Words(text.split_whitespace());
        // Printed with the name where all maps were asked for.
        let first = words.next()?;
        if first.ends_with(':') {
            words.next()?;
        }
        words.next()?;
        if words.next()? != "multipath" {
            return None;
        }
        words.skip_list()?;
        words.skip_list()?;
        let groups = words.number()?;
        words.next()?;
        let mut paths = Vec::new();
        for _ in 0..groups {
            words.next()?;
            words.skip_list()?;
            let (count, selector_words) = (words.number()?, words.number()?);
            for _ in 0..count {
                let number = words.next()?.parse().ok()?;
                let active = words.next()? == "A";
                let failures = words.next()?.parse().ok()?;
                words.skip(selector_words)?;
                paths.push(PathStatus { number, active, failures });
            }
        }
        Some(Status { paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(minor: u64, active: bool, failures: u64) -> PathStatus {
        PathStatus { number: Number { major: 8, minor }, active, failures }
    }

    #[test]
    fn one_group_of_two_paths() {
        let text = "0 131072 multipath 2 0 1 0 1 1 A 0 2 2 8:0 F 1 0 1 8:16 A 0 0 1 \n";
        assert_eq!(Status::parse(text).unwrap().paths, [path(0, false, 1), path(16, true, 0)]);
        let named = format!("36005: {text}");
        assert_eq!(Status::parse(&named), Status::parse(text));
    }

    #[test]
    fn groups_handlers_and_selectors_with_words_of_their_own() {
        let text = "0 8 multipath 2 0 0 1 alua 2 1 A 0 1 0 8:0 A 0 E 1 x 1 2 8:16 A 7 1 2";
        assert_eq!(Status::parse(text).unwrap().paths, [path(0, true, 0), path(16, true, 7)]);
        assert_eq!(Status::parse("0 8 multipath 2 0 0 0 0 1").unwrap().paths, []);
    }

    #[test]
    fn what_is_no_multipath_map_is_none() {
        let whole = "0 131072 multipath 2 0 1 0 1 1 A 0 2 2 8:0 F 1 0 1 8:16 A 0 0 1";
        for len in 0..whole.len() - 2 {
            let cut = Status::parse(&whole[..len]);
            assert!(cut.is_none_or(|status| status.paths.len() <= 2));
        }
        assert_eq!((Status::parse("0 8 linear 8:0 0"), Status::parse("")), (None, None));
    }
}
