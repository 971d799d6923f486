//! Consoles as operators see them: each is kept as it was in one run, and compared without what differs from run to run. A change of it
//! is a change of the fixture, which somebody reads.

use std::path::{Path, PathBuf};

/// How the first line of ours begins.
const OURS: &str = "z-provisioner: ";

/// Compares a console with its fixture, or, with `Z_RECORD_CONSOLES` set, records it.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn compare(name: &str, console: &str) {
    let path = folder().join(format!("{name}.txt"));
    if std::env::var_os("Z_RECORD_CONSOLES").is_some() {
        let ours: Vec<&str> = console.lines().map(str::trim_end).skip_while(|line| !line.starts_with(OURS)).collect();
        std::fs::write(&path, ours.join("\n") + "\n").unwrap();
        return;
    }
    let (found, expected) = (steady(console), steady(&std::fs::read_to_string(&path).unwrap_or_default()));
    let (missing, new) = (lines_missing(&expected, &found), lines_missing(&found, &expected));
    assert!(
        missing.is_empty() && new.is_empty(),
        "the console of {name} is not as in {}.\nno longer there: {missing:#?}\nnew: {new:#?}\n\
         If it shall be so, record it (Z_RECORD_CONSOLES=1) and read it as an operator would at 3 a.m.",
        path.display()
    );
}

/// Lines of one text that are not in another.
fn lines_missing<'a>(of: &'a str, from: &str) -> Vec<&'a str> {
    of.lines().filter(|line| !from.lines().any(|other| other == *line)).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/medium/consoles")
}

/// Without numbers, which are times, sizes, rates, counts and identities; without progress, of which there is more or less; and without
/// what firmware and kernel say.
fn steady(console: &str) -> String {
    let ours = console.lines().skip_while(|line| !line.starts_with(OURS));
    let lines = ours.filter(|line| !is_passing(line)).map(|line| {
        let mut text = String::new();
        let mut in_number = false;
        for letter in line.trim_end().chars() {
            let is_number = letter.is_ascii_digit() || (in_number && matches!(letter, '.' | ':' | 'a'..='f'));
            match (in_number, is_number) {
                (false, true) => text.push('#'),
                (true, true) => {}
                _ => text.push(letter),
            }
            in_number = is_number;
        }
        text + "\n"
    });
    lines.collect()
}

/// What is there or not, as it happens.
fn is_passing(line: &str) -> bool {
    let line = line.trim_start();
    let progress =
        line.contains('%') && ["write", "read-back", "clear-tail", "compare"].iter().any(|step| line.starts_with(step));
    progress || line.starts_with('[') || line.starts_with("warning: LUN") || line.contains("does not answer yet")
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    let console = "SLOF\n[    0.1] kernel\nz-provisioner: v 0.1.0\n  write      10 % of 3 MiB\nimage: sha256:0a1b2c in 3.21 s\n[    9.9] late\n";
    assert_eq!(steady(console), "z-provisioner: v #\nimage: sha#:# in # s\n");
}
