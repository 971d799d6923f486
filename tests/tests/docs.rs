//! The examples of the documentation do what the documentation says.

use std::path::Path;

use e2e::Run;
use e2e::document::{example, run};
use e2e::server;

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

/// Every claim of the security document has its test, and every test that is named there exists.
#[test]
fn every_test_that_the_security_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    // What cargo builds into is passed over by its place: rooms and tests are called `target` as well.
    let all = "cat $(find . -path ./target -prune -o -path ./fuzz/target -prune -o -name '*.rs' -print -o -path './tests/page/*.py' -print)";
    let sources = Run::tool("sh").arg("-c").arg(all).within(root).text();
    let is_name = |word: &&str| {
        word.matches('_').count() >= 2
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let words = document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut names: Vec<&str> = words.filter(is_name).filter(|word| !word.ends_with('_')).collect();
    names.sort_unstable();
    names.dedup();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| ["fn", "def"].iter().all(|word| !sources.contains(&format!("{word} {name}("))))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(names.len() > 150, "{} names were found in it", names.len());
    // A test of the target in guests is named with its file.
    let guests = root.join("tests/vm/tests/target");
    let paths = document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let elsewhere: Vec<_> = paths
        .filter_map(|path| path.rsplit_once("::"))
        .map(|(modules, name)| (modules.rsplit("::").next().unwrap_or(modules), name))
        .filter(|(_, name)| is_name(name))
        .filter(|(module, name)| {
            let file = std::fs::read_to_string(guests.join(format!("{module}.rs")));
            file.is_ok_and(|file| !file.contains(&format!("fn {name}(")))
        })
        .collect();
    assert!(elsewhere.is_empty(), "not in the files they are named with: {elsewhere:?}");
}
