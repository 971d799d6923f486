//! What a benchmark hands back: facts, tables, notes and the samples behind them, as text, Markdown or JSON.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::{Context, Failure, Result};

/// Everything one run found out.
#[derive(Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Machine, subject and tool facts, in the order they are shown.
    pub facts: Vec<(String, String)>,
    /// The figures.
    pub tables: Vec<Table>,
    /// Sentences a reader needs to judge the figures.
    pub notes: Vec<String>,
    /// Every sample and derived figure, under stable names.
    pub data: Map<String, Value>,
    /// What missed its budget; not empty means a non-zero exit code.
    pub missed: Vec<String>,
}

/// One table of the report.
#[derive(Serialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// Column names.
    pub head: Vec<String>,
    /// The rows, as wide as `head`.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(|h| h.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn widths(&self) -> Vec<usize> {
        let cell = |row: &Vec<String>, i: usize| row.get(i).map_or(0, |c| c.chars().count());
        (0..self.head.len())
            .map(|i| self.rows.iter().map(|r| cell(r, i)).max().unwrap_or(0).max(cell(&self.head, i)))
            .collect()
    }

    fn line(&self, row: &[String], separator: &str) -> String {
        let cells: Vec<String> = row
            .iter()
            .zip(self.widths())
            .enumerate()
            .map(|(i, (c, w))| if i == 0 { format!("{c:<w$}") } else { format!("{c:>w$}") })
            .collect();
        cells.join(separator)
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n  {}\n", self.title, self.line(&self.head, "  "));
        for row in &self.rows {
            out += &format!("  {}\n", self.line(row, "  "));
        }
        out
    }

    fn markdown(&self) -> String {
        let escape = |row: &Vec<String>| row.iter().map(|c| c.replace('|', "\\|")).collect();
        let safe =
            Self { title: self.title.clone(), head: escape(&self.head), rows: self.rows.iter().map(escape).collect() };
        let dashes = |(i, w): (usize, &usize)| {
            if i == 0 { "-".repeat(*w) } else { "-".repeat(w - 1) + ":" }
        };
        let rule: Vec<String> = safe.widths().iter().enumerate().map(dashes).collect();
        let mut out = format!("**{}**\n\n| {} |\n| {} |\n", safe.title, safe.line(&safe.head, " | "), rule.join(" | "));
        for row in &safe.rows {
            out += &format!("| {} |\n", safe.line(row, " | "));
        }
        out
    }
}

impl Report {
    /// A report with the facts that are known before anything is measured.
    pub fn new(benchmark: &'static str, facts: Vec<(String, String)>) -> Self {
        Self { benchmark, facts, tables: Vec::new(), notes: Vec::new(), data: Map::new(), missed: Vec::new() }
    }

    /// The report of a benchmark that could not run.
    pub fn not_measured(benchmark: &'static str, why: &Failure) -> Self {
        let mut report = Self::new(benchmark, Vec::new());
        report.missed.push(format!("NOT MEASURED: {why}"));
        report
    }

    /// Adds a fact.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }

    /// Keeps `value` under `name` in the JSON.
    pub fn keep(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).context(format!("could not put {name} into the report"))?;
        self.data.insert(name.into(), value);
        Ok(())
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let width = self.facts.iter().map(|(n, _)| n.chars().count()).max().unwrap_or(0);
        let facts: String = self.facts.iter().map(|(n, v)| format!("  {n:<width$}  {v}\n")).collect();
        let tables: Vec<String> = self.tables.iter().map(Table::text).collect();
        let notes: String = self.notes.iter().chain(&self.missed).map(|n| format!("  {n}\n")).collect();
        format!("{}\n{facts}\n{}\n{notes}", self.benchmark, tables.join("\n"))
    }

    /// For `docs/performance.md`.
    pub fn markdown(&self) -> String {
        let facts: String = self.facts.iter().map(|(n, v)| format!("- {n}: {v}\n")).collect();
        let tables: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        let notes: String = self.notes.iter().chain(&self.missed).map(|n| format!("- {n}\n")).collect();
        format!("{}\n{facts}\n{notes}", tables.join("\n"))
    }
}

/// Writes one report, or a list of several, to `path` as JSON.
pub fn save(path: &Path, reports: &[Report]) -> Result<()> {
    let what = format!("could not write the report to {}", path.display());
    let mut file = File::create(path).context(&what)?;
    match reports {
        [one] => serde_json::to_writer_pretty(&mut file, one).context(&what)?,
        several => serde_json::to_writer_pretty(&mut file, several).context(&what)?,
    }
    file.write_all(b"\n").context(&what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("T", &["way", "s"]);
        table.row(["ours".into(), "1.00".into()]);
        table.row(["a | b".into(), "22.00".into()]);
        assert_eq!(table.text(), "T\n  way        s\n  ours    1.00\n  a | b  22.00\n");
        assert!(table.markdown().contains("| ------ | ----: |\n| ours   |  1.00 |\n| a \\| b | 22.00 |"));
    }
}
