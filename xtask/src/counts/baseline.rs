//! The recorded counts, the tolerance, and what a difference means.
//!
//! More instructions than the tolerance allows is a failure whatever the circumstances. Far fewer is one too, because a
//! baseline that has become too high would hide the next slow-down, unless another compiler or library may be why: then
//! nobody who changed nothing has to do anything, and it is only said.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fail::{Fail, Outcome, Tried};

/// Percent. Counts of one build differ by less than a ten-thousandth of this from run to run; it is room for changes of
/// the code that are worth no discussion.
const TOLERANCE: f64 = 2.0;

const ABOUT: &str = "Instructions of each piece of work in benches/counts; written by `cargo xtask counts --bless`";

/// How many instructions a piece of work takes.
#[derive(Debug)]
pub struct Count {
    /// What work.
    pub name: String,
    /// How many.
    pub instructions: u64,
}

/// A baseline file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    about: String,
    tolerance_percent: f64,
    /// What it was made with.
    pub made_with: MadeWith,
    instructions: BTreeMap<String, u64>,
}

/// What counts depend on besides the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeWith {
    /// The Rust compiler.
    pub rustc: String,
    /// The C compiler, which compiles zstd.
    pub cc: String,
    /// The C library: copying and comparing memory are its functions.
    pub libc: String,
    /// What counts.
    pub valgrind: String,
    /// Extensions of the processor that valgrind shows, by which zstd, ring and the C library choose their inner loops.
    pub processor: String,
}

impl MadeWith {
    /// How `self`, the baseline's, differs from today's.
    pub fn differences(&self, today: &MadeWith) -> Vec<String> {
        let pairs = [
            (&self.rustc, &today.rustc),
            (&self.cc, &today.cc),
            (&self.libc, &today.libc),
            (&self.valgrind, &today.valgrind),
            (&self.processor, &today.processor),
        ];
        pairs.iter().filter(|(then, now)| then != now).map(|(then, now)| format!("{now} instead of {then}")).collect()
    }
}

impl Baseline {
    /// The baseline in `file`, if there is one.
    pub fn read(file: &Path) -> Outcome<Option<Self>> {
        let tried = format!("read the baseline {}", file.display());
        match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).tried(tried),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).tried(tried),
        }
    }

    /// Writes it for people to read.
    pub fn write(&self, file: &Path) -> Outcome<()> {
        let tried = format!("write the baseline {}", file.display());
        let text = serde_json::to_string_pretty(self).tried(&tried)?;
        std::fs::write(file, text + "\n").tried(&tried)
    }

    /// Sets every count beside its baseline: the counted ones in their order, then those that are gone.
    pub fn compare(&self, counts: &[Count]) -> Vec<Comparison> {
        let counted = counts.iter().map(|Count { name, instructions }| {
            Comparison::new(name, self.instructions.get(name).copied(), Some(*instructions), self.tolerance_percent)
        });
        let gone = self.instructions.iter().filter(|(name, _)| counts.iter().all(|count| count.name != **name));
        let gone = gone.map(|(name, then)| Comparison::new(name, Some(*then), None, self.tolerance_percent));
        counted.chain(gone).collect()
    }
}

/// A new baseline from today's counts; the tolerance stays.
pub fn bless(old: Option<Baseline>, made_with: MadeWith, counts: &[Count]) -> Baseline {
    let instructions = counts.iter().map(|count| (count.name.clone(), count.instructions)).collect();
    let tolerance_percent = old.map_or(TOLERANCE, |old| old.tolerance_percent);
    Baseline { about: ABOUT.into(), tolerance_percent, made_with, instructions }
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Fine,
    /// More instructions than the tolerance allows.
    Slower,
    /// So many fewer that the baseline guards nothing any more.
    Faster,
    /// Not in the baseline.
    New,
    /// Only in the baseline.
    Gone,
}

/// One piece of work, then and now.
#[derive(Debug)]
pub struct Comparison {
    name: String,
    then: Option<u64>,
    now: Option<u64>,
    verdict: Verdict,
}

