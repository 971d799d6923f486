//! The examples of the documentation do what the documentation says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use std::path::{Path, PathBuf};

use e2e::{Lab, Run, command, lab, server};

/// The fenced blocks of a language in a Markdown file.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let rests = markdown.split(&fence).skip(1);
    rests.map(|rest| rest.split("\n```").next().unwrap_or(rest).to_owned()).collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The block of a document that holds `mark`.
fn example(document: &str, mark: &str) -> String {
    let text = std::fs::read_to_string(repository().join(document)).unwrap();
    blocks(&text, "sh").into_iter().find(|block| block.contains(mark)).unwrap()
}

/// Runs a script in an empty folder with `imgstream` on the PATH; returns all it said.
fn run(script: &str) -> String {
    lab::demand(&["bash", "openssl", "zstd", "mke2fs", "cmp", "sha256sum", "base64"]);
    let lab = Lab::new();
    let folder = lab.fresh_dir("empty");
    let imgstream = command::binary("imgstream", "IMGSTREAM_BIN");
    let path = format!("{}:{}", imgstream.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let whole = format!("set -m\nexec 2>&1\n{script}");
    Run::tool("bash").args(["-c", &whole]).env("PATH", path).within(&folder).limit(120).text()
}

#[test]
fn the_readme_walk_works_as_printed() {
    // Another process of this machine may have the port that the text names.
    let walk = example("README.md", "imgstream pack").replace("8099", &server::free_port().to_string());
    let said = run(&walk);
    for expected in ["signature verified", "is whole", "the same, byte for byte", "refused, with exit code 5"] {
        assert!(said.contains(expected), "missing {expected:?} in:\n{said}");
    }
}

#[test]
fn the_worked_example_of_the_format_is_true_to_the_byte() {
    let said = run(&example("docs/format.md", "imgstream pack"));
    assert!(said.contains("Signature Verified Successfully"), "{said}");
}
