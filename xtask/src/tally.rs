//! Counts tests from what cargo and libtest print, per crate.

use std::time::Instant;

/// What a crate's tests came to.
#[derive(Default)]
struct Row {
    name: String,
    passed: u64,
    failed: u64,
    ignored: u64,
    seconds: f64,
}

/// The count so far.
#[derive(Default)]
pub struct Tally {
    rows: Vec<Row>,
    /// The crate whose unit tests were the last to run.
    package: String,
    /// The crate whose tests are running, and since when. None once their result was seen.
    open: Option<(usize, Instant)>,
}

impl Tally {
    /// Takes one line of output, as it came.
    pub fn line(&mut self, line: &str, now: Instant) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(heading) = heading(line) {
            self.finish();
            // cargo names no crate before integration tests; it runs them after the unit tests of their crate.
            let name = match heading {
                Heading::Crate(name) => {
                    self.package.clone_from(&name);
                    name
                }
                Heading::Tests(file) if self.package.is_empty() => file,
                Heading::Tests(file) => format!("{}: {file}", self.package),
            };
            let row = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                self.rows.push(Row { name, ..Row::default() });
                self.rows.len() - 1
            });
            self.open = Some((row, now));
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.result(counts, now);
        }
    }

    /// Nothing more comes: tests that began and reported no result have crashed, which is a failure.
    pub fn finish(&mut self) {
        if let Some((row, _)) = self.open.take() {
            self.rows[row].failed += 1;
        }
    }

    fn result(&mut self, counts: &str, now: Instant) {
        // One crate's documentation tests may report twice: a second result belongs to the last heading.
        let Some(last) = self.rows.len().checked_sub(1) else {
            return;
        };
        let (row, began) = self.open.take().map_or((last, now), |(row, began)| (row, began));
        let row = &mut self.rows[row];
        let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed" => row.passed += number,
                "failed" => row.failed += number,
                "ignored" => row.ignored += number,
                _ => {}
            }
        }
        row.seconds += now.duration_since(began).as_secs_f64();
    }

    /// How many passed.
    pub fn passed(&self) -> u64 {
        self.rows.iter().map(|row| row.passed).sum()
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.failed).sum()
    }

    /// A row per crate that has tests.
    pub fn table(&self) -> String {
        let mut table = format!("{:<28} {:>7} {:>7} {:>8} {:>9}", "crate", "passed", "failed", "ignored", "seconds");
        for row in self.rows.iter().filter(|row| row.passed + row.failed + row.ignored > 0) {
            let Row { name, passed, failed, ignored, seconds } = row;
            table += &format!("\n{name:<28} {passed:>7} {failed:>7} {ignored:>8} {seconds:>9.1}");
        }
        table
    }

    /// The sum, in the form that others look for.
    pub fn last_line(&self) -> String {
        format!("{} passed, {} failed", self.passed(), self.failed())
    }
}

/// What the following tests are.
enum Heading {
    /// A crate's unit or documentation tests.
    Crate(String),
    /// An integration test program.
    Tests(String),
}

/// `Running unittests src/lib.rs (target/debug/deps/NAME-HASH)`, `Running tests/FILE.rs (…)` or `Doc-tests NAME`.
fn heading(line: &str) -> Option<Heading> {
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(Heading::Crate(format!("{name}: documentation")));
    }
    let running = line.strip_prefix("Running ")?;
    let program = running.rsplit_once('(')?.1.strip_suffix(')')?.rsplit('/').next()?;
    let name = program.rsplit_once('-')?.0.to_string();
    Some(if running.starts_with("unittests ") { Heading::Crate(name) } else { Heading::Tests(name) })
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line, Instant::now()));
        tally.finish();
        tally
    }

    #[test]
    fn counts_are_summed_over_crates() {
        let tally = tally(
            "\u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/envelope-0a1b)\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
             \x20    Running tests/wire.rs (target/debug/deps/wire-22)\n\
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \x20  Doc-tests envelope\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        assert_eq!(tally.last_line(), "16 passed, 2 failed");
        let names: Vec<&str> = tally.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["envelope", "envelope: wire", "envelope: documentation"]);
    }

    #[test]
    fn a_test_program_that_crashes_is_a_failure() {
        let tally = tally("Running unittests src/lib.rs (target/debug/deps/imgstream-0a1b)\nrunning 3 tests\n");
        assert_eq!(tally.last_line(), "0 passed, 1 failed");
    }
}