impl Comparison {
    fn new(name: &str, then: Option<u64>, now: Option<u64>, tolerance: f64) -> Self {
        let verdict = match (then, now) {
            (None, _) => Verdict::New,
            (_, None) => Verdict::Gone,
            (Some(then), Some(now)) if percent(then, now) > tolerance => Verdict::Slower,
            (Some(then), Some(now)) if percent(then, now) < -tolerance => Verdict::Faster,
            _ => Verdict::Fine,
        };
        Comparison { name: name.to_owned(), then, now, verdict }
    }

    fn change(&self) -> Option<f64> {
        Some(percent(self.then?, self.now?))
    }
}

fn percent(then: u64, now: u64) -> f64 {
    (now as f64 - then as f64) * 100.0 / then as f64
}

/// A row per piece of work.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut table = format!("{:<18} {:>14} {:>14} {:>11}  verdict", "instructions", "baseline", "now", "difference");
    for comparison in comparisons {
        let figure = |count: Option<u64>| count.map_or_else(|| "-".into(), |count| count.to_string());
        let change = comparison.change().map_or_else(|| "-".into(), |change| format!("{change:+.2} %"));
        let verdict = match comparison.verdict {
            Verdict::Fine => "fine",
            Verdict::Slower => "SLOWER",
            Verdict::Faster => "faster",
            Verdict::New => "new",
            Verdict::Gone => "gone",
        };
        let (then, now) = (figure(comparison.then), figure(comparison.now));
        table += &format!("\n{:<18} {then:>14} {now:>14} {change:>11}  {verdict}", comparison.name);
    }
    table
}

