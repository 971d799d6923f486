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
    assert!(!found.is_empty(), "nothing of ours is on the console of {name}:\n{console}");
    assert!(
        found == expected,
        "the console of {name} is not as in {}.\nit was:\n{expected}\nand is:\n{found}\n\
         If it shall be so, record it (Z_RECORD_CONSOLES=1) and read it as an operator would at 3 a.m.",
        path.display()
    );
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/medium/consoles")
}

/// Without numbers and digests, which are times, sizes, counts and identities; without progress and rates, of which there is more or less;
/// and without what firmware and kernel say.
fn steady(console: &str) -> String {
    let ours = console.lines().skip_while(|line| !line.starts_with(OURS));
    let lines = ours
        .filter(|line| !is_passing(line))
        .map(|line| words(&without_run_names(line.trim_end())).replace("# min # s", "# s") + "\n");
    lines.collect()
}

/// A line where the names that a service makes for runs, `r-` and sixteen letters and digits, are `r-#`.
fn without_run_names(line: &str) -> String {
    let is_name = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (mut text, mut rest) = (String::new(), line);
    while let Some(at) = rest.find("r-") {
        let (before, after) = rest.split_at(at + 2);
        let letters = after.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_word = before[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric());
        text += before;
        // What follows a name may follow an `r` of it.
        let named = !is_word && is_name(&after[..letters]);
        if named {
            text += "#";
        }
        rest = if named { &after[letters..] } else { after };
    }
    text + rest
}

/// A line whose words have no numbers, but for the counts of "2 of 2".
fn words(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let counts = |at: usize| words.get(at) == Some(&"of");
    let word = |(at, word): (usize, &&str)| {
        if counts(at + 1) || (at > 0 && counts(at - 1)) { (*word).to_owned() } else { without_numbers(word) }
    };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// A word whose numbers are `#`, and disks `sd#`: which is found first is not the same each time. One that is a number in base 16, however
/// it is punctuated, is nothing else.
fn without_numbers(word: &str) -> String {
    let bare = word.trim_matches(|letter: char| letter.is_ascii_punctuation());
    if bare.len() == 3 && bare.starts_with("sd") {
        return word.replace(bare, "sd#");
    }
    let core = word.trim_matches(|letter: char| letter.is_ascii_punctuation());
    let core = core.strip_prefix("sha256:").unwrap_or(core);
    if core.len() >= 16 && core.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-') {
        return word.replace(core, "#");
    }
    let mut text = String::new();
    for letter in word.chars() {
        let follows = text.ends_with('#') && (letter.is_ascii_digit() || letter == '.');
        match letter {
            _ if follows => {}
            '0'..='9' => text.push('#'),
            _ => text.push(letter),
        }
    }
    text
}

/// What is there or not, or is as it happens.
fn is_passing(line: &str) -> bool {
    let line = line.trim_start();
    let rates = [
        "write ",
        "read-back ",
        "clear-tail ",
        "compare ",
        "time ",
        "warning: nothing has moved",
        "warning: it goes on",
        // A source that was slow for a moment.
        "retry: ",
    ];
    rates.iter().any(|start| line.starts_with(start))
        || line.starts_with('[')
        || line.starts_with("warning: LUN")
        || line.contains("does not answer yet")
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    let console = "SLOF\n[    0.1] kernel\nz-provisioner: v 0.1.0\n  write      10 % of 3 MiB\n\
                   image: sha256:bd0a1b2c3d4e5f60718293a4b5c6d7e8; from http://10.9.0.1/ (3.21 s)\n[    9.9] late\n\
                   mapping zprov-r-ytpwjwnmr5qxl3oe-luks0, run r-ytpwjwnmr5qxl3or-disk, our-ytpwjwnmr5qxl3oe\n\
                   LUKS 176d8773-ea81-847f-a5dc-9acb5d54ba26, 1 of 2 paths (sda is live), in 1 min 2 s\n";
    assert_eq!(
        steady(console),
        "z-provisioner: v #\nimage: sha256:#; from http://#/ (# s)\nmapping zprov-r-#-luks#, run r-#-disk, our-ytpwjwnmr#qxl#oe\nLUKS #, 1 of 2 paths (sd# is live), in # s\n"
    );
}