/// Whether that can stay, and what is worth saying if it can. `differences` are those of [`MadeWith`].
pub fn judge(comparisons: &[Comparison], differences: &[String]) -> Outcome<Option<String>> {
    let named = |verdict: Verdict| -> Vec<String> {
        let alike = comparisons.iter().filter(|comparison| comparison.verdict == verdict);
        let said = alike.map(|one| match one.change() {
            Some(change) => format!("{} by {:.1} %", one.name, change.abs()),
            None => one.name.clone(),
        });
        said.collect()
    };
    let (slower, faster) = (named(Verdict::Slower), named(Verdict::Faster));
    let here = differences.join(", ");
    if !slower.is_empty() {
        let why = if differences.is_empty() {
            "nothing but this repository has changed since the baseline: find the cause, or, where it is worth its price, \
             record it with `cargo xtask counts --bless` and say why in the commit"
                .to_owned()
        } else {
            format!(
                "this machine has {here}, which may be why: make a baseline from the commit before your change with \
                 `cargo xtask counts --bless`, and compare with that"
            )
        };
        return Err(Fail::new(format!("more instructions than the baseline allows: {}; {why}", slower.join(", "))));
    }
    let other = [("new", named(Verdict::New)), ("gone", named(Verdict::Gone))];
    if let Some((what, names)) = other.iter().find(|(_, names)| !names.is_empty()) {
        let names = names.join(", ");
        return Err(Fail::new(format!(
            "the baseline does not know what is counted ({what}: {names}); record it with `cargo xtask counts --bless`"
        )));
    }
    if faster.is_empty() {
        return Ok(None);
    }
    let faster = faster.join(", ");
    if differences.is_empty() {
        return Err(Fail::new(format!(
            "far fewer instructions than the baseline: {faster}; good, but a baseline that is too high hides the next \
             slow-down: record it with `cargo xtask counts --bless`"
        )));
    }
    Ok(Some(format!("far fewer instructions than the baseline: {faster}; this machine has {here}, which may be why")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_with(rustc: &str) -> MadeWith {
        let same = || "same".to_owned();
        MadeWith { rustc: rustc.into(), cc: same(), libc: same(), valgrind: same(), processor: same() }
    }

    fn counts(counts: &[(&str, u64)]) -> Vec<Count> {
        let one = |(name, instructions): &(&str, u64)| Count { name: (*name).into(), instructions: *instructions };
        counts.iter().map(one).collect()
    }

    /// A baseline of `then`, compared with `now` under another compiler or the same.
    fn judged(then: &[(&str, u64)], now: &[(&str, u64)], rustc: &str) -> Outcome<Option<String>> {
        let baseline = bless(None, made_with("1.95"), &counts(then));
        judge(&baseline.compare(&counts(now)), &baseline.made_with.differences(&made_with(rustc)))
    }

    fn refused(then: &[(&str, u64)], now: &[(&str, u64)], rustc: &str) -> String {
        judged(then, now, rustc).unwrap_err().message
    }

    #[test]
    fn within_the_tolerance_is_fine() {
        let then = [("decode", 100_000), ("pack", 500_000)];
        assert_eq!(judged(&then, &then, "1.95").unwrap(), None);
        assert_eq!(judged(&then, &[("decode", 102_000), ("pack", 490_000)], "1.95").unwrap(), None);
    }

    #[test]
    fn slower_fails_under_any_compiler_and_says_which_and_how_much() {
        let now = [("decode", 102_001), ("pack", 500_000)];
        let said = refused(&[("decode", 100_000), ("pack", 500_000)], &now, "1.95");
        assert!(said.contains("decode by 2.0 %") && said.contains("--bless") && !said.contains("pack"), "{said}");
        let said = refused(&[("decode", 100_000), ("pack", 500_000)], &now, "1.96");
        assert!(said.contains("decode by 2.0 %") && said.contains("1.96 instead of 1.95"), "{said}");
    }

    #[test]
    fn faster_fails_unless_another_compiler_may_be_why() {
        let (then, now) = ([("index", 100_000)], [("index", 97_999)]);
        assert!(refused(&then, &now, "1.95").contains("index by 2.0 %"));
        let notice = judged(&then, &now, "1.96").unwrap().unwrap();
        assert!(notice.contains("index by 2.0 %") && notice.contains("1.96 instead of 1.95"), "{notice}");
    }

    #[test]
    fn a_faster_one_does_not_make_up_for_a_slower_one() {
        assert!(refused(&[("a", 100), ("b", 100)], &[("a", 50), ("b", 110)], "1.95").contains("b by 10.0 %"));
    }

    #[test]
    fn what_only_one_side_knows_fails() {
        assert!(refused(&[("a", 1)], &[("a", 1), ("b", 1)], "1.96").contains("new: b"));
        assert!(refused(&[("a", 1), ("b", 1)], &[("a", 1)], "1.96").contains("gone: b"));
    }

    #[test]
    fn the_table_names_every_verdict() {
        let baseline = bless(None, made_with("1.95"), &counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1)]));
        let table = table(&baseline.compare(&counts(&[("a", 1010), ("b", 1500), ("c", 500), ("e", 7)])));
        let verdicts: Vec<&str> = table.lines().skip(1).map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(verdicts, ["fine", "SLOWER", "faster", "new", "gone"]);
        assert!(table.contains("+50.00 %"), "{table}");
    }

    #[test]
    fn a_baseline_is_read_as_written_and_keeps_its_tolerance() {
        let file = std::env::temp_dir().join(format!("xtask-baseline-{}.json", std::process::id()));
        assert!(Baseline::read(&file).unwrap().is_none());
        let mut first = bless(None, made_with("1.95"), &counts(&[("a", 1)]));
        first.tolerance_percent = 5.0;
        first.write(&file).unwrap();
        let second = bless(Baseline::read(&file).unwrap(), made_with("1.96"), &counts(&[("a", 2)]));
        std::fs::write(&file, "{}").unwrap();
        let broken = Baseline::read(&file).unwrap_err().message;
        std::fs::remove_file(&file).unwrap();
        assert_eq!((second.tolerance_percent, second.instructions["a"]), (5.0, 2));
        assert!(broken.contains("baseline"), "{broken}");
    }
}
